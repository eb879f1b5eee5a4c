"""A state is believed only where everything in it is proven again."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trio

from agent.handover.state import State, StateReason, StateUnusable, decode, encode, proven
from certs.leaf import parse_leaf
from tests.agent.handover.runs import lived, run, state_of
from tests.certs.authority import Issuer
from tests.support.agent_parts import settings
from tests.support.descriptor_store import Store


@pytest.fixture
async def state(nursery: trio.Nursery, store: Store) -> State:
    """The state that a run has left."""
    one = run(nursery, store, token="the-token")
    one.bench.well()
    await lived(one)
    (text,) = (os.pread(fd, 1 << 20, 0) for name, fd in store.kept.items() if name.startswith("state-"))
    assert b"the-token" not in text
    return decode(text)


async def test_it_is_read_back_and_proven(state: State) -> None:
    leaf, bundle = proven(decode(encode(state)), settings(), datetime.now(UTC))
    assert (leaf.id.service, len(bundle.roots)) == ("web", 1)
    assert "PRIVATE" not in repr(state)


def other_leaf(state: State, root: Issuer) -> State:
    """Return the state with a leaf that another authority has signed."""
    minted = root.leaf()
    parse_leaf(minted.cert_pem, minted.key_pem)
    credentials = replace(state.credentials, cert_pem=minted.cert_pem, key_pem=minted.key_pem)
    return replace(state, credentials=credentials)


async def test_credentials_that_do_not_hold_are_refused(state: State) -> None:
    now = datetime.now(UTC)
    root = Issuer.root(now=now)
    other_key = replace(state.credentials, key_pem=root.leaf().key_pem)
    for wrong in (
        other_leaf(state, root),  # of no known root
        replace(state, credentials=other_key),
        replace(state, credentials=replace(state.credentials, key_pem="no key")),
        replace(state, credentials=replace(state.credentials, roots={"TrustDomain": 7})),
    ):
        with pytest.raises(StateUnusable) as caught:
            proven(wrong, settings(), now)
        assert caught.value.reason is StateReason.UNPROVEN
        assert "PRIVATE" not in str(caught.value)
    with pytest.raises(StateUnusable):
        proven(state, settings(state_max_age="never"), now + timedelta(days=365))  # the leaf has expired


async def test_a_leaf_of_another_service_is_refused(state: State) -> None:
    assert state.registration is not None
    renamed = replace(state, registration=replace(state.registration, service="db"))
    with pytest.raises(StateUnusable) as caught:
        proven(renamed, settings(), datetime.now(UTC))
    assert caught.value.reason is StateReason.UNPROVEN


async def test_its_age_counts_from_consuls_last_answer_and_the_future_is_refused(state: State) -> None:
    day = timedelta(days=1)
    proven(state, settings(), state.at + day - timedelta(seconds=1))
    for at in (state.at + day + timedelta(seconds=1), state.at - timedelta(seconds=1)):
        with pytest.raises(StateUnusable) as caught:
            proven(state, settings(), at)
        assert caught.value.reason is StateReason.TOO_OLD
    proven(state, settings(state_max_age="never"), state.at + 2 * day)


@pytest.mark.parametrize("text", [b"", b"\x00", b"{}", b"\x81\xa1x\x01"])
def test_what_is_no_state_is_unreadable(text: bytes) -> None:
    with pytest.raises(StateUnusable) as caught:
        decode(text)
    assert caught.value.reason is StateReason.UNREADABLE


async def test_a_state_of_another_format_or_without_a_registration_is_unreadable(state: State) -> None:
    with pytest.raises(StateUnusable, match="format 9"):
        decode(encode(replace(state, format=9)))
    with pytest.raises(StateUnusable, match="no registration"):
        proven(replace(state, registration=None), settings(), datetime.now(UTC))


async def test_without_a_registration_in_consul_the_settings_name_the_service(
    nursery: trio.Nursery, store: Store
) -> None:
    one = run(nursery, store, service="web", service_addr="127.0.0.1:8080")
    one.bench.well()
    await lived(one)
    found = state_of(run(nursery, store, service="web", service_addr="127.0.0.1:8080")).resume.state
    assert found is not None
    assert found.registration is None
