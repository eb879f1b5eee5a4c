"""The kernel holds the rules, where it can; what of them each version of its interface knows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox import landlock
from agent.sandbox.landlock import HANDLED, READ, REFER, TRUNCATE, WRITE, known
from agent.sandbox.rules import SYSTEM, Rules

REMOVE_FILE, MAKE_SOCK = 1 << 5, 1 << 9
# What a process of its own may do after it has been restricted; nothing is taken back in this one.
TRIED = """
import json, socket, sys
from pathlib import Path
from agent.sandbox.landlock import restrict
from agent.sandbox.rules import Rules
system, readable, writable, other = json.loads(sys.argv[1])
version = restrict(Rules(readable=tuple(map(Path, [*system, readable])), writable=(Path(writable),)))
def tried(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return ""
def bind():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(other + "/sock")
print(json.dumps({
    "version": version,
    "read": tried(Path(readable, "file").read_text),
    "write what is read": tried(lambda: Path(readable, "new").write_text("x")),
    "write": tried(lambda: Path(writable, "new").write_text("x")),
    "replace": tried(lambda: Path(writable, "new").replace(Path(writable, "newer"))),
    "read elsewhere": tried(Path(other, "file").read_text),
    "list elsewhere": tried(lambda: list(Path(other).iterdir())),
    "write elsewhere": tried(lambda: Path(other, "new").write_text("x")),
    "a socket elsewhere": tried(bind),
    "null": tried(lambda: Path("/dev/null").write_text("x")),
    "children": __import__("subprocess").run([sys.executable, "-c", "open(%r)" % (other + "/file")],
                capture_output=True).returncode != 0,
}))
"""
needs_kernel = pytest.mark.skipif(not landlock.interface(), reason="this kernel has no Landlock")


@pytest.mark.parametrize(("version", "unknown"), [(1, REFER | TRUNCATE), (2, TRUNCATE), (3, 0), (7, 0)])
def test_an_older_kernel_is_asked_for_what_it_knows(version: int, unknown: int) -> None:
    assert known(HANDLED, version) == HANDLED & ~unknown


def test_sockets_stay_open_and_everything_that_is_allowed_is_handled() -> None:
    assert not HANDLED & (REMOVE_FILE | MAKE_SOCK)
    assert (READ | WRITE) & ~HANDLED == 0


def test_a_kernel_without_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "interface", lambda: 0)
    with pytest.raises(landlock.Unrestricted, match="Landlock cannot be used: "):
        landlock.restrict(Rules(readable=(), writable=()))


@needs_kernel
def test_the_kernel_holds_the_rules_for_the_process_and_its_children(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("readable", "writable", "other")]
    for place in places:
        place.mkdir()
        (place / "file").write_text("text")
    system = [*SYSTEM, sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[3])]
    given = json.dumps([system, *map(str, places)])
    done = subprocess.run([sys.executable, "-c", TRIED, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("version") == landlock.interface()
    refused = {name for name, error in found.items() if error == "PermissionError"}
    assert refused == {"write what is read", "read elsewhere", "list elsewhere", "write elsewhere"}
    assert found["children"] is True
    allowed = ("read", "write", "replace", "a socket elsewhere", "null")
    assert [found[name] for name in allowed] == [""] * len(allowed)


@needs_kernel
def test_the_kernel_takes_sixteen_layers_and_the_next_is_said() -> None:
    script = (
        "from pathlib import Path\n"
        "from agent.sandbox.landlock import Unrestricted, restrict\n"
        "from agent.sandbox.rules import Rules\n"
        "taken = 0\n"
        "try:\n"
        "    while True:\n"
        "        restrict(Rules(readable=(Path('/'),), writable=()))\n"
        "        taken += 1\n"
        "except Unrestricted as error:\n"
        "    print(taken, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "16 system call 446: Argument list too long\n"
