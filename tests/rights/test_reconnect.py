"""Some of tests/test_reconnect.py under the serving role."""

from tests.test_reconnect import test_every_connection_of_the_server_is_cut  # noqa: F401
