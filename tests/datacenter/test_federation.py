"""Two and three datacenters: joining, signing, rotation, cuts, deaths between the steps."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, VerificationError
from cryptography.x509.verification import Store as Trusted
from trio.testing import MockClock

from datacenter import federation
from datacenter.api import Answer
from datacenter.authority import intermediate_request
from datacenter.keys import generate_key, key_pem
from datacenter.secondary import State
from datacenter.settings import Access, Policy, Settings
from datacenter.store import Store
from datacenter.trust import Trust
from tests.datacenter.sites import Site, Wan, now, running, token

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf"
ROTATE = "/v1/connect/ca/rotate"
STATUS = "/v1/internal/federation/status"
OPERATOR = Policy(operator=Access.WRITE)


def accepts(trust: Trust, leaf: dict[str, str]) -> bool:
    """Whether a peer that holds these roots accepts this leaf now."""
    store = Trusted([root.certificate for root in trust.roots])
    certificate, *others = x509.load_pem_x509_certificates(leaf["CertPEM"].encode())
    try:
        PolicyBuilder().store(store).time(now()).build_client_verifier().verify(certificate, others)
    except VerificationError:
        return False
    return True


def start(site: Site) -> None:
    """The authority without the background services."""
    site.ca.start()


async def assert_mutual_trust(*sites: Site) -> None:
    """Every datacenter accepts every other's leaves, and they agree who they are."""
    leaves = [await site.get(f"{LEAF}/web", token=str(trio.current_time())) for site in sites]
    assert all(accepts(site.trust, leaf) for site in sites for leaf in leaves)
    assert len({site.trust.trust_domain for site in sites}) == 1
    assert len({site.trust.active.id for site in sites}) == 1


