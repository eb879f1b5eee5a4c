"""How the Python apps of the hostile set note what they were asked for: one line of JSON for each request."""

from __future__ import annotations

import json
import os


def note(method: str, path: str, role: list[str], identity: list[str], attempt: str) -> None:
    """Append it to the file that HOSTILE_LOG names, in one write. No body is ever read."""
    line = {"method": method, "path": path, "role": role, "identity": identity, "attempt": attempt}
    path_of_log = os.environ["HOSTILE_LOG"]  # noqa: TID251 - a program of its own
    log = os.open(path_of_log, os.O_WRONLY | os.O_APPEND)
    os.write(log, json.dumps(line).encode() + b"\n")
    os.close(log)
