"""Any id that can be made is printed as a URI that is read as the same id."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import (
    AgentId,
    GatewayId,
    InvalidSpiffeId,
    OtherId,
    ServerId,
    ServiceId,
    SigningId,
    SpiffeId,
    TrustDomain,
    WorkloadId,
    parse,
)

names = st.text(min_size=1, max_size=30).filter(
    lambda name: name.isprintable() and "/" not in name and name not in {".", ".."} and _encodable(name)
)
domains = st.text(string.ascii_lowercase + string.digits + ".-_", min_size=1, max_size=60).map(TrustDomain)
places = st.one_of(st.just("default"), names)


def _encodable(name: str) -> bool:
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in name)


ids = st.one_of(
    st.builds(
        ServiceId, trust_domain=domains, datacenter=names, service=names, namespace=places, partition=places
    ),
    st.builds(AgentId, trust_domain=domains, datacenter=names, node=names, partition=places),
    st.builds(ServerId, trust_domain=domains, datacenter=names),
    st.builds(GatewayId, trust_domain=domains, datacenter=names, partition=places),
    st.builds(WorkloadId, trust_domain=domains, identity=names, namespace=places, partition=places),
    st.builds(SigningId, trust_domain=domains),
)


@given(ids)
def test_round_trip(identity: SpiffeId) -> None:
    uri = str(identity)
    assert uri.isascii()
    assert parse(uri) == identity


@given(ids, ids)
def test_different_ids_print_differently(one: SpiffeId, other: SpiffeId) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(ids, st.randoms(use_true_random=False))
def test_scheme_and_trust_domain_may_be_of_any_case(identity: SpiffeId, rng: object) -> None:
    uri = str(identity)
    head, path = (
        uri[: len("spiffe://") + len(identity.trust_domain.name)],
        uri[len("spiffe://") + len(identity.trust_domain.name) :],
    )
    mixed = "".join(char.upper() if rng.random() < 0.5 else char for char in head)  # type: ignore[attr-defined]
    assert parse(mixed + path) == identity


uri_like = st.text(string.ascii_letters + string.digits + "/%:.-_@?#[]!ü ", max_size=80)


@given(
    st.one_of(
        st.text(max_size=200),
        uri_like.map("spiffe://a.consul/ns/".__add__),
        uri_like.map("spiffe://".__add__),
    )
)
def test_anything_else_is_an_id_that_prints_alike_or_is_refused(text: str) -> None:
    try:
        identity = parse(text)
    except InvalidSpiffeId:
        return
    assert parse(str(identity)) == identity
    assert not isinstance(identity, OtherId) or str(identity) == text
