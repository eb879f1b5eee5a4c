"""The demo as a person runs it: every step holds, any process may be lost, and no key leaks."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.printed import as_printed, without_figures

ROOT = Path(__file__).resolve().parents[3]
STEPS = 7

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A demo that was told with --keep, and is still running."""

    process: subprocess.Popen[str]
    printed: str
    directory: Path

    @property
    def node(self) -> str:
        """The first three numbers of the demo's own loopback network."""
        found = re.search(r"curl http://(127\.0\.\d+)\.11:", self.printed)
        assert found
        return found[1]

    def processes(self) -> dict[str, tuple[int, list[str]]]:
        """Name -> pid and the command which the demo says starts it again."""
        rows = re.findall(r"^  (.+) \(pid (\d+), log .+\)\n    (.+)$", self.printed, re.MULTILINE)
        return {name: (int(pid), shlex.split(command)) for name, pid, command in rows}


ENVIRON = {"PATH": os.defpath, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "demo", "--check", "--keep"],
        cwd=ROOT, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if re.match(r"    .+ run -sidecar-for web ", line):  # the last it prints before it waits
            break
    logs = re.search(r"log (\S+)/[^/]+\.log\)", printed)
    assert logs, printed
    yield Kept(process=process, printed=printed, directory=Path(logs[1]))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def _get(url: str, seconds: float = 3) -> str:
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return str(answer.read().decode())


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline, last = time.monotonic() + seconds, "it never held"
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except (OSError, urllib.error.URLError) as error:
            last = repr(error)
        time.sleep(0.1)  # the processes are real, and so is the time they take
    pytest.fail(last)


def test_every_step_holds(kept: Kept) -> None:
    assert len(re.findall(r"^\d/\d  .+ held +\d", kept.printed, re.MULTILINE)) == STEPS, kept.printed
    assert "FAILED" not in kept.printed
    assert re.search(r"0 failed of \d{3,} requests", kept.printed)


def test_it_prints_to_a_pipe_what_the_file_says(kept: Kept) -> None:
    story = kept.printed.partition("\nThe mesh runs until Ctrl-C.")[0]
    assert without_figures(story) == as_printed("pipe")


def test_what_it_suggests_works(kept: Kept) -> None:
    for action, said in (("status", r"\nroots +2 trusted, active [0-9a-f:]{59}\n"), ("rotate", "generation")):
        found = re.search(rf"^  sidecar {action} (-admin-bind \S+)", kept.printed, re.MULTILINE)
        assert found, kept.printed
        command = [sys.executable, "-m", "agent", action, *found[1].split()]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert re.search(said, ended.stdout), ended.stdout
    found = re.search(r"^  curl -X PUT (http\S+)", kept.printed, re.MULTILINE)
    assert found, kept.printed
    rotate = urllib.request.Request(found[1], method="PUT")
    with urllib.request.urlopen(rotate, timeout=10) as answer:
        assert list(json.load(answer)) == ["ActiveRootID"]


def test_no_private_key_leaves_its_place(kept: Kept) -> None:
    """Leaf keys are in no file, log or admin answer; a CA key only in its own datacenter's store."""
    leaves = {
        (dc, service): json.loads(_get(f"http://{kept.node}.{host}:8500/v1/agent/connect/ca/leaf/{service}"))
        for dc, host, service in (("dc1", 11, "web"), ("dc1", 11, "db"), ("dc2", 21, "db"))
    }
    secrets = [form for leaf in leaves.values() for form in _forms(leaf["PrivateKeyPEM"])]
    seen = {path: path.read_bytes() for path in kept.directory.rglob("*") if path.is_file()}
    assert any(path.suffix == ".log" and len(text) > 100 for path, text in seen.items())
    for port, host in ((19000, 11), (19001, 11), (19001, 21)):
        for path in ("/status", "/metrics", "/ready", "/live"):
            seen[Path(f"admin {host}:{port}{path}")] = _get(
                f"http://{kept.node}.{host}:{port}{path}"
            ).encode()
    seen[Path("what the demo printed")] = kept.printed.encode()
    for place, text in seen.items():
        assert not [1 for secret in secrets if secret in text], f"a leaf's private key is in {place}"
        if b"PRIVATE KEY" in text:
            assert place.parent.name in ("dc1", "dc2"), f"a private key is in {place}"


def _forms(pem: str) -> list[bytes]:
    """A key as it could be written down: PEM lines, the scalar raw, in hex and in base64."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    body = [line.encode() for line in pem.splitlines() if "-----" not in line]
    number = str(key.private_numbers().private_value).encode()
    return [*body[:2], scalar, scalar.hex().encode(), base64.b64encode(scalar)[:40], number]


@pytest.fixture(scope="module")
def restarted() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in reversed(processes):
        process.terminate()
        process.wait(15)


@pytest.mark.parametrize(
    "name",
    [
        "dc1",
        "dc2",
        "db app in dc1",
        "db app in dc2",
        "db sidecar in dc1",
        "db sidecar in dc2",
        "web sidecar in dc1",
    ],
)
def test_any_process_may_be_killed_and_started_again(
    kept: Kept, restarted: list[subprocess.Popen[bytes]], name: str
) -> None:
    pid, command = kept.processes()[name]
    os.kill(pid, signal.SIGKILL)
    with (kept.directory / "again.log").open("ab") as log:
        restarted.append(subprocess.Popen(command, cwd=ROOT, env=ENVIRON, stdout=log, stderr=log))
    for port, text in ((9191, "db in dc1\n"), (9192, "db in dc2\n"), (9193, "db in dc1\n")):
        _until(partial(_answers, f"http://{kept.node}.11:{port}/", text))
    _until(partial(_intends, kept, "deny"))  # dc1 itself may only just have been started
    _until(partial(_refuses, f"http://{kept.node}.11:9192/"))
    _until(partial(_intends, kept, "allow"))
    _until(partial(_answers, f"http://{kept.node}.11:9192/", "db in dc2\n"))
    assert restarted[-1].poll() is None


def _intends(kept: Kept, action: str) -> bool:
    url = f"http://{kept.node}.11:8500/v1/connect/intentions/exact?source=web&destination=db"
    body = json.dumps({"Action": action}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=5) as answer:
        return bool(answer.status == 200)


def _answers(url: str, text: str) -> bool:
    return _get(url) == text


def _refuses(url: str) -> bool:
    try:
        _get(url)
    except (OSError, urllib.error.URLError):
        return True
    return False
