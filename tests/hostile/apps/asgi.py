"""The app as ASGI sees it: uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.hostile.apps.seen import note


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Note the request as the app is told of it."""
    if scope["type"] != "http":
        return

    def values(wanted: bytes) -> list[str]:
        return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]

    attempt = "".join(values(b"x-attempt"))
    note(scope["method"], scope["path"], values(b"x-role"), values(b"x-forwarded-client-cert"), attempt)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
