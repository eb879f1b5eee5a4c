"""The agent's process holds one OpenSSL until it needs the other; asked in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

_BEFORE = """
import sys
from agent.process.openssl import defer_the_second
defer_the_second()
import agent.lifecycle, agent.run, hashlib, hmac, ssl, trio
"""


def said(script: str, before: str = _BEFORE) -> list[str]:
    command = [sys.executable, "-c", before + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_whole_agent_loads_one() -> None:
    maps = "print(sum('libcrypto' in line for line in open('/proc/self/maps')), '_ssl' in sys.modules)"
    assert said(maps) == ["0", "False"]


def test_hashes_are_the_same_without_it() -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert said("print(hashlib.sha256(b'abc').hexdigest())") == [digest]


@pytest.mark.parametrize(
    "use",
    [
        "context = ssl.create_default_context(); print(type(context).__name__)",
        "from ssl import SSLContext; print(SSLContext.__name__)",
        "import trio._ssl; print(trio._ssl._stdlib_ssl.SSLContext.__name__)",
    ],
)
def test_the_other_comes_when_it_is_needed(use: str) -> None:
    assert said(use + "; import ssl; print(ssl.SSLError.__module__, '_ssl' in sys.modules)") == [
        "SSLContext", "ssl", "True",
    ]  # fmt: skip


def test_errors_of_a_stand_in_are_those_of_the_module() -> None:
    script = """
early = ssl
late = __import__("importlib").import_module("ssl") if early.SSLError else None
try:
    raise late.SSLCertVerificationError(1, "x")
except early.SSLError:
    print("caught")
"""
    assert said(script) == ["caught"]


def test_what_is_loaded_stays() -> None:
    before = "import ssl; ssl.OP_ALL; before = sys.modules['ssl']; defer_the_second();"
    assert said(before + "print(sys.modules['ssl'] is before)") == ["True"]


_TICKETS = """
import os, socket
from agent.process.openssl import configure_the_first
before = dict(os.environ)
configure_the_first(os.environ)
assert dict(os.environ) == before
from OpenSSL import SSL

from tests.support.socket_pairs import contexts_of
from tests.certs.authority import Issuer
root = Issuer.root()
contexts = contexts_of(root.leaf(), root)
ours, theirs = socket.socketpair()
server, client = SSL.Connection(contexts.server, ours), SSL.Connection(contexts.client, theirs)
server.set_accept_state(), client.set_connect_state()
ours.setblocking(False), theirs.setblocking(False)
for end in (client, server, client, server):
    try:
        end.do_handshake()
    except SSL.WantReadError:
        pass
server.send(b"first")
print(len(theirs.recv(65536, socket.MSG_PEEK)))
"""
_RECORD = 5 + len(b"first") + 1 + 16  # header, text, content type, tag


@pytest.mark.parametrize("own", [False, True])
def test_no_ticket_goes_before_the_first_byte(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the operator has settings for OpenSSL of their own."""
    if own:
        (tmp_path / "openssl.cnf").write_text("")
        monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "openssl.cnf"))
    (size,) = said(_TICKETS, before="")
    assert (int(size) == _RECORD) is not own
