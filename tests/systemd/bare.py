"""A bare Debian 12 of its own, booted in namespaces: no Python, no file of this machine.

with boot_bare(make_root(directory)) as machine: …
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from tests.systemd.boot import Machine, boot_by

INIT = Path(__file__).with_name("bare.sh")
RELEASE = "bookworm"
INCLUDED = "systemd-sysv,dbus"
MAKE_SECONDS = 240.0


def make_root(directory: Path) -> str | None:
    """Make the files of a bare Debian in this directory; return why not, None if it is done."""
    if shutil.which("mmdebstrap") is None:
        return "a bare Debian needs mmdebstrap"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}", RELEASE, str(directory)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAKE_SECONDS)
    return f"mmdebstrap could not make a Debian: {made.stderr[-400:]}" if made.returncode else None


def boot_bare(root: Path) -> AbstractContextManager[Machine]:
    """Boot the Debian of this directory, which stays as it is."""
    return boot_by(INIT, {"ROOT": str(root)})
