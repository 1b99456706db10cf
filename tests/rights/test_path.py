"""tests/test_path.py under the serving role."""

from tests.test_path import *  # noqa: F403
