"""Which browsers get the modern program."""

from __future__ import annotations

import pytest

from trigger_ddp.meteor.browsers import choose, is_modern

KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("agent", "modern"),
    [
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/126.0.0.0 Safari/537.36", True),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/126.0.0.0 Safari/537.36", True),
        (f"Mozilla/5.0 (Windows NT 10.0) {KIT} Chrome/48.0.2564.116 Safari/537.36", False),
        (f"Mozilla/5.0 (Windows NT 10.0) {KIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0", True),
        (f"Mozilla/5.0 (Windows NT 10.0) {KIT} Chrome/51.0.2704.79 Safari/537.36 Edge/13.10586", False),
        (f"Mozilla/5.0 (Windows NT 10.0) {KIT} Chrome/126.0.0.0 Safari/537.36 OPR/112.0.0.0", True),
        (f"Mozilla/5.0 (Windows NT 10.0) {KIT} Chrome/50.0.0.0 Safari/537.36 OPR/37.0.0.0", False),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/120 Electron/1.5.1 Safari/537.36", False),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/120 Electron/31.0.1 Safari/537.36", True),
        (f"Mozilla/5.0 (Linux; Android 13) {KIT} SamsungBrowser/24.0 Chrome/117.0.0.0 Mobile Safari", False),
        (f"Mozilla/5.0 (Linux; Android 13) {KIT} Chrome/126.0.0.0 Mobile Safari/537.36", True),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", True),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:44.0) Gecko/20100101 Firefox/44.0", False),
        ("Mozilla/5.0 (Macintosh) AppleWebKit/605 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", True),
        ("Mozilla/5.0 (Macintosh) AppleWebKit/601 (KHTML, like Gecko) Version/9.1 Safari/601.5", False),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
            " Version/17.5 Mobile/15E148 Safari/604.1",
            True,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 10_2 like Mac OS X) AppleWebKit/602 (KHTML, like Gecko)"
            " Version/10.0 Mobile/14C92 Safari/602.1",
            False,
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", True),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/126", False),
        ("Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; Trident/5.0)", False),
        ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko", False),
        ("curl/8.5.0", False),
        ("", False),
        ("Chrome/" + "9" * 400, True),
        ("Version/" * 60, False),
    ],
)
def test_is_modern(agent: str, modern: bool) -> None:
    assert is_modern(agent) is modern


def test_choose() -> None:
    chrome, both = "Chrome/126.0", ("web.browser", "web.browser.legacy")
    assert choose(chrome, both) == "web.browser"
    assert choose("", both) == "web.browser.legacy"
    assert choose("", ("web.browser",)) == "web.browser"
    assert choose(chrome, ("web.browser.legacy",)) == "web.browser.legacy"
    assert choose(chrome, ("web.cordova",)) == "web.browser"
