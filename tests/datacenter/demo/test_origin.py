"""The demo's workload counts what reaches it, and nothing else."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator

import pytest

from datacenter.demo.origin import Origin


@pytest.fixture
def origin() -> Iterator[str]:
    server = Origin(("127.0.0.1", 0), "db", "dc2")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_it_says_who_answers(origin: str) -> None:
    assert _get(f"{origin}/") == "db in dc2\n"


def test_it_counts_every_request_but_the_question_itself(origin: str) -> None:
    for _ in range(3):
        _get(f"{origin}/anything")
    assert _get(f"{origin}/served") == "3\n"
    assert _get(f"{origin}/served") == "3\n"
