"""A secondary under faults: never joined, cut off, refused, lied to, hung."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from datacenter.ca.certificates import intermediate_request
from datacenter.ca.keys import generate_key
from datacenter.ca.trust import timestamp
from datacenter.federation import endpoints as federation
from datacenter.federation.secondary import State
from datacenter.http.context import Answer
from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import (
    Site,
    Wan,
    accepts,
    assert_mutual_trust,
    now,
    running,
    token,
)

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf"
ROTATE = "/v1/connect/ca/rotate"
STATUS = "/v1/internal/federation/status"
OPERATOR = Policy(operator=Access.WRITE)


def start(site: Site) -> None:
    """The authority without the background services."""
    site.ca.start()


async def test_before_it_has_joined_a_secondary_says_so(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc2 = wan.site("dc2")
    async with running(dc2):
        for path in (ROOTS, f"{LEAF}/web", "/v1/connect/ca/roots"):
            answered = await dc2.call("GET", path)
            assert (answered.status, answered.body) == (500, "CA has not finished initializing")
        assert (await dc2.call("PUT", ROTATE)).body == "No path to datacenter"
        state, detail = dc2.standing
        assert state == State.UNREACHABLE
        assert "dc1.example:8500: connect: connection refused" in detail
        await trio.sleep(60)
        await running_later(wan, dc2)


async def running_later(wan: Wan, dc2: Site) -> None:
    """The primary appears at last; the pause between attempts is bounded."""
    async with running(wan.site("dc1"), settle=40):
        assert dc2.standing == (State.JOINED, "")
        await assert_mutual_trust(*wan.sites.values())


async def test_a_cut_secondary_goes_on_signing_and_catches_up(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        wan.cut("dc2")
        await trio.sleep(1)
        assert dc2.standing[0] == State.UNREACHABLE
        old = dc2.trust.active.id
        await dc1.put(ROTATE)
        await trio.sleep(3600)
        leaf = await dc2.get(f"{LEAF}/brand-new")
        assert dc2.trust.active.id == old
        assert accepts(dc1.trust, leaf)
        assert accepts(dc2.trust, await dc1.get(f"{LEAF}/web"))  # through the cross-signature
        wan.heal("dc2")
        await trio.sleep(40)
        assert dc2.standing == (State.JOINED, "")
        await assert_mutual_trust(dc1, dc2)
        assert accepts(dc1.trust, leaf)


async def test_two_rotations_missed_are_made_up_for(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        wan.cut("dc1")
        await dc1.put(ROTATE)
        await dc1.put(ROTATE)
        await trio.sleep(60)
        wan.heal("dc1")
        await trio.sleep(40)
        await assert_mutual_trust(dc1, dc2)
        assert len(dc2.trust.roots) == 3


async def test_the_intermediate_is_renewed_at_half_its_life(autojump_clock: MockClock) -> None:
    config = {"LeafCertTTL": "1h", "IntermediateCertTTL": "4h"}
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=3600.0), wan.site("dc2", leaf_ttl=3600.0)
    start(dc1)
    await dc1.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": config})
    async with running(dc1, dc2):
        first = dc2.trust.active
        await trio.sleep(2 * 3600 + 120)
        second = dc2.trust.active
        assert (second.id, len(second.intermediates)) == (first.id, 2)
        assert second.signing_key_id != first.signing_key_id
        await assert_mutual_trust(dc1, dc2)


async def test_leaves_end_with_an_intermediate_that_cannot_be_renewed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The WAN stays cut too long: no leaf outlives its issuer, then none, then it heals; all visible."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", leaf_ttl=6 * 3600.0)
    start(dc1)
    config = {"LeafCertTTL": "4h", "IntermediateCertTTL": "12h"}
    await dc1.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": config})
    async with running(dc1, dc2):
        wan.cut("dc2")
        end = dc2.trust.active.signing_certificate.not_valid_after_utc
        told = await dc2.get(STATUS)
        assert (told["SigningNotAfter"], told["Overdue"]) == (timestamp(end), "")
        await trio.sleep((end - now() - timedelta(hours=1)).total_seconds())
        ends = (
            f"the intermediate certificate ends at {timestamp(end)} and is not renewed: no leaf outlives it"
        )
        assert (await dc2.get(STATUS))["Overdue"] == ends
        leaf = await dc2.get(f"{LEAF}/web", token="late")
        assert x509.load_pem_x509_certificate(leaf["CertPEM"].encode()).not_valid_after_utc == end
        await trio.sleep(3600)
        answered = await dc2.call("GET", f"{LEAF}/web", token="late")
        assert (answered.status, answered.body) == (
            500,
            "error signing: the signing certificate has expired",
        )
        await trio.sleep(60)  # longer than between two attempts
        ended = f"the intermediate certificate ended at {timestamp(end)}: no leaf can be signed"
        told = await dc2.get(STATUS)
        assert (told["State"], told["Overdue"]) == (State.UNREACHABLE, ended)
        assert [caplog.messages.count(text) for text in (ends, ended)] == [1, 1]
        wan.heal("dc2")
        await trio.sleep(60)
        await assert_mutual_trust(dc1, dc2)
        assert (await dc2.get(STATUS))["Overdue"] == ""


@pytest.fixture
def guarded() -> dict[str, Any]:
    """ACLs on, with a replication token."""
    return {"default_policy_allows": False, "tokens": (token("repl", OPERATOR), token("weak", Policy()))}


async def test_with_acls_on_the_replication_token_opens(
    autojump_clock: MockClock, guarded: dict[str, Any]
) -> None:
    wan = Wan()
    dc1 = wan.site("dc1", **guarded)
    dc2 = wan.site("dc2", **guarded, replication_token="repl")
    async with running(dc1, dc2):
        assert dc2.trust.active.id == dc1.trust.active.id
        assert (await dc2.call("GET", STATUS)).status == 403
        status = await dc2.get(STATUS, token="repl")
        assert status["State"] == "joined"
        assert status["Datacenters"] == ["dc2", "dc1"]


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("", "rpc error making call: Permission denied"),
        ("weak", "rpc error making call: Permission denied"),
        ("unknown", "rpc error making call: ACL not found"),
    ],
)
async def test_a_refused_token_is_a_visible_reason(
    autojump_clock: MockClock,
    guarded: dict[str, Any],
    secret: str,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", **guarded), wan.site("dc2", replication_token=secret)
    with caplog.at_level(logging.WARNING):
        async with running(dc1, dc2, settle=600):
            assert dc2.standing == (State.REFUSED, text)
            assert (await dc2.get(STATUS))["Detail"] == text
            assert (await dc2.call("GET", f"{LEAF}/web")).status == 500
    assert sum(text in record.getMessage() for record in caplog.records) == 2  # once per loop, not per try


async def test_a_token_revoked_later_leaves_it_signing_and_trusting_new_roots(
    autojump_clock: MockClock, guarded: dict[str, Any]
) -> None:
    wan = Wan()
    dc1 = wan.site("dc1", **guarded)
    dc2 = wan.site("dc2", replication_token="repl")
    async with running(dc1, dc2):
        old = dc2.trust.active.id
        dc1 = wan.site("dc1", store=dc1.dc.store, default_policy_allows=False, tokens=())
        dc1.ca.rotate(generate_key())
        await trio.sleep(61)
        assert dc2.standing[0] == State.REFUSED
        assert dc2.trust.active.id == old
        assert dc2.trust.find(dc1.trust.active.id) is not None
        leaf = await dc2.get(f"{LEAF}/web")
        assert accepts(dc1.trust, leaf)


async def test_joining_replaces_a_trust_domain_of_its_own(autojump_clock: MockClock) -> None:
    """A datacenter that was its own primary is restarted as a secondary of another."""
    wan = Wan()
    alone = wan.site("dc2", primary="dc2")
    start(alone)
    before = alone.trust.trust_domain
    leaf = await alone.get(f"{LEAF}/web")
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", store=alone.dc.store)
    start(dc2)
    assert (await dc2.get(f"{LEAF}/web"))["ServiceURI"].startswith(
        f"spiffe://{before}/"
    )  # until it has joined
    async with running(dc1, dc2):
        assert dc2.trust.trust_domain == dc1.trust.trust_domain != before
        assert len(dc2.trust.roots) == 1
        assert not accepts(dc2.trust, leaf)
        await assert_mutual_trust(dc1, dc2)


async def test_a_primary_that_lost_its_memory_is_followed(autojump_clock: MockClock) -> None:
    """New data directory, new trust domain: the secondary adopts it, and announces itself again."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with trio.open_nursery() as first:
        await first.start(federation.run, dc1.dc)
        await first.start(federation.run, dc2.dc)
        await trio.sleep(1)
        wan.cut("dc1")
        reborn = wan.site("dc1")
        await first.start(federation.run, reborn.dc)
        wan.heal("dc1")
        await trio.sleep(40)
        assert dc2.trust.trust_domain == reborn.trust.trust_domain != dc1.trust.trust_domain
        assert reborn.dc.federation.datacenters() == ["dc1", "dc2"]
        await assert_mutual_trust(reborn, dc2)
        first.cancel_scope.cancel()


