"""The workload of the demo: a plain HTTP server that knows nothing of certificates.

`GET /served` answers how many other requests it has served, so that the story can prove that a refused caller
never got this far; every other path is answered with one line that names the instance.
"""

from __future__ import annotations

import argparse
import http.server
import signal
import sys


class Origin(http.server.ThreadingHTTPServer):
    """One workload instance: its name, its datacenter, and the requests it has served."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], name: str, datacenter: str) -> None:
        super().__init__(address, _Handler)
        self.name = name
        self.datacenter = datacenter
        self.served = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def do_GET(self) -> None:
        if self.path == "/served":
            self._answer(f"{self.server.served}\n")
            return
        self.server.served += 1
        self._answer(f"{self.server.name} in {self.server.datacenter}\n")

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent: the sidecars tell the story."""


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="origin", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--datacenter", required=True)
    parser.add_argument("--address", required=True, help="IPv4 address to bind")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Origin((args.address, args.port), args.name, args.datacenter).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
