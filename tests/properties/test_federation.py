"""Whatever happens to a federation, in whatever order, four things hold.

One trust domain. Every leaf that lives verifies against every bundle that a peer may hold at that moment. No
leaf outlives its issuer. Keys stay home.

Three datacenters over real stores, in virtual time: rotate (kinds of key alternating, an external root among
them), cut, heal, crash, restart, tick. Leaves of dc2 live longest; intermediates live for hours and are
renewed meanwhile. A peer may hold the bundle its own datacenter lists now, or listed a few seconds ago, or
listed when it died. In the end all is healed: everybody signs under one root, and the others go.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from OpenSSL import crypto

from certs.spiffe import TrustDomain
from datacenter.ca.certificates import certificate_pem
from datacenter.ca.keys import KeyKind, generate_key, key_pem
from datacenter.ca.trust import Root, Trust
from tests.datacenter.mint import external_root
from tests.datacenter.sites import Answered, Site, now
from tests.datacenter.stage import Stage

NAMES = ("dc1", "dc2", "dc3")
HOUR = 3600.0
LEAF_TTL = {"dc1": 1 * HOUR, "dc2": 2 * HOUR, "dc3": 1 * HOUR}
CONFIG = {"LeafCertTTL": "1h", "IntermediateCertTTL": "6h"}
WATCH = timedelta(seconds=5)  # so late a sidecar's watch of the roots may be
SIGNER_ENDED = "error signing: the signing certificate has expired"
MOST_ROTATIONS = 6  # as many as a datacenter that is cut off may miss
ROTATE = "/v1/connect/ca/rotate"
CONFIGURATION = "/v1/connect/ca/configuration"
LEAF = "/v1/agent/connect/ca/leaf"
KINDS = (("ec", 256), ("ec", 384), ("rsa", 2048))


@dataclass(kw_only=True)
class Listed:
    """The roots a datacenter listed, and when it was last seen to."""

    roots: tuple[Root, ...]
    until: datetime


def one(of: Callable[[Any], list[str]]) -> st.SearchStrategy[str]:
    """One of what the machine has just now."""
    return st.runner().flatmap(lambda machine: st.sampled_from(of(machine)))


class Federation(RuleBasedStateMachine):
    """The machine; its model is what was ever handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.stage = Stage(Path(self.directory.name)).__enter__()
        self.cut: set[str] = set()
        self.rotations = 0
        self.issued: list[tuple[datetime, list[x509.Certificate]]] = []
        self.listed: dict[str, list[Listed]] = {name: [] for name in NAMES}
        self.keys: dict[str, set[bytes]] = {name: set() for name in NAMES}
        self.domains: set[TrustDomain] = set()
        self.asked = 0

    def teardown(self) -> None:
        try:
            if self.asked:
                self._all_is_healed()
        finally:
            self.stage.__exit__(None, None, None)
            self.directory.cleanup()

    @property
    def up(self) -> list[str]:
        return [name for name in NAMES if name in self.stage.sites]

    @property
    def down(self) -> list[str]:
        return [name for name in NAMES if name not in self.stage.sites]

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            self._start(name)
            if name == "dc1":
                self._configure(CONFIG)
        self.stage.tick(300)  # everybody joins, though the first attempts may have failed

    @precondition(lambda self: self.rotations < MOST_ROTATIONS and "dc1" in self.up)
    @rule(kind=st.sampled_from(KINDS))
    def rotate(self, kind: tuple[str, int]) -> None:
        body = {"PrivateKeyType": kind[0], "PrivateKeyBits": kind[1]}
        self.stage.do(self.stage.sites["dc1"].put, ROTATE, body)
        self._rotated()

    @precondition(lambda self: self.rotations < MOST_ROTATIONS and "dc1" in self.up)
    @rule()
    def migrate(self) -> None:
        """To a root from elsewhere, key handed in."""
        key = generate_key(KeyKind("ec", 256))
        root = {
            "PrivateKey": key_pem(key),
            "RootCert": certificate_pem(external_root(key, key_id=True)),
        }
        self._configure(CONFIG | root)
        self._rotated()

    def _configure(self, config: dict[str, str]) -> None:
        body = {"Provider": "consul", "Config": config}
        self.stage.do(self.stage.sites["dc1"].put, CONFIGURATION, body)

    def _start(self, name: str) -> None:
        self.stage.start(name, leaf_ttl=LEAF_TTL[name])

    def _rotated(self) -> None:
        self.rotations += 1
        self.stage.tick(0.001)

    @precondition(lambda self: len(self.cut) < len(NAMES))
    @rule(name=one(lambda self: [name for name in NAMES if name not in self.cut]))
    def cut_off(self, name: str) -> None:
        self.stage.do(_soon, self.stage.wan.cut, name)
        self.cut.add(name)

    @precondition(lambda self: self.cut)
    @rule(name=one(lambda self: sorted(self.cut)))
    def heal(self, name: str) -> None:
        self.stage.do(_soon, self.stage.wan.heal, name)
        self.cut.discard(name)

    @precondition(lambda self: self.up)
    @rule(name=one(lambda self: self.up))
    def crash(self, name: str) -> None:
        self.stage.crash(name)
        self.listed[name] = self.listed[name][-1:]  # for as long as it is away

    @precondition(lambda self: self.down)
    @rule(name=one(lambda self: self.down))
    def restart(self, name: str) -> None:
        self._start(name)

    @rule(seconds=st.sampled_from((1, 30, 600, 2000, 4000, 8000, 15000)))
    def tick(self, seconds: float) -> None:
        self.stage.tick(seconds)

    @precondition(lambda self: self.rotations > 1)
    @rule()
    def have_peace(self) -> None:
        """For twice the longest life, and an hour in each datacenter to notice: the old roots have gone."""
        self._all_is_healed()
        self.stage.tick(7 * HOUR)
        roots = {name: len(site.trust.roots) for name, site in self.stage.sites.items()}
        assert roots == dict.fromkeys(NAMES, 1)

    @invariant()
    def holds(self) -> None:
        for name, site in self.stage.sites.items():
            self._issue(name, site)
        at = self.stage.do(_at)
        self.issued = [leaf for leaf in self.issued if leaf[1][0].not_valid_after_utc > at]
        for name, site in self.stage.sites.items():
            self._list(name, site.trust, at)
        self.domains |= {site.trust.trust_domain for site in self.stage.sites.values()}
        assert len(self.domains) <= 1
        for name, listed in self.listed.items():
            for one_listed in listed:
                self._verifies(f"a peer of {name}", one_listed.roots, at)

    def _list(self, name: str, trust: Trust, at: datetime) -> None:
        """What peers there may hold: the newest, and what was the newest a few seconds ago."""
        listed = self.listed[name]
        if listed and listed[-1].roots == trust.roots:
            listed[-1].until = at
        else:
            listed.append(Listed(roots=trust.roots, until=at))
        self.listed[name] = [bundle for bundle in listed if at - bundle.until <= WATCH]

    def _verifies(self, who: str, roots: Sequence[Root], at: datetime) -> None:
        store = crypto.X509Store()
        store.set_time(at)
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root.certificate))
        for issued_at, chain in self.issued:
            leaf, *pool = (crypto.X509.from_cryptography(step) for step in chain)
            try:
                crypto.X509StoreContext(store, leaf, pool).verify_certificate()
            except crypto.X509StoreContextError as error:
                what = f"{who} refuses {_who(chain[0])}, {at - issued_at} old: {error}"
                raise AssertionError(what) from error

    @invariant()
    def keys_stay_home(self) -> None:
        assert not any(b"PRIVATE KEY" in body for body in self.stage.wan.crossed)
        self.stage.wan.crossed.clear()
        for name, site in self.stage.sites.items():
            key = key_pem(site.ca.signer().key).splitlines()[1].encode()
            self.keys[name].add(key)
            held = b"".join(path.read_bytes() for path in Path(self.directory.name).glob(f"{name}*"))
            others = set().union(*(self.keys[other] for other in NAMES if other != name))
            assert not any(other in held for other in others)
            assert key in held

    def _issue(self, name: str, site: Site) -> None:
        self.asked += 1
        signer, at = site.ca.signer().certificate, self.stage.do(_at)
        answered = self.stage.do(_ask, site, f"{LEAF}/web-{self.asked}")
        if signer.not_valid_after_utc <= at:
            assert (answered.status, answered.body) == (500, SIGNER_ENDED)
            return
        assert answered.status == 200, answered
        chain = x509.load_pem_x509_certificates(answered.body["CertPEM"].encode())
        assert chain[0].not_valid_after_utc <= signer.not_valid_after_utc, "a leaf outlives its issuer"
        chain[0].verify_directly_issued_by(signer)
        self.issued.append((at, chain))

    def _all_is_healed(self) -> None:
        for name in sorted(self.cut):
            self.heal(name)
        for name in self.down:
            self._start(name)
        self.stage.tick(120)
        self.holds()
        assert len({site.trust.active.id for site in self.stage.sites.values()}) == 1, "they do not agree"
        at = self.stage.do(_at)
        ends = [site.ca.signer().certificate.not_valid_after_utc for site in self.stage.sites.values()]
        assert min(ends) > at, "an intermediate was not renewed"


