"""tests/test_property.py under the serving role."""

from tests.test_property import *  # noqa: F403
