"""The encrypted state on disk: replaced whole, noise without its secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.base.exits import Exit, ExitCode
from agent.handover.sealed_file import SealedFile, sealed_file
from agent.handover.state import StateReason, StateUnusable

SECRET = os.urandom(32).hex().encode()


def test_it_is_read_back_and_nothing_in_the_directory_has_it_in_the_clear(tmp_path: Path) -> None:
    file = SealedFile(tmp_path, SECRET)
    assert file.read() is None
    for text in (b"an older PRIVATE KEY", b"a PRIVATE KEY"):
        file.write(text, "web", "t.consul")
    assert file.read() == b"a PRIVATE KEY"
    (only,) = tmp_path.iterdir()
    assert stat.S_IMODE(only.stat().st_mode) == 0o600
    assert b"PRIVATE" not in only.read_bytes()
    assert SECRET.decode() not in repr(file)


@pytest.mark.parametrize("change", ["secret", "header", "cut", "other", "unreadable"])
def test_what_does_not_open_is_unreadable_by_name(tmp_path: Path, change: str) -> None:
    file = SealedFile(tmp_path, SECRET)
    file.write(b"a PRIVATE KEY", "web", "t.consul")
    content = file.path.read_bytes()
    match change:
        case "secret":
            file = SealedFile(tmp_path, os.urandom(32))
        case "header":
            file.path.write_bytes(content.replace(b"service=web", b"service=bew"))
        case "cut":
            file.path.write_bytes(content[:-1])
        case "other":
            file.path.write_bytes(b"hello\n")
        case _:
            file.path.unlink()
            file.path.mkdir()
    with pytest.raises(StateUnusable) as caught:
        file.read()
    assert caught.value.reason is StateReason.UNREADABLE


def test_there_is_a_file_only_with_a_directory_and_a_secret(tmp_path: Path) -> None:
    secret, none = tmp_path / "secret", tmp_path / "none"
    secret.write_bytes(SECRET)
    none.write_text("\n")
    assert sealed_file(None, secret) is None
    assert sealed_file(tmp_path, None) is None
    assert sealed_file(tmp_path, none) is None
    assert sealed_file(tmp_path, secret) == SealedFile(tmp_path, SECRET)


@pytest.mark.parametrize("content", [b"too short", None])
def test_a_secret_that_is_short_or_unreadable_is_a_mistake(tmp_path: Path, content: bytes | None) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(Exit, match="state_key_file") as caught:
        sealed_file(tmp_path, secret)
    assert caught.value.code is ExitCode.CONFIGURATION
