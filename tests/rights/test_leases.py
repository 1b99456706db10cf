"""Some of tests/test_leases.py under the serving role."""

from tests.test_leases import clients, people, test_rows_that_go_in_other_ways  # noqa: F401
