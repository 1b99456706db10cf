"""The page that loads a program, and the configuration that the program reads first.

Meteor's own are packages/boilerplate-generator and packages/webapp (``__meteor_runtime_config__``); what a
client needs of them is here, for pages of today and of before Meteor 1.3.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from django.utils.html import escape

from trigger_ddp.meteor.browsers import LEGACY, MODERN
from trigger_ddp.meteor.bundle import Bundle, Link, Program, Versions

CORDOVA = "web.cordova"

#: Where the configuration is fetched when scripts are not to stand in the page.
CONFIG_PATH = "/meteor_runtime_config.js"

_CSS_PLACE = re.compile(r"<meteor-bundled-css[^<>]*>")

_DEVICE_META = (
    ("name", "format-detection", "telephone=no"),
    (
        "name",
        "viewport",
        "user-scalable=no, initial-scale=1, maximum-scale=1, minimum-scale=1, width=device-width,"
        " height=device-height, viewport-fit=cover",
    ),
    ("name", "msapplication-tap-highlight", "no"),
    (
        "http-equiv",
        "Content-Security-Policy",
        "default-src * android-webview-video-poster: gap: data: blob: ws: wss:"
        " 'unsafe-inline' 'unsafe-eval';",
    ),
)

#: An Android emulator's localhost is the emulator; the machine around it has this address.
_EMULATOR = """
    if (/Android/i.test(navigator.userAgent) && !__meteor_runtime_config__.httpProxyPort)
      for (const name of ["ROOT_URL", "DDP_DEFAULT_CONNECTION_URL"])
        __meteor_runtime_config__[name] =
          (__meteor_runtime_config__[name] || "").replace(/localhost/i, "10.0.2.2");
  """


def runtime_config(
    bundle: Bundle,
    arch: str,
    *,
    public_settings: Mapping[str, Any],
    root_url: str,
    prefix: str,
    app_id: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a program finds in ``__meteor_runtime_config__``.

    Args:
        bundle: which bundle.
        arch: of the program that is to read it.
        public_settings: ``Meteor.settings.public``.
        root_url: where the application is, ``https://example.org/app/``.
        prefix: the path of that, ``/app`` or "".
        app_id: Meteor's id of the application.
        more: the application's own, which replaces what is here.
    """
    versions = {name: program.versions(public_settings) for name, program in bundle.programs.items()}
    config: dict[str, Any] = {
        "meteorRelease": bundle.release,
        "gitCommitHash": bundle.git_commit_hash or None,
        "meteorEnv": {
            "NODE_ENV": os.environ.get("NODE_ENV", "production"),
            "TEST_METADATA": os.environ.get("TEST_METADATA", "{}"),
        },
        "PUBLIC_SETTINGS": dict(public_settings),
        "ROOT_URL": root_url,
        "ROOT_URL_PATH_PREFIX": prefix,
        "DDP_DEFAULT_CONNECTION_URL": os.environ.get("DDP_DEFAULT_CONNECTION_URL"),
        "DISABLE_SOCKJS": os.environ.get("DISABLE_SOCKJS"),
        "autoupdate": {"versions": {name: told(version) for name, version in versions.items()}},
        "appId": app_id,
        "accountsConfigCalled": True,
        "isModern": {MODERN: True, LEGACY: False}.get(arch),
    }
    if bundle.has_old_autoupdate:
        config |= old_versions(versions)
    if arch == CORDOVA:
        root_url = os.environ.get("MOBILE_ROOT_URL") or root_url
        ddp_url = os.environ.get("MOBILE_DDP_URL") or root_url
        config |= {"ROOT_URL": root_url, "DDP_DEFAULT_CONNECTION_URL": ddp_url}
    return {name: value for name, value in config.items() if value is not None} | dict(more or {})


def told(versions: Versions) -> dict[str, str]:
    """A program's versions as clients know them."""
    return {
        "version": versions.version,
        "versionRefreshable": versions.refreshable,
        "versionNonRefreshable": versions.non_refreshable,
        "versionReplaceable": versions.replaceable,
    }


