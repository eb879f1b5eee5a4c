"""A worker begins with an end of a socket pair and little else, and is gone when it is said to be."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
import trio

from agent.workers import process as worker_process
from agent.workers.process import reap, spawner
from tests.support.agent_process import environment

# Tells over its end what it was given, then waits for the end of the other.
SHOWS = """
import json, os, socket, sys
end = socket.socket(fileno=int(sys.argv[-1]))
told = {"argv": sys.argv, "environ": dict(os.environ), "cwd": os.getcwd()}
end.sendall(json.dumps(told).encode() + b"\\n")
end.recv(1)
"""


async def begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> tuple[trio.Process, socket.socket]:
    fake = tmp_path / "agent"
    fake.mkdir(exist_ok=True)
    (fake / "__init__.py").write_text("")
    (fake / "__main__.py").write_text(program)
    monkeypatch.setattr(worker_process, "_ROOT", tmp_path)
    ours, theirs = socket.socketpair()
    given = environment(
        {"CONSUL_HTTP_TOKEN": "s3cret", "SIDECAR_WORKERS": "2", "NOTIFY_SOCKET": "/x", "KEPT": "yes"}
    )
    with theirs:
        process = await spawner(given)(theirs)
    assert isinstance(process, trio.Process)
    return process, ours


async def test_it_is_given_a_descriptor_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process, end = await begun(monkeypatch, tmp_path, SHOWS)
    with end:
        text = b""
        while not text.endswith(b"\n"):
            text += await trio.to_thread.run_sync(end.recv, 65536)
    told = json.loads(text)
    assert told["environ"]["KEPT"] == "yes"
    assert not [name for name in told["environ"] if name.startswith(("CONSUL", "SIDECAR", "NOTIFY"))]
    assert told["cwd"] == str(tmp_path)
    assert told["argv"][1] == "worker"
    with trio.fail_after(20):
        assert await reap(process, patient=True) == 0


@pytest.mark.parametrize("patient", [True, False])
async def test_one_that_does_not_end_is_killed(
    patient: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process, end = await begun(monkeypatch, tmp_path, "import time; time.sleep(60)")
    with end, trio.fail_after(20):
        assert await reap(process, patient=patient) == -signal.SIGKILL
