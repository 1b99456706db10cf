"""Servers run here under the serving role, as `pytest --serving-role` has them do everywhere."""

import pytest


@pytest.fixture
def serving_role() -> bool:
    return True
