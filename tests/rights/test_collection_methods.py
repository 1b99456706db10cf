"""tests/test_collection_methods.py under the serving role."""

from tests.test_collection_methods import *  # noqa: F403