BAD_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"Certificate": "rubbish"}, "ValueError"),
    ({"Roots": {}}, "KeyError"),
    ({"Certificate": "another key"}, "not for our key"),
]


@pytest.mark.parametrize(("changed", "reason"), BAD_ANSWERS, ids=["rubbish", "no roots", "another's"])
async def test_a_primary_that_answers_nonsense_is_not_installed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], reason: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        before = dc2.trust
        if changed.get("Certificate") == "another key":
            csr = intermediate_request(generate_key(), trust_domain=before.trust_domain)
            changed = {"Certificate": dc1.ca.sign_request(csr)}
        honest = dc2.dc.forwarder.call

        async def lie(method: str, url: str, **more: Any) -> Answer:
            answer = await honest(method, url, **more)
            if url.endswith("/sign"):
                assert isinstance(answer.value, dict)
                return Answer(value=answer.value | changed, index=answer.index)
            return answer

        monkeypatch.setattr(dc2.dc.forwarder, "call", lie)
        await dc1.put(ROTATE)
        await trio.sleep(5)
        state, detail = dc2.standing
        assert state == State.BAD_ANSWER
        assert reason in detail
        assert dc2.trust.active == before.active
        monkeypatch.undo()
        await trio.sleep(40)
        await assert_mutual_trust(dc1, dc2)


