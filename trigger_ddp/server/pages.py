"""Pages that never change while the server runs."""

from __future__ import annotations

from collections.abc import Mapping

from trigger_ddp.server.exchange import Handler, Request, Response, not_allowed


def fixed(pages: Mapping[str, Response]) -> Handler:
    """A handler that answers GET and HEAD of these paths, each with its response; others are not its own."""

    async def answer(request: Request) -> Response | None:
        response = pages.get(request.raw_path)
        if response is not None and request.method not in ("GET", "HEAD"):
            return not_allowed("GET", "HEAD")
        return response

    return answer
