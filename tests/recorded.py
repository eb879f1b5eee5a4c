"""Real answers of Consul 1.10.12, from tests/recordings (private key text blanked), as decoded bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


def body(name: str) -> Any:
    """The decoded JSON body of one recording."""
    return json.loads((RECORDINGS / f"{name}.http").read_bytes().split(b"\r\n\r\n", 1)[1])