async def test_a_secondary_joins_and_signs_under_the_primarys_root(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await assert_mutual_trust(dc1, dc2)
        (root,) = (await dc2.get(ROOTS))["Roots"]
        assert root["SigningKeyID"] != dc1.trust.active.signing_key_id
        leaf = await dc2.get(f"{LEAF}/db")
        assert leaf["ServiceURI"].endswith("/dc/dc2/svc/db")
        assert leaf["CertPEM"].endswith(root["IntermediateCerts"][0])
        assert dc2.standing == (State.JOINED, "")
        assert await dc2.get(f"{LEAF}/db?dc=dc1") != leaf


async def test_every_datacenter_learns_of_every_other(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2, dc3 = wan.site("dc1"), wan.site("dc2"), wan.site("dc3")
    async with running(dc1, dc2, dc3):
        for site in (dc1, dc2, dc3):
            assert set(site.dc.federation.datacenters()) == {"dc1", "dc2", "dc3"}
        leaf = await dc2.get(f"{LEAF}/db?dc=dc3")
        assert "/dc/dc3/" in leaf["ServiceURI"]
        await assert_mutual_trust(dc1, dc2, dc3)


async def test_addresses_outlive_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    wan = Wan()
    async with running(wan.site("dc1"), wan.site("dc2", path=tmp_path / "dc2")):
        wan.sites["dc2"].dc.store.close()
    again = wan.site("dc2", path=tmp_path / "dc2")
    assert again.dc.federation.base_url("dc1") == "http://dc1.example:8500"
    again.dc.store.close()


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
        await trio.sleep(300)
        await running_later(wan, dc2)


async def running_later(wan: Wan, dc2: Site) -> None:
    """The primary appears at last; the pause between attempts is bounded."""
    async with running(wan.site("dc1"), settle=40):
        assert dc2.standing == (State.JOINED, "")
        await assert_mutual_trust(*wan.sites.values())


async def test_rotation_reaches_the_secondary_and_every_mix_of_old_and_new_verifies(
    autojump_clock: MockClock,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=3600.0), wan.site("dc2", leaf_ttl=3600.0)
    async with running(dc1, dc2):
        old_trust = [dc1.trust, dc2.trust]
        old_leaves = [await site.get(f"{LEAF}/web") for site in (dc1, dc2)]
        await dc1.put(ROTATE)
        await trio.sleep(0.5)
        new_leaves = [await site.get(f"{LEAF}/web", token="new") for site in (dc1, dc2)]
        assert [leaf["CertPEM"].count("BEGIN") for leaf in new_leaves] == [2, 3]
        for trust in (*old_trust, dc1.trust, dc2.trust):
            for leaf in (*old_leaves, *new_leaves):
                assert accepts(trust, leaf)
        await trio.sleep(4 * 3600)  # leaves are gone, and with them the old root
        await assert_mutual_trust(dc1, dc2)
        assert [len(site.trust.roots) for site in (dc1, dc2)] == [1, 1]


async def test_rotation_asked_of_the_secondary_is_done_by_the_primary(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        before = dc1.trust.active.id
        assert (await dc2.put(ROTATE))["ActiveRootID"] == dc1.trust.active.id != before
        await trio.sleep(0.5)
        await assert_mutual_trust(dc1, dc2)


async def test_a_waiting_watcher_in_the_secondary_sees_the_rotation_once(autojump_clock: MockClock) -> None:
    """Recorded: one answer, with cross-signature and the secondary's new intermediate together."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2) as nursery:
        first = await dc2.call("GET", ROOTS)
        nursery.start_soon(dc1.put, ROTATE)
        second = await dc2.call("GET", f"{ROOTS}?index={first.index}&wait=30s")
        active = next(root for root in second.body["Roots"] if root["Active"])
        assert len(active["IntermediateCerts"]) == 2
        third = await dc2.call("GET", f"{ROOTS}?index={second.index}&wait=30s")
        assert third.body == second.body


async def test_leaves_change_only_after_the_roots(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    events: list[str] = []

    async def watch(what: str, path: str) -> None:
        answered = await dc2.call("GET", path)
        await dc2.call("GET", f"{path}?index={answered.index}&wait=120s")
        events.append(what)

    async with running(dc1, dc2), trio.open_nursery() as watchers:
        watchers.start_soon(watch, "roots", ROOTS)
        for name in "abc":
            watchers.start_soon(watch, "leaf", f"{LEAF}/{name}")
        await trio.sleep(1)
        await dc1.put(ROTATE)
    assert events == ["roots", "leaf", "leaf", "leaf"]


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


async def test_leaves_end_with_an_intermediate_that_cannot_be_renewed(autojump_clock: MockClock) -> None:
    """The WAN stays cut too long: no leaf outlives its issuer, then there are none, then it heals."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", leaf_ttl=6 * 3600.0)
    start(dc1)
    config = {"LeafCertTTL": "4h", "IntermediateCertTTL": "12h"}
    await dc1.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": config})
    async with running(dc1, dc2):
        wan.cut("dc2")
        end = dc2.trust.active.signing_certificate.not_valid_after_utc
        await trio.sleep((end - now() - timedelta(hours=1)).total_seconds())
        leaf = await dc2.get(f"{LEAF}/web", token="late")
        assert x509.load_pem_x509_certificate(leaf["CertPEM"].encode()).not_valid_after_utc == end
        await trio.sleep(3600)
        answered = await dc2.call("GET", f"{LEAF}/web", token="late")
        assert (answered.status, answered.body) == (
            500,
            "error signing: the signing certificate has expired",
        )
        wan.heal("dc2")
        await trio.sleep(40)
        await assert_mutual_trust(dc1, dc2)


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


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("moment", ["before the request", "after the request", "inside the transaction"])
@pytest.mark.parametrize("situation", ["joining", "rotating"])
async def test_killed_between_the_steps_it_comes_back_legal_and_converges(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, situation: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", path=tmp_path / "dc2")
    async with trio.open_nursery() as nursery:
        await nursery.start(federation.run, dc1.dc)
        if situation == "rotating":
            async with running(dc2):
                assert dc2.standing == (State.JOINED, "")
            await dc1.put(ROTATE)
        _arm(monkeypatch, moment)
        with pytest.raises(BaseExceptionGroup) as caught:
            await federation.run(dc2.dc)
        assert caught.group_contains(Killed)
        monkeypatch.undo()
        dc2.dc.store.close()
        dc2 = wan.site("dc2", path=tmp_path / "dc2")
        _assert_legal(dc2, situation)
        await nursery.start(federation.run, dc2.dc)
        await trio.sleep(1)
        await assert_mutual_trust(dc1, dc2)
        nursery.cancel_scope.cancel()
    dc2.dc.store.close()


def _arm(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    match moment:
        case "before the request":
            monkeypatch.setattr("datacenter.secondary.intermediate_request", die)
        case "after the request":
            monkeypatch.setattr("datacenter.secondary.check_intermediate", die)
        case _:
            monkeypatch.setattr(Store, "put_private", die)


def _assert_legal(site: Site, situation: str) -> None:
    """Empty, or signing with the key of its signing certificate: nothing else is legal on disk."""
    if situation == "joining":
        assert site.ca.trust is None
        return
    signer = site.ca.signer()
    assert signer.key.public_key() == signer.certificate.public_key()


async def test_a_primary_killed_within_its_rotation_has_rotated_or_not(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", path=tmp_path / "dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        before = dc1.trust.active.id
        _arm(monkeypatch, "inside the transaction")
        with pytest.raises(Killed):
            dc1.ca.rotate(generate_key())
        monkeypatch.undo()
    dc1.dc.store.close()
    dc1 = wan.site("dc1", path=tmp_path / "dc1")
    async with running(dc1, dc2):
        assert dc1.trust.active.id == before
        await dc1.put(ROTATE)
        await trio.sleep(1)
        await assert_mutual_trust(dc1, dc2)
    dc1.dc.store.close()


KEY_TEXT = re.compile(rb"PRIVATE KEY")


async def test_no_key_crosses_the_wire_and_each_store_holds_its_own(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", path=tmp_path / "dc1"), wan.site("dc2", path=tmp_path / "dc2")
    async with running(dc1, dc2):
        for _ in range(3):
            await dc1.put("/v1/connect/ca/configuration", _with_a_key())
            await trio.sleep(1)
        keys = [_scalar(site) for site in (dc1, dc2)]
    assert len(wan.crossed) > 10
    for crossed in wan.crossed:
        assert not KEY_TEXT.search(crossed)
        assert not any(key in crossed for key in keys)
    for site, other in ((dc1, 1), (dc2, 0)):
        site.dc.store.close()
        held = b"".join(path.read_bytes() for path in tmp_path.glob(f"{site.dc.settings.name}*"))
        assert keys[other] not in held
        assert keys[1 - other] in held
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def _with_a_key() -> dict[str, Any]:
    return {"Provider": "consul", "Config": {"PrivateKey": key_pem(generate_key())}}


def _scalar(site: Site) -> bytes:
    """A stretch of the signing key's text that no other text has."""
    return key_pem(site.ca.signer().key).splitlines()[1].encode()


@pytest.mark.parametrize("secret_place", ["log", "status", "repr"])
async def test_keys_are_not_spoken_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, secret_place: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    with caplog.at_level(logging.DEBUG):
        async with running(dc1, dc2):
            await dc1.put(ROTATE)
            await trio.sleep(1)
            scalar = _scalar(dc2).decode()
            shown = {
                "log": caplog.text,
                "status": str(await dc2.get(STATUS)),
                "repr": repr(dc2.dc) + repr(dc2.ca.signer()) + repr(dc2.ca.issue_leaf("web")),
            }
    assert scalar not in shown[secret_place]
    assert "PRIVATE KEY" not in shown[secret_place]


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
            csr = intermediate_request(generate_key(), trust_domain=before.trust_domain, uid="x")
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


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("join", {"Datacenter": "dc1", "Address": "http://x"}, "cannot join 'dc1' under the name 'dc1'"),
        ("join", {"Datacenter": "", "Address": "http://x"}, "cannot join"),
        ("join", {"Datacenter": "dc2", "Address": "x"}, "not an HTTP address: 'x'"),
        ("sign", {"CSR": "x"}, "not a PEM certificate request"),
        ("sign", {"Key": "x"}, "unknown field"),
    ],
)
async def test_the_primary_checks_what_it_is_asked(
    autojump_clock: MockClock, path: str, body: dict[str, str], text: str
) -> None:
    dc1 = Wan().site("dc1")
    start(dc1)
    answered = await dc1.call("PUT", f"/v1/internal/federation/{path}", body)
    assert answered.status == 400
    assert text in answered.body


async def test_a_request_for_another_trust_domain_is_not_signed(autojump_clock: MockClock) -> None:
    dc1, other = Wan().site("dc1"), Wan().site("dc9", primary="dc9")
    start(dc1)
    other.dc.rng.seed(99)
    start(other)
    csr = intermediate_request(generate_key(), trust_domain=other.trust.trust_domain, uid="x")
    body = {"CSR": csr.public_bytes(serialization.Encoding.PEM).decode()}
    serial = dc1.dc.store.index
    answered = await dc1.call("PUT", "/v1/internal/federation/sign", body)
    assert answered.status == 400
    assert answered.body.startswith("signing refused: the certificate request is not for the trust domain")
    assert dc1.dc.store.index == serial  # the number was given back


async def test_only_the_primary_signs(autojump_clock: MockClock) -> None:
    dc2 = Wan().site("dc2")
    start(dc2)
    for method, path in (("PUT", "join"), ("PUT", "sign"), ("GET", "state"), ("GET", "config-entries")):
        answered = await dc2.call(method, f"/v1/internal/federation/{path}", {})
        assert (answered.status, answered.body) == (400, "dc2 is not the primary datacenter")


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


async def test_a_primary_has_no_standing(autojump_clock: MockClock) -> None:
    dc1 = Wan().site("dc1")
    async with running(dc1):
        status = await dc1.get(STATUS)
    assert status["State"] == "primary"
    assert status["ActiveRootID"] == dc1.trust.active.id


def test_settings_do_not_print_the_replication_token() -> None:
    settings = Settings(
        name="dc2", http_addr="", data_dir=None, primary_datacenter="dc1", replication_token="s3cret"
    )
    assert "s3cret" not in repr(settings)
