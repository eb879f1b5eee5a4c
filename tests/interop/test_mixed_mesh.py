"""Three kinds of proxy call each other, in one datacenter and across two, beside a real Consul.

Ours, Consul's own and an Envoy that Consul configures, each as caller and as callee: eighteen pairs. One
command repeats it: `CONSUL_BIN=… python -m pytest tests/interop/test_mixed_mesh.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from tests.contract.chains import new_key
from tests.contract.federation import consul_binary, consul_version
from tests.interop.mixed import PAIRS, Kind, MixedMesh, Pair, mixed_mesh, until

pytestmark = [
    pytest.mark.consul,
    pytest.mark.envoy,
    pytest.mark.slow,
    pytest.mark.usefixtures("envoy_binary"),
    pytest.mark.skipif(consul_binary() is None, reason="no real Consul: CONSUL_BIN, or `consul` on PATH"),
]

PERMISSIONS = [
    {"Action": "allow", "HTTP": {"PathPrefix": "/public", "Methods": ["GET"]}},
    {"Action": "deny", "HTTP": {"PathPrefix": "/"}},
]
# Consul's own proxy reads no request, and denies where there are permissions.
JUDGES = (Kind.OURS, Kind.ENVOY)
# Consul's own proxy, 1.10.12 and 1.18, goes on admitting an Envoy that it has admitted before, for Envoy
# resumes its session and the verdict is taken at the full handshake only (docs/migrating.md).
OBEYED = [pair for pair in PAIRS if (pair.caller, pair.callee) != (Kind.ENVOY, Kind.BUILT_IN)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedMesh]:
    """The mesh over TCP, once every pair answers."""
    with mixed_mesh(tmp_path_factory.mktemp("mixed"), "tcp") as made:
        for pair in PAIRS:
            until(partial(made.ask, pair), f"an answer of {pair}")
        yield made


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedMesh]:
    """The mesh over HTTP, once every pair answers; then the permissions are written."""
    binary = consul_binary()
    assert binary
    if consul_version(binary) < (1, 18):
        pytest.skip("today's Envoy takes no HTTP listener in the form of this old Consul")
    with mixed_mesh(tmp_path_factory.mktemp("mixed-http"), "http") as made:
        for pair in PAIRS:
            until(partial(made.answers, pair, "/admin", 200), f"an answer of {pair}")
        for kind in Kind:
            made.intend("*", f"db-{kind}", Permissions=PERMISSIONS)
        yield made


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_instance_of_the_datacenter_that_was_asked_for_answers(mesh: MixedMesh, pair: Pair) -> None:
    assert mesh.ask(pair) == f"{pair.callee}-{pair.datacenter} hello"


@pytest.mark.parametrize("caller", Kind)
@pytest.mark.parametrize("callee", Kind)
def test_a_denial_in_the_primary_holds_in_both_datacenters_and_for_no_other_caller(
    mesh: MixedMesh, caller: Kind, callee: Kind
) -> None:
    denied = [pair for pair in OBEYED if (pair.caller, pair.callee) == (caller, callee)]
    others = [pair for pair in PAIRS if pair.callee is callee and pair.caller is not caller]
    mesh.intend(f"web-{caller}", f"db-{callee}", Action="deny")
    try:
        for pair in denied:
            until(partial(mesh.refuses, pair), f"a refusal of {pair}")
        assert all(map(mesh.ask, others))
    finally:
        mesh.intend(f"web-{caller}", f"db-{callee}", Action="allow")
    for pair in denied:
        until(partial(mesh.ask, pair), f"an answer of {pair}")


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.callee in JUDGES], ids=str)
def test_permissions_decide_about_each_request(judged: MixedMesh, pair: Pair) -> None:
    until(partial(judged.answers, pair, "/admin", 403), f"the refusal of a request of {pair}")
    assert judged.get(pair, "/public/page") == 200


@pytest.mark.parametrize("pair", [pair for pair in OBEYED if pair.callee not in JUDGES], ids=str)
def test_a_proxy_that_reads_no_request_admits_none_where_there_are_permissions(
    judged: MixedMesh, pair: Pair
) -> None:
    until(partial(judged.answers, pair, "/public/page", 0, 503), f"the refusal of {pair}")


def test_a_new_root_reaches_every_kind_and_no_call_between_ours_fails(mesh: MixedMesh) -> None:
    primary = mesh.federation.dc1
    before = primary.get("/v1/connect/ca/roots").json["ActiveRootID"]
    configuration = primary.get("/v1/connect/ca/configuration").json
    configuration["Config"] |= {"PrivateKey": new_key(), "RootCert": ""}
    answers: Counter[tuple[bool, bool]] = Counter()
    assert primary.put("/v1/connect/ca/configuration", configuration).status == 200
    for _ in range(40):
        answers.update(({pair.caller, pair.callee} == {Kind.OURS}, bool(mesh.ask(pair))) for pair in PAIRS)
    assert answers[True, False] == 0, f"calls between ours that failed: {json.dumps(list(answers.items()))}"
    assert primary.get("/v1/connect/ca/roots").json["ActiveRootID"] != before
    for pair in PAIRS:
        until(partial(mesh.ask, pair), f"an answer of {pair} after the rotation")
