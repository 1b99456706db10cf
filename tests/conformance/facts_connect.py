"""Facts 1 to 3, and 49: how a connection begins."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.conformance.conversation import (
    SOCKJS,
    Closed,
    Conversation,
    Frames,
    Get,
    Nothing,
    Open,
    Send,
    Step,
    added,
    conversation,
    expect,
    say,
    sub,
)
from tests.conformance.patterns import ID, Capture, Has


def refused(name: str, connect: dict[str, Any], version: str = "1") -> Conversation:
    """A `connect` that is answered with `failed`, and the end."""
    return conversation(
        name,
        Open(),
        Send({"msg": "connect", **connect}),
        expect({"msg": "failed", "version": version}),
        Closed(),
    )


def accepted(name: str, connect: dict[str, Any]) -> Conversation:
    return conversation(
        name,
        Open(),
        Send({"msg": "connect", **connect}),
        expect({"msg": "connected", "session": ID}),
        Nothing(),
    )


def hello(by: str) -> list[Step]:
    return [
        Open(by),
        say("connect", by, version="1", support=["1"]),
        expect({"msg": "connected", "session": Capture(by, ID)}, by=by),
    ]


def _info(headers: Any, text: str) -> bool:
    info = json.loads(text)
    return (
        info["websocket"] is True
        and info["origins"] == ["*:*"]
        and isinstance(info["cookie_needed"], bool)
        and isinstance(info["entropy"], int)
        and 0 <= info["entropy"] < 2**32
        and "no-cache" in headers["cache-control"]
        and headers["access-control-allow-origin"] == "*"
    )


_entropies: list[int] = []


def _fresh(headers: Any, text: str) -> bool:
    _entropies.append(json.loads(text)["entropy"])
    return len(_entropies) < 2 or _entropies[-1] != _entropies[-2]


CONVERSATIONS = [
    conversation(
        "fact_01_nothing_is_sent_before_the_client_speaks",
        Open(greetings=True),
        # What answers this shows that nothing stood before it.
        say("unsub", id="x"),
        expect(Has({"msg": "error", "reason": "Must connect first"})),
        Frames("an opening and a message", lambda frames: [frame[0] for frame in frames] == ["o", "a"]),
    ),
    accepted("fact_02_connect", {"version": "1", "support": ["1", "pre2", "pre1"]}),
    accepted("fact_02_connect_pre2", {"version": "pre2", "support": ["pre2", "pre1"]}),
    conversation(
        "fact_02_connect_pre1",
        Open(),
        say("connect", version="pre1", support=["pre1"]),
        expect({"msg": "connected", "session": ID}),
        Nothing(),
    ),
    accepted("fact_02_unknown_support_is_passed_over", {"version": "1", "support": ["9", "1", "pre1"]}),
    refused("fact_02_the_first_of_support_is_picked", {"version": "1", "support": ["pre2", "1"]}, "pre2"),
    refused(
        "fact_02_the_first_known_of_support_is_picked", {"version": "9", "support": ["9", "pre1"]}, "pre1"
    ),
    refused("fact_02_nothing_in_common", {"version": "9", "support": ["9"]}),
    refused("fact_02_version_is_not_in_support", {"version": "1", "support": ["pre2"]}),
    refused("fact_02_version_is_no_text", {"version": 1, "support": ["1"]}),
    refused("fact_02_no_version", {"support": ["1"]}),
    refused("fact_02_no_support", {"version": "1"}),
    refused("fact_02_support_is_no_array", {"version": "1", "support": "1"}),
    refused("fact_02_support_holds_no_texts", {"version": "1", "support": ["1", 1]}),
    conversation(
        "fact_03_every_session_has_an_id_of_its_own",
        hello("one"),
        hello("two"),
        Nothing("one"),
        Nothing("two"),
    ),
    conversation(
        "fact_03_universal_publications_come_first",
        Open(),
        say("connect", version="1", support=["1"]),
        sub("s", "script", "none", [["added", "things", "a", {}], ["ready"]]),
        expect(
            {"msg": "connected", "session": ID},
            added("conformance.universal", "motd", text="hello"),
            added("things", "a"),
            {"msg": "ready", "subs": ["s"]},
        ),
        ignoring=frozenset({"users"}),
    ),
    conversation(
        "fact_49_info",
        Get("/sockjs/info", "what a SockJS client needs to know", _info),
        Get("/sockjs/info", "fresh", _fresh),
        Get("/sockjs/info", "fresh", _fresh),
        wires=("sockjs",),
    ),
    conversation(
        "fact_49_frames",
        Open(),
        Frames("an opening alone", lambda frames: frames == ["o"], within=5),
        say("connect", version="9", support=["9"]),
        expect({"msg": "failed", "version": "1"}),
        Closed(),
        Frames(
            "opening, a message and the end",
            lambda frames: (
                len(frames) == 3 and frames[1].startswith('a["') and re.fullmatch(r'c\[\d+,".*"\]', frames[2])
            ),
        ),
        wires=tuple(SOCKJS),
    ),
]
