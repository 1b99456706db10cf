"""What says something in the log from every place in which an application's code runs."""

from __future__ import annotations

import logging
from typing import Any

from tests.zoo.models import Keeper
from trigger_ddp.api import API, APIMixin, Collection, Handle, Publication, api_endpoint, this

logger = logging.getLogger("tests.noting")


class NotedKeepers(Collection):
    model = Keeper
    name = "noted-keepers"

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        logger.warning("serialized")
        return super().serialize(obj, meteor_ids)


class NotedKeepersPublication(Publication):
    name = "noted"

    def get_queries(self) -> list[Any]:
        logger.warning("asked")
        return [(Keeper.objects.all(), "noted-keepers")]


@API.publish("noted function")
async def noted_function(handle: Handle) -> None:
    import trio  # not needed where the project only declares

    logger.warning("published")
    handle.ready()
    try:
        await trio.sleep_forever()
    finally:
        logger.warning("unpublished")


class Noting(APIMixin):
    api_path_prefix = "notes/"

    @api_endpoint
    def write(self, text: str) -> None:
        logger.warning("%s", text)
        logging.getLogger("django.db").warning("Django: %s", text)

    @api_endpoint
    async def write_async(self, text: str) -> None:
        logger.warning("%s", text, extra={"user": "another"})

    @api_endpoint
    def login(self, user_id: int) -> None:
        logger.warning("before")
        this.set_user_id(user_id)
        logger.warning("after")


API.register([NotedKeepers, NotedKeepersPublication, Noting])
API.on_reload(lambda: logger.warning("reloaded"))
