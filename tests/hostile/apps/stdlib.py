"""The app on Python's http.server, with connections that are kept: `python stdlib.py PORT`."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from tests.hostile.apps.seen import note

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


class Handler(BaseHTTPRequestHandler):
    """Notes the request as a handler reads it."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """200, whatever was asked."""
        path = unquote(self.path.partition("?")[0])
        role, identity = (self.headers.get_all(name, []) for name in ("X-Role", "X-Forwarded-Client-Cert"))
        note(self.command, path, role, identity, self.headers.get("X-Attempt", ""))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    for method in METHODS:
        setattr(Handler, f"do_{method}", Handler.answer)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
