"""The documents by which clients learn of a new version, and who is to be told of them.

Meteor's are of packages/autoupdate: a document for each program, with its versions and its styles. A client
whose ``versionNonRefreshable`` is another reloads; if it is ``versionRefreshable`` that is another, it takes
the styles that the document names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trigger_ddp.api import Handle
from trigger_ddp.meteor.boilerplate import CORDOVA, old_versions, told
from trigger_ddp.meteor.browsers import LEGACY, MODERN
from trigger_ddp.meteor.bundle import Bundle
from trigger_ddp.meteor.discovery import Site

COLLECTION = "meteor_autoupdate_clientVersions"

Documents = Mapping[str, Mapping[str, Any]]

#: What clients from before Meteor 1.8 look for; this makes them reload, and so become newer ones.
_OUTDATED: Documents = {
    name: {"version": "outdated"} for name in ("version", "version-refreshable", "version-cordova")
}


def documents(site: Site, bundle: Bundle) -> Documents:
    """The fields of a bundle's documents, by their ids."""
    public = site.view.public_settings
    versions = {arch: program.versions(public) for arch, program in bundle.programs.items()}
    found: dict[str, Mapping[str, Any]] = {}
    for arch, program in bundle.programs.items():
        # A device has its styles itself; browsers fetch them where the page did.
        prefix = "" if arch == CORDOVA else site.files_prefix
        assets = [{"url": f"{prefix}{link.url}"} for link in program.css]
        found[arch] = {**told(versions[arch]), "assets": assets}
        if program.hmr_version is not None:
            found[arch] = {**found[arch], "versionHmr": program.hmr_version}
    if not bundle.has_old_autoupdate:
        return {**found, **_OUTDATED}
    old = old_versions(versions)
    browser = bundle.programs.get(MODERN) or bundle.programs.get(LEGACY)
    if browser is not None:
        # These clients put the path of the application before a URL themselves.
        styles = [{"url": link.url} for link in browser.css]
        found["version"] = {"version": old["autoupdateVersion"]}
        found["version-refreshable"] = {
            "version": old["autoupdateVersionRefreshable"], "assets": {"allCss": styles},
        }  # fmt: skip
    found["version-cordova"] = {"version": old["autoupdateVersionCordova"], "refreshable": False}
    return found


class ClientVersions:
    """The documents of each application's bundle, and the handles that are told of them.

    All methods but `read` belong to the server's event loop.
    """

    def __init__(self) -> None:
        self._documents: dict[str | None, Documents] = {}
        self._handles: dict[Handle, str | None] = {}

    @property
    def watched(self) -> bool:
        """Whether anybody is told."""
        return bool(self._handles)

    def watch(self, handle: Handle, app_id: str | None) -> None:
        """Tell a handle the documents, now and whenever they change, until its subscription ends."""
        self._handles[handle] = app_id
        handle.on_stop(lambda: self._handles.pop(handle, None))
        for document_id, fields in self._for(app_id).items():
            handle.added(COLLECTION, document_id, fields)

    def replace(self, found: Mapping[str | None, Documents]) -> bool:
        """Take other documents, tell every handle the difference, and return whether there is any."""
        if found == self._documents:
            return False
        before = {app_id: self._for(app_id) for app_id in set(self._handles.values())}
        self._documents = dict(found)
        for handle, app_id in list(self._handles.items()):
            _tell(handle, before[app_id], self._for(app_id))
        return True

    def _for(self, app_id: str | None) -> Documents:
        """The documents for a client that says this is its application: None where several may be meant.

        Whoever gets those of another's bundle reloads for ever, so nothing is told in doubt.
        """
        fitting = [
            found for known, found in self._documents.items() if not (known and app_id) or known == app_id
        ]
        return fitting[0] if len(fitting) == 1 else {}


def read(sites: Iterable[Site], *, anew: bool = False) -> dict[str | None, Documents]:
    """The documents of the bundles as they are on disk now, by the ids of their applications.

    Several that have the same id, or none, are left out: their clients can't be told apart.

    Args:
        sites: whose bundles.
        anew: read the bundles, even where their files look as they did.

    Raises:
        BundleError: one can't be read, and never could.
    """
    found: dict[str | None, Documents] = {}
    ambiguous = set()
    for site in sites:
        app_id = site.view.app_id or None
        now = documents(site, site.bundle(anew=anew))
        if found.setdefault(app_id, now) != now:
            ambiguous.add(app_id)
    return {app_id: {} if app_id in ambiguous else now for app_id, now in found.items()}


def _tell(handle: Handle, before: Documents, now: Documents) -> None:
    for document_id in before.keys() - now.keys():
        handle.removed(COLLECTION, document_id)
    for document_id, fields in now.items():
        if document_id not in before:
            handle.added(COLLECTION, document_id, fields)
        elif fields != before[document_id]:
            changed = {
                name: value for name, value in fields.items() if before[document_id].get(name) != value
            }
            handle.changed(COLLECTION, document_id, changed, before[document_id].keys() - fields.keys())
