"""An app that knocks at a port of its own machine until SIGTERM, and then says how often and what failed.

knocker.py PORT      a knock is a connect that is ended at once; in vain is one that is refused or times out
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from types import FrameType

PAUSE = 0.05  # seconds between two knocks
SECONDS = 5.0  # for one connect
_stopped = False


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Make this knock the last."""
    global _stopped  # noqa: PLW0603 - a signal handler has no other way to be heard
    _stopped = True


def main() -> None:
    """Knock until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    knocks, vain = 0, list[str]()
    while not _stopped:
        knocks += 1
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=SECONDS).close()
        except ConnectionResetError:  # accepted, and ended at once: the upstream has no instance yet
            pass
        except OSError as error:
            vain.append(str(error))
        time.sleep(PAUSE)
    sys.stdout.write(json.dumps({"knocks": knocks, "vain": vain}) + "\n")


if __name__ == "__main__":
    main()
