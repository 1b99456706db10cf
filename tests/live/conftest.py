"""Everything here is tried with few live queries and as with many."""

from tests.live.strict import few  # noqa: F401  a fixture
