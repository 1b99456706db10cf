"""Some of tests/test_publish.py under the serving role."""

from tests.test_publish import (  # noqa: F401
    client,
    people,
    test_documents_merge_with_those_of_live_queries,
    test_functions_run_again_as_another_user,
)
