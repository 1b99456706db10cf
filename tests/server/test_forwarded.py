"""Addresses behind proxies: counted from the right, since what is left of that anybody can write."""

from __future__ import annotations

import pytest

from trigger_ddp.server.forwarded import client_address, scheme


@pytest.mark.parametrize(
    ("header", "count", "expected"),
    [
        (None, 0, "peer"), (None, 1, "peer"), ("1.1.1.1", 0, "peer"), ("1.1.1.1", 1, "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1", 1, "1.1.1.1"), ("6.6.6.6, 1.1.1.1 ,10.0.0.1", 2, "1.1.1.1"),
        ("1.1.1.1", 2, "peer"), ("", 1, "peer"), ("6.6.6.6,", 1, "peer"),
        ("1.1.1.1:5000", 1, "1.1.1.1"), ("[2001:db8::1]:5000", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"), ("\x1b[31m", 1, "peer"), ("1.1.1.1\n", 1, "1.1.1.1"),
        ("1.1.1.\xb2", 1, "peer"),
    ],
)  # fmt: skip
def test_the_address_is_counted_from_the_right(header: str | None, count: int, expected: str) -> None:
    headers = {} if header is None else {"x-forwarded-for": header}
    assert client_address(headers, "peer", count) == expected


@pytest.mark.parametrize(
    ("header", "count", "expected"),
    [
        (None, 1, "http"), ("https", 0, "http"), ("https", 1, "https"), ("HTTPS", 1, "https"),
        ("https, http", 2, "https"), ("https, http", 1, "http"), ("https", 2, "https"), ("gopher", 1, "http"),
        ("", 1, "http"),
    ],
)  # fmt: skip
def test_the_scheme_is_that_of_the_outermost_proxy(header: str | None, count: int, expected: str) -> None:
    headers = {} if header is None else {"x-forwarded-proto": header}
    assert scheme(headers, "http", count) == expected
