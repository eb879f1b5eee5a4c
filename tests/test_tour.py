"""`docs/tour.md`, followed by the letter: its commands in one shell, and what they print.

A network namespace of its own gives the tour its fixed ports. The block marked `sh install` is left out: the
package that is tried is this checkout, and `make release` proves the installation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.md"
BLOCK = re.compile(r"^```(?P<kind>[a-z ]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
END_OF_BLOCK = "-- end of block --"
SECONDS = 100

pytestmark = [pytest.mark.root, pytest.mark.slow]


def blocks() -> list[tuple[str, str]]:
    """Return each block of commands with what the page says it prints; empty where the page is silent."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.finditer(TOUR.read_text()):
        match block["kind"]:
            case "sh":
                found.append((block["text"], ""))
            case "text":
                found[-1] = (found[-1][0], block["text"])
            case "sh install":
                pass
            case other:
                raise AssertionError(f"a block of an unknown kind in the tour: {other}")
    return found


def fits(expected: str, printed: str) -> bool:
    """Tell whether this is what the page shows; `…` stands for any text, a line of it for any lines."""
    pattern = re.escape(expected).replace(re.escape("…\n"), r"(?:.*\n)*?").replace(re.escape("…"), r".+")
    return re.fullmatch(pattern, printed) is not None


def test_what_fits_the_page_is_told_from_what_does_not() -> None:
    assert fits("a …\n", "a b c\n")
    assert not fits("a …\n", "b c\n")
    assert fits("a\n…\nz\n", "a\nb\nc\nz\n")
    assert not fits("a\n", "a\nb\n")


def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "curl", "openssl"))):
        pytest.skip("the tour needs root for a network namespace, unshare, ip, curl and openssl")
    steps = blocks()
    script = "ip link set lo up\n" + "".join(f"{commands}\necho '{END_OF_BLOCK}'\n" for commands, _ in steps)
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    printed = done.stdout.split(f"{END_OF_BLOCK}\n")
    logs = "".join(f"\n{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(tmp_path.glob("tour/*.log")))
    assert len(printed) == len(steps) + 1, done.stdout + done.stderr + logs
    for (commands, expected), got in zip(steps, printed, strict=False):
        assert not expected or fits(expected, got), f"{commands}\nprinted:\n{got}{done.stderr}{logs}"
    assert done.stderr == ""
