"""No key text comes into the repository with a recording, nor any other way."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.certs.authority import key_pem, new_key
from tests.recorded import RECORDINGS, body

ROOT = Path(__file__).parent.parent
# A head of PEM, then base64: with real line ends or with the two characters of a JSON string.
KEY_TEXT = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s|\\n|\\r)*[A-Za-z0-9+/=]{32}")


@pytest.mark.parametrize("newline", ["\n", "\\n", "\r\n"])
def test_pattern_finds_key_text(newline: str) -> None:
    assert KEY_TEXT.search(key_pem(new_key()).replace("\n", newline).encode())


def test_recordings_hold_no_key_text() -> None:
    recordings = list(RECORDINGS.iterdir())
    assert recordings
    guilty = [path.name for path in recordings if KEY_TEXT.search(path.read_bytes())]
    assert guilty == []


def test_no_tracked_file_holds_key_text() -> None:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.split(b"\0")
    files = [ROOT / name.decode() for name in names if name]
    if not files:
        pytest.skip("not a git checkout")
    assert [path for path in files if path.is_file() and KEY_TEXT.search(path.read_bytes())] == []


def test_recorded_leaves_have_blank_keys() -> None:
    key = body("rotation-leaf1-1")["PrivateKeyPEM"]
    assert key == "-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"
