"""Some of the cold boots of `cold.py` beside a real Consul: each serves by itself, and no port refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.federation import consul_binary
from tests.systemd.cold import Case, ColdMachine, cases, cold_machine

pytestmark = [
    pytest.mark.consul,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(consul_binary() is None, reason="no real Consul: CONSUL_BIN, or `consul` on PATH"),
]

TRIED = [
    Case(order="agent first", acl=True),
    Case(order="sidecars first", acl=True, servers_late=3.0),
    Case(order="app first", acl=True, registered_late=10.0),
    Case(order="sidecars first", acl=False, servers_late=3.0),
]


@pytest.fixture(scope="module")
def cold(namespaces: None) -> Iterator[ColdMachine]:
    """A machine on which nothing has been started."""
    with cold_machine() as made:
        yield made


def test_there_are_twenty_cases_with_acls_and_those_tried_are_among_them() -> None:
    assert len(set(cases())) == len(cases()) == 24
    assert sum(case.acl for case in cases()) == 20
    assert set(TRIED) <= set(cases())


@pytest.mark.parametrize("case", TRIED, ids=str)
def test_a_cold_boot_serves_without_a_human_and_the_app_is_never_refused(
    cold: ColdMachine, case: Case
) -> None:
    cold.prepare(case)
    try:
        outcome = cold.boot(case)
    finally:
        cold.end()
    assert outcome.vain == []
    assert outcome.knocks > 10
