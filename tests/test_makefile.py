"""What `make` runs on a user's machine, read without running it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEBIANS = Path("/usr/bin/python3")
NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 11))"


def planned(target: str) -> str:
    """The commands of a target, as if nothing were made yet."""
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "MAKEFLAGS"}}  # noqa: TID251 - what make is to do without
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return told.stdout


def test_the_environment_is_made_by_debians_own_python_where_that_is_new_enough() -> None:
    there = DEBIANS.exists() and not subprocess.run([DEBIANS, "-c", NEW_ENOUGH], check=False).returncode
    assert f"{DEBIANS if there else 'python3'} -m venv .venv\n" in planned(".venv/.ready")
