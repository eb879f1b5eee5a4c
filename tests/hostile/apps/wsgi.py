"""The app as WSGI sees it: gunicorn, and the standard library's wsgiref (`python wsgi.py PORT`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from tests.hostile.apps.seen import note


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Note the request as the app is told of it."""
    note(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
        [environ[key] for key in ("HTTP_X_ROLE",) if key in environ],
        [environ[key] for key in ("HTTP_X_FORWARDED_CLIENT_CERT",) if key in environ],
        environ.get("HTTP_X_ATTEMPT", ""),
    )
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()
