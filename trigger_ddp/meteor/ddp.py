"""Hot code push: clients are told when another version of their bundle is on disk."""

from __future__ import annotations

import itertools
import logging

from trigger_ddp.api import API, Handle, this
from trigger_ddp.meteor.autoupdate import ClientVersions, Documents, read
from trigger_ddp.meteor.bundle import BundleError
from trigger_ddp.meteor.discovery import Site, sites

logger = logging.getLogger(__name__)

#: How often each server process looks whether a bundle has changed.
LOOK_SECONDS = 1.0


class _Lookout:
    """What this process knows of bundles, and when it has to look again."""

    def __init__(self) -> None:
        self.versions = ClientVersions()
        self.sites: list[Site] | None = None
        self._looks = itertools.count(1)
        self._newest = 0
        self._complaint = ""

    def _look(self, anew: bool) -> dict[str | None, Documents]:
        """The documents as they are now. For a worker thread, since it reads files."""
        if self.sites is None:
            self.sites = sites()
        return read(self.sites, anew=anew)

    async def refresh(self, *, anew: bool = False) -> None:
        """Look, and tell who has to know. A bundle that can't be read is logged, once.

        Args:
            anew: read the bundles, even where their files look as they did.
        """
        if self.sites == []:
            return
        number = next(self._looks)
        try:
            found = await this.in_thread(self._look, anew)
        except BundleError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("clients can't be told of new versions: %s", error)
            return
        if number < self._newest:
            return  # a look that began later was faster; to go back would make clients reload
        self._newest = number
        if self.versions.replace(found) and self.versions.watched:
            logger.info("clients are told of another version of their bundle")


_lookout = _Lookout()


@API.publish("meteor_autoupdate_clientVersions")
async def client_versions(handle: Handle, app_id: str | None = None) -> None:
    """The versions of the bundle that a client is of; of nothing, if it is of none of this project's."""
    # A page may have been loaded just after its bundle changed: what it is told must not be older.
    await _lookout.refresh()
    _lookout.versions.watch(handle, app_id)
    handle.ready()


@API.on_reload
async def read_anew() -> None:
    """Called at SIGHUP, as in Meteor."""
    await _lookout.refresh(anew=True)


async def look_for_new_versions() -> None:
    """Called every `LOOK_SECONDS` in each server process."""
    await _lookout.refresh()


API.every(LOOK_SECONDS, look_for_new_versions)
