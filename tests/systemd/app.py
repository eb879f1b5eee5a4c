"""A workload for the private machine: HTTP, tells its name; `/slow` answers one line every tenth of a second.

`/stream` does so until the caller leaves.

app.py NAME ADDRESS PORT
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_LINES = 20
FOR_EVER = 1 << 30
SLOW_SECONDS = 0.1  # between two lines


class App(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """Answer with the name, slowly if asked to."""
        lines = {"/slow": SLOW_LINES, "/stream": FOR_EVER}.get(self.path, 1)
        self.send_response(200)
        self.end_headers()
        for number in range(lines):
            if number:
                time.sleep(SLOW_SECONDS)
            self.wfile.write(f"hello from {sys.argv[1]}\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Has room for the callers who have waited for the end of a restart."""

    request_queue_size = 1024


if __name__ == "__main__":
    Server((sys.argv[2], int(sys.argv[3])), App).serve_forever()
