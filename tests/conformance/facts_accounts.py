"""Facts 37 to 39: logins with a password, sent as the digest that Meteor's client makes, and with a token."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.conformance.conversation import (
    Closed,
    Conversation,
    Interleaved,
    Nothing,
    Send,
    Step,
    connected,
    conversation,
    expect,
    failed,
    in_any_order,
    meteor_error,
    ready,
    say,
    sub,
    updated,
)
from tests.conformance.patterns import ANYTHING, TEXT, TOKEN, Capture, Has, OneOf, Var, Which

ANN, BOB = Var("ann"), Var("bob")
CREDENTIALS = meteor_error(403, "Something went wrong. Please check your credentials.")
LOGGED_OUT = meteor_error(403, "You've been logged out by the server. Please log in again.")
MUST_BE_LOGGED_IN = meteor_error(401, "Must be logged in")
DAY = 24 * 60 * 60 * 1000


def digest(password: str) -> dict[str, str]:
    return {"digest": hashlib.sha256(password.encode()).hexdigest(), "algorithm": "sha-256"}


def call(identifier: str, name: str, *params: Any, by: str = "me") -> Send:
    return say("method", by, id=identifier, method=name, params=list(params))


def answered(identifier: str, value: Any, by: str = "me") -> Interleaved:
    return in_any_order({"msg": "result", "id": identifier, "result": value}, updated(identifier), by=by)


def unanswered(identifier: str, by: str = "me") -> Interleaved:
    """The end of a method that returns nothing."""
    bare = {"msg": "result", "id": identifier}
    return in_any_order(OneOf(bare, {**bare, "result": None}), updated(identifier), by=by)


def session_of(who: str, **more: Any) -> Has:
    """What a login returns: the user's id, and a token for ninety days; they become variables."""
    return Has(
        {
            "id": Capture(f"{who}'s id", TEXT),
            "token": Capture(f"{who}'s token", TOKEN),
            "tokenExpires": {"$date": Which("a time", lambda at: isinstance(at, int) and at > 1.7e12)},
            **more,
        }
    )


def signed_up(who: str = "ann", by: str = "me", **options: Any) -> list[Step]:
    """Create an account, with which one is then logged in."""
    options = {"username": Var(who), "password": digest("secret"), **options}
    return [call("up", "createUser", options, by=by), answered("up", session_of(who), by=by)]


def logged_out(by: str = "me") -> list[Step]:
    return [call("out", "logout", by=by), unanswered("out", by=by)]


def user_is(user: Any, by: str = "me") -> list[Step]:
    if user is None:
        bare = {"msg": "result", "id": "who"}
        answer = in_any_order(OneOf(bare, {**bare, "result": None}), updated("who"), by=by)
        return [call("who", "conformance.whoami", by=by), answer]
    return [call("who", "conformance.whoami", by=by), answered("who", user, by=by)]


def logs_in(what: str, request: Any, kind: str = "password") -> Conversation:
    """A login of someone whose account another connection has made."""
    return conversation(
        f"fact_38_login_{what}",
        connected("other"),
        signed_up(by="other"),
        connected(),
        call("in", "login", request),
        answered("in", session_of("ann", id=Var("ann's id"), type=kind)),
        user_is(ANN),
        Nothing(),
        needs="accounts",
    )


def refused(what: str, request: Any, error: Any) -> Conversation:
    return conversation(
        f"fact_39_login_{what}",
        connected("other"),
        signed_up(by="other"),
        connected(),
        call("in", "login", request),
        failed("in", error),
        user_is(None),
        Nothing(),
        needs="accounts",
    )


def fails(what: str, name: str, *params: Any, error: Any) -> Conversation:
    """A method of somebody who is not logged in."""
    return conversation(
        f"fact_39_{what}",
        connected(),
        call("m", name, *params),
        failed("m", error),
        Nothing(),
        needs="accounts",
    )