def old_versions(versions: Mapping[str, Versions]) -> dict[str, str]:
    """The versions as clients before Meteor 1.8 know them."""
    names = {}
    if (browser := versions.get(MODERN) or versions.get(LEGACY)) is not None:
        names = {
            "autoupdateVersion": browser.non_refreshable,
            "autoupdateVersionRefreshable": browser.refreshable,
        }
    device = versions.get(CORDOVA)
    return {**names, "autoupdateVersionCordova": device.version if device else "none"}


def config_script(config: Mapping[str, Any]) -> str:
    """The configuration as a script of its own."""
    return f"__meteor_runtime_config__ = {json.dumps(config, separators=(',', ':'))};"


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page that loads a program.

    Args:
        bundle, program: what is loaded.
        config: of `runtime_config`.
        prefix: what stands before paths of this site.
        files_prefix: what stands before the paths of styles and scripts; another site, perhaps.
        inline: the configuration may stand in the page, as a script.
        sri_mode: "anonymous" or "use-credentials": browsers compare styles and scripts with their hashes.
        html_attributes: of the page's html element.
    """

    bundle: Bundle
    program: Program
    config: Mapping[str, Any]
    prefix: str = ""
    files_prefix: str = ""
    inline: bool = True
    sri_mode: str | None = None
    html_attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def html(self) -> str:
        """The page."""
        program, on_device = self.program, self.program.arch == CORDOVA
        css = "\n".join(
            f'  <link rel="stylesheet" type="text/css" class="__meteor-css__" href="{self._url(link)}"'
            f"{self._integrity(link)}>"
            for link in program.css
        )
        scripts = "\n".join(
            f'  <script type="text/javascript" src="{self._url(link)}"{self._integrity(link)}></script>'
            for link in program.scripts
        )
        before, place, after = _split(program.head)
        head = f"{before}\n{css}\n{after}" if place else f"{css}\n{program.head}"
        if on_device:
            device = f'{_device_meta()}\n{self._config()}\n  <script src="/cordova.js"></script>'
            top, bottom = f"{device}\n{head}\n{scripts}", ""
        elif self.bundle.loads_in_head:
            top, bottom = f"{css}\n{self._config()}\n{scripts}\n{program.head}", ""
        else:
            top, bottom = head, f"{self._config()}\n{scripts}\n"
        attributes = "".join(f' {name}="{escape(value)}"' for name, value in self.html_attributes.items())
        return (
            f"<!DOCTYPE html>\n<html{attributes}>\n<head>\n{top}\n</head>\n"
            f"<body>\n{program.body}\n{bottom}</body>\n</html>"
        )

    def _url(self, link: Link) -> str:
        # A device has the files itself.
        return escape(link.url if self.program.arch == CORDOVA else f"{self.files_prefix}{link.url}")

    def _integrity(self, link: Link) -> str:
        if not (self.sri_mode and link.sri) or self.program.arch == CORDOVA:
            return ""
        return f' integrity="sha512-{escape(link.sri)}" crossorigin="{escape(self.sri_mode)}"'

    def _config(self) -> str:
        on_device = self.program.arch == CORDOVA
        if not self.inline and not on_device:
            script = config_script(self.config).encode()
            digest = hashlib.sha1(script, usedforsecurity=False).hexdigest()
            src = f"{escape(self.prefix)}{CONFIG_PATH}?hash={digest}"
            return f'  <script type="text/javascript" src="{src}"></script>'
        # Encoded so that nothing in it can end the script, or be taken for markup.
        encoded = quote(json.dumps(self.config, separators=(",", ":")), safe="!'()*")
        more = _EMULATOR if on_device else ""
        return (
            '  <script type="text/javascript">__meteor_runtime_config__ = '
            f'JSON.parse(decodeURIComponent("{encoded}"));{more}</script>'
        )


def _split(head: str) -> tuple[str, bool, str]:
    """The application's head before and after the place it has for styles, and whether it has one."""
    found = _CSS_PLACE.search(head)
    return (head[: found.start()], True, head[found.end() :]) if found else (head, False, "")


def _device_meta() -> str:
    lines = [f'  <meta {kind}="{name}" content="{content}">' for kind, name, content in _DEVICE_META]
    return "\n".join(['  <meta charset="utf-8">', *lines])
