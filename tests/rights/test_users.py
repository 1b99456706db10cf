"""Some of tests/test_users.py under the serving role."""

from tests.test_users import (  # noqa: F401
    client,
    people,
    test_a_superuser_sees_all_while_being_one,
    test_a_user_made_in_the_same_transaction,
    test_groups_take_effect,
)