CONVERSATIONS = [
    conversation(
        "fact_37_a_login_by_password_and_by_its_token",
        connected(),
        signed_up(),
        user_is(ANN),
        connected("second"),
        call("in", "login", {"user": {"username": ANN}, "password": digest("secret")}, by="second"),
        answered(
            "in",
            {
                "id": Var("ann's id"),
                "token": Capture("second token", TOKEN),
                "tokenExpires": {"$date": ANYTHING},
                "type": "password",
            },
            by="second",
        ),
        connected("third"),
        call("in", "login", {"resume": Var("second token")}, by="third"),
        answered(
            "in",
            {
                "id": Var("ann's id"),
                "token": Var("second token"),
                "tokenExpires": {"$date": ANYTHING},
                "type": "resume",
            },
            by="third",
        ),
        user_is(ANN, by="third"),
        Nothing("third"),
        needs="accounts",
    ),
    conversation(
        "fact_37_every_login_has_a_token_of_its_own",
        connected(),
        signed_up(),
        call("in", "login", {"user": {"username": ANN}, "password": digest("secret")}),
        answered("in", Has({"token": Capture("another", TOKEN)})),
        call("out", "logout"),
        unanswered("out"),
        # That ended the login of this connection; the token before is as good as it was.
        call("r1", "login", {"resume": Var("another")}),
        failed("r1", LOGGED_OUT),
        call("r2", "login", {"resume": Var("ann's token")}),
        answered("r2", Has({"id": Var("ann's id")})),
        needs="accounts",
    ),
    conversation(
        "fact_37_subscriptions_run_again",
        connected("other"),
        signed_up(by="other"),
        connected(),
        sub("s", "items", "a group without items"),
        expect(ready("s")),
        call("in", "login", {"user": {"username": ANN}, "password": digest("secret")}),
        expect(ready("s")),
        answered("in", Has({"id": Var("ann's id")})),
        call("out", "logout"),
        expect(ready("s")),
        unanswered("out"),
        user_is(None),
        Nothing(),
        needs="accounts",
    ),
    logs_in("by_username", {"user": {"username": ANN}, "password": digest("secret")}),
    logs_in("by_id", {"user": {"id": Var("ann's id")}, "password": digest("secret")}),
    logs_in("with_a_plain_password", {"user": {"username": ANN}, "password": "secret"}),
    logs_in("by_token", {"resume": Var("ann's token")}, "resume"),
    conversation(
        "fact_38_login_by_email_in_another_case",
        connected("other"),
        signed_up(by="other", email=Var("ann's address")),
        connected(),
        call(
            "in", "login", {"user": {"email": Var("ann's address in capitals")}, "password": digest("secret")}
        ),
        answered("in", session_of("ann", id=Var("ann's id"))),
        user_is(ANN),
        needs="accounts",
    ),
    conversation(
        "fact_38_login_by_username_in_another_case",
        connected("other"),
        signed_up(by="other"),
        connected(),
        call("in", "login", {"user": {"username": Var("ANN")}, "password": digest("secret")}),
        answered("in", session_of("ann", id=Var("ann's id"))),
        user_is(ANN),
        needs="accounts",
    ),
    conversation(
        "fact_38_a_plain_password_is_the_same_as_its_digest",
        connected("other"),
        signed_up(by="other", password="secret"),
        connected(),
        call("in", "login", {"user": {"username": ANN}, "password": digest("secret")}),
        answered("in", session_of("ann", id=Var("ann's id"))),
        needs="accounts",
    ),
    refused("with_a_wrong_password", {"user": {"username": ANN}, "password": digest("wrong")}, CREDENTIALS),
    refused("of_nobody", {"user": {"username": BOB}, "password": digest("secret")}, CREDENTIALS),
    refused("with_a_wrong_token", {"resume": "x" * 43}, LOGGED_OUT),
    refused("without_anything", {}, meteor_error(400, "Unrecognized options for login request")),
    refused(
        "with_something_else", {"nonsense": 1}, meteor_error(400, "Unrecognized options for login request")
    ),
    refused(
        "of_two_at_once",
        {"user": {"username": ANN, "id": "1"}, "password": digest("secret")},
        Has({"error": 400}),
    ),
    refused("with_a_number", {"user": {"username": ANN}, "password": 7}, Has({"error": 400})),
    refused(
        "with_another_algorithm",
        {"user": {"username": ANN}, "password": {**digest("secret"), "algorithm": "md5"}},
        Has({"error": 400}),
    ),
    conversation(
        "fact_39_a_token_ends_with_its_logout",
        connected(),
        signed_up(),
        logged_out(),
        user_is(None),
        call("in", "login", {"resume": Var("ann's token")}),
        failed("in", LOGGED_OUT),
        Nothing(),
        needs="accounts",
    ),
    conversation(
        "fact_39_a_failed_login_leaves_one_logged_in",
        connected(),
        signed_up(),
        call("in", "login", {"user": {"username": ANN}, "password": digest("wrong")}),
        failed("in", CREDENTIALS),
        user_is(ANN),
        Nothing(),
        needs="accounts",
    ),
    conversation(
        "fact_39_change_of_password",
        connected(),
        signed_up(),
        call("m1", "changePassword", digest("wrong"), digest("new")),
        failed("m1", OneOf(CREDENTIALS, meteor_error(403, "Incorrect password"))),
        call("m2", "changePassword", digest("secret"), digest("new")),
        answered("m2", {"passwordChanged": True}),
        user_is(ANN),
        connected("other"),
        call("in1", "login", {"user": {"username": ANN}, "password": digest("secret")}, by="other"),
        failed("in1", CREDENTIALS, by="other"),
        call("in2", "login", {"user": {"username": ANN}, "password": digest("new")}, by="other"),
        answered("in2", Has({"id": Var("ann's id")}), by="other"),
        Nothing(),
        needs="accounts",
    ),
    conversation(
        "fact_39_change_of_password_ends_other_logins",
        connected("other"),
        signed_up(by="other"),
        connected(),
        call("in", "login", {"user": {"username": ANN}, "password": digest("secret")}),
        answered("in", session_of("second")),
        call("m", "changePassword", digest("secret"), digest("new")),
        answered("m", {"passwordChanged": True}),
        Closed("other", codes=(1000, 3000)),
        user_is(ANN),
        needs="accounts",
    ),
    conversation(
        "fact_39_a_new_token",
        connected(),
        signed_up(),
        call("m", "getNewToken"),
        answered("m", Has({"token": Capture("new token", TOKEN), "tokenExpires": {"$date": ANYTHING}})),
        call("n", "removeOtherTokens"),
        unanswered("n"),
        connected("other"),
        call("in1", "login", {"resume": Var("ann's token")}, by="other"),
        failed("in1", LOGGED_OUT, by="other"),
        call("in2", "login", {"resume": Var("new token")}, by="other"),
        answered("in2", Has({"id": Var("ann's id")}), by="other"),
        needs="accounts",
    ),
    conversation(
        "fact_39_a_name_that_is_taken",
        connected("other"),
        signed_up(by="other"),
        connected(),
        call("m1", "createUser", {"username": ANN, "password": digest("secret")}),
        failed("m1", Has({"error": 403})),
        call("m2", "createUser", {"username": Var("ANN"), "password": digest("secret")}),
        failed("m2", Has({"error": 403})),
        user_is(None),
        needs="accounts",
    ),
    fails(
        "an_account_needs_a_name",
        "createUser",
        {"password": digest("x")},
        error=meteor_error(400, "Need to set a username or email"),
    ),
    fails(
        "change_of_password_of_nobody", "changePassword", digest("a"), digest("b"), error=MUST_BE_LOGGED_IN
    ),
    fails("a_new_token_of_nobody", "getNewToken", error=meteor_error("You are not logged in.")),
    fails(
        "a_token_that_does_not_exist",
        "resetPassword",
        "x" * 43,
        digest("b"),
        error=meteor_error(403, "Token expired"),
    ),
]
