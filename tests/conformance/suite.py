"""All conversations."""

from __future__ import annotations

from tests.conformance import (
    facts_accounts,
    facts_connect,
    facts_data,
    facts_errors,
    facts_limits,
    facts_methods,
    facts_ping,
    facts_resume,
    facts_subscriptions,
    facts_users,
)
from tests.conformance.conversation import Conversation

CONVERSATIONS: list[Conversation] = [
    *facts_connect.CONVERSATIONS,
    *facts_errors.CONVERSATIONS,
    *facts_ping.CONVERSATIONS,
    *facts_data.CONVERSATIONS,
    *facts_subscriptions.CONVERSATIONS,
    *facts_methods.CONVERSATIONS,
    *facts_users.CONVERSATIONS,
    *facts_accounts.CONVERSATIONS,
    *facts_limits.CONVERSATIONS,
    *facts_resume.CONVERSATIONS,
]

#: What a server may be without, see `Conversation.needs`.
FEATURES = ("unblock", "resume", "accounts", "limits")
