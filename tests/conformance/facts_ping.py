"""Facts 13 to 15: who is there."""

from __future__ import annotations

from tests.conformance.conversation import (
    SOCKJS,
    Closed,
    Frames,
    Nothing,
    Open,
    connected,
    conversation,
    done,
    expect,
    method,
    say,
)
from tests.conformance.patterns import Ordered

#: Seconds that Meteor's own server takes at most to ping a silent client, and to give it up.
PING_SECONDS, GONE_SECONDS = 35, 50

CONVERSATIONS = [
    conversation("fact_13_pong", connected(), say("ping"), expect({"msg": "pong"}), Nothing(queued=False)),
    conversation(
        "fact_13_pong_with_the_pings_id",
        connected(),
        say("ping", id="abc"),
        expect(Ordered({"msg": "pong", "id": "abc"})),
        Nothing(),
    ),
    conversation(
        "fact_13_a_ping_does_not_wait_for_its_turn",
        connected(),
        method("m", "slow", 1000, 1),
        say("ping", id="quick"),
        expect({"msg": "pong", "id": "quick"}),
        done("m", 1),
        Nothing(),
    ),
    conversation(
        "fact_13_a_pong_is_no_answer_worth",
        connected(),
        say("pong"),
        say("pong", id="never sent"),
        Nothing(),
    ),
    conversation(
        "fact_13_pre1_has_no_ping",
        connected(version="pre1"),
        say("ping"),
        expect({"msg": "error", "reason": "Bad request", "offendingMessage": {"msg": "ping"}}),
        Nothing(),
    ),
    conversation(
        "fact_14_a_silent_client_is_pinged_and_then_given_up",
        connected(pings=True),
        expect({"msg": "ping"}, within=PING_SECONDS),
        Closed(codes=(1000, 1005, 1006), within=GONE_SECONDS),
        slow=45,
    ),
    conversation(
        "fact_14_any_message_is_a_pong",
        connected(pings=True),
        expect({"msg": "ping"}, within=PING_SECONDS),
        say("nonsense"),
        expect({"msg": "error", "reason": "Bad request", "offendingMessage": {"msg": "nonsense"}}),
        expect({"msg": "ping"}, within=PING_SECONDS),
        say("pong"),
        expect({"msg": "ping"}, within=PING_SECONDS),
        slow=90,
    ),
    conversation(
        "fact_15_sockjs_has_a_heartbeat_of_its_own",
        Open(),
        Frames("an opening and a heartbeat", lambda frames: frames == ["o", "h"], within=50),
        slow=45,
        wires=tuple(SOCKJS),
    ),
]
