"""Narrowing only takes away: a caller let in under narrowed intentions is let in without the narrowing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.http1.request import HttpRequest
from agent.policy.authorize import authorize, authorize_caller, authorize_request
from agent.policy.narrowing import Narrowing
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import policy_of

DATACENTERS = ("dc1", "dc2", "dc3")
GET = HttpRequest(method="GET", paths=("/x",), headers={})

services = st.sampled_from(["web", "api"])
lists = st.one_of(st.lists(st.sampled_from([*DATACENTERS, "*", "?"]), max_size=3).map(" ".join), st.text())
keys = st.one_of(
    st.sampled_from(
        ["source-datacenters", "destination-datacenters", "source-datacenters:web", "Source_Datacenter", "x"]
    ),
    st.text(),
)
metas = st.dictionaries(keys, lists, max_size=3)
decisions = st.sampled_from(
    [
        {"Action": "allow"},
        {"Action": "deny"},
        {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]},
        {"Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/x"}}]},
    ]
)
rules = st.tuples(st.sampled_from(["web", "api", "*"]), st.sampled_from(["db", "*"]), decisions, metas)
sets = st.lists(rules, max_size=6, unique_by=lambda rule: rule[:2])
names = st.one_of(st.none(), st.frozensets(st.sampled_from(DATACENTERS)))
ours = st.lists(
    st.builds(Narrowing, source=st.sampled_from(["*", "web"]), sources=names, destinations=names), max_size=2
)


def item(rule: tuple[str, str, dict[str, Any], dict[str, str]], *, with_meta: bool) -> dict[str, Any]:
    source, destination, decision, meta = rule
    told = {"SourceName": source, "DestinationName": destination, **decision}
    return {**told, "Meta": meta} if with_meta else told


@settings(max_examples=300)
@given(sets, ours, st.sampled_from(["", *DATACENTERS]), st.booleans())
def test_the_narrowed_set_is_a_subset(
    rules: list[Any], own: list[Narrowing], datacenter: str, default_allow: bool
) -> None:
    plain = policy_of([item(rule, with_meta=False) for rule in rules], "db", default_allow=default_allow)
    narrowed = replace(
        policy_of([item(rule, with_meta=True) for rule in rules], "db", default_allow=default_allow),
        narrowings=tuple(own),
        datacenter=datacenter,
    )
    for service in ("web", "api", "other"):
        for source in DATACENTERS:
            caller = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter=source, service=service)
            for judge in (authorize, authorize_caller, lambda p, c, at: authorize_request(p, c, GET, at)):
                before, after = judge(plain, caller, None), judge(narrowed, caller, None)
                assert before.allowed or not after.allowed
                assert before.allowed or before.reason is after.reason