async def test_a_hung_primary_is_given_up_and_asked_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        carry = wan.carry

        async def hang(*_: object) -> object:
            await trio.sleep_forever()
            raise AssertionError

        monkeypatch.setattr(wan, "carry", hang)
        await trio.sleep(160)
        assert dc2.standing == (State.UNREACHABLE, "rpc error making call: i/o timeout")
        monkeypatch.setattr(wan, "carry", carry)
        await dc1.put(ROTATE)
        await trio.sleep(110)
        await assert_mutual_trust(dc1, dc2)


async def test_an_intermediate_that_begins_past_its_half_is_not_asked_for_in_a_loop(
    autojump_clock: MockClock,
) -> None:
    """The root has little left: the intermediate ends with it, and would be renewed at once, for ever."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    start(dc1)
    await trio.sleep((dc1.trust.active.certificate.not_valid_after_utc - now()).total_seconds() - 30)
    async with running(dc1, dc2, settle=20):
        assert dc2.standing == (
            State.BAD_ANSWER,
            "the intermediate certificate has less than half of its life before it",
        )
        assert sum(b"CSR" in body for body in wan.crossed) < 20


async def test_a_primary_that_is_not_one_is_a_bad_answer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wan = Wan()
    dc2 = wan.site("dc2")

    async def answer(*_: object, **__: object) -> Answer:
        return Answer(value=["hello"], index=0)

    monkeypatch.setattr(dc2.dc.forwarder, "call", answer)
    async with running(dc2):
        assert dc2.standing == (State.BAD_ANSWER, "the primary did not answer with an object")