async def _ask(site: Site, path: str) -> Answered:
    return await site.call("GET", path)


def _who(leaf: x509.Certificate) -> str:
    names: Any = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(next(iter(names)).value)


async def _at() -> datetime:
    return now() + timedelta(microseconds=1)


async def _soon(act: Any, *arguments: object) -> None:
    act(*arguments)
    await trio.testing.wait_all_tasks_blocked()


TestFederation = Federation.TestCase
TestFederation.settings = settings(
    max_examples=6, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize(
    "path",
    [
        [("cut_off", "dc2"), ("tick", 15000)],  # into the last hours of an intermediate
        [("cut_off", "dc2"), ("rotate", ("ec", 256)), ("tick", 15000), ("tick", 4000)],  # held for dc2 alone
        [("rotate", ("ec", 256)), ("tick", 2000), ("tick", 2000)],  # to the end of the longest life
        [("cut_off", "dc3"), ("crash", "dc3"), ("rotate", ("ec", 384)), ("migrate",), ("restart", "dc3")],
    ],
    ids=["late", "held", "longest", "crashed-and-cut"],
)
def test_paths_that_chance_seldom_takes(path: list[tuple[Any, ...]]) -> None:
    machine = Federation()
    try:
        machine.begin()
        machine.holds()
        for step, *arguments in path:
            getattr(machine, step)(*arguments)
            machine.holds()
            machine.keys_stay_home()
    finally:
        machine.teardown()
