"""Whatever happens to a federation, in whatever order, four things hold.

One trust domain. Every leaf that lives verifies against every bundle that a peer may hold at that moment. No
leaf outlives its issuer. Keys stay home.

Three datacenters over real stores, in virtual time: rotate (kinds of key alternating, an external root among
them), cut, heal, crash, restart, tick. A peer may hold the bundle its own datacenter lists now, or listed a
moment before the newest change of it.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from OpenSSL import crypto

from certs.spiffe import TrustDomain
from datacenter.authority import certificate_pem
from datacenter.keys import KeyKind, generate_key, key_pem
from tests.datacenter.mint import external_root
from tests.datacenter.sites import Site, now
from tests.datacenter.stage import Stage

NAMES = ("dc1", "dc2", "dc3")
LEAF_TTL = 3600.0
MOST_ROTATIONS = 6  # as many as a datacenter that is cut off may miss
ROTATE = "/v1/connect/ca/rotate"
CONFIGURATION = "/v1/connect/ca/configuration"
LEAF = "/v1/agent/connect/ca/leaf"
KINDS = (("ec", 256), ("ec", 384), ("rsa", 2048))


class Federation(RuleBasedStateMachine):
    """The machine; its model is what was ever handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.stage = Stage(Path(self.directory.name), leaf_ttl=LEAF_TTL).__enter__()
        self.cut: set[str] = set()
        self.rotations = 0
        self.issued: list[tuple[datetime, list[x509.Certificate]]] = []
        self.keys: dict[str, set[bytes]] = {name: set() for name in NAMES}
        self.domains: set[TrustDomain] = set()
        self.asked = 0

    def teardown(self) -> None:
        self.stage.__exit__(None, None, None)
        self.directory.cleanup()

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            self.stage.start(name)
        self.stage.tick(300)  # everybody joins, though the first attempts may have failed

    @precondition(lambda self: self.rotations < MOST_ROTATIONS)
    @rule(kind=st.sampled_from(KINDS))
    def rotate(self, kind: tuple[str, int]) -> None:
        if "dc1" in self.stage.sites:
            body = {"PrivateKeyType": kind[0], "PrivateKeyBits": kind[1]}
            self.stage.do(self.stage.sites["dc1"].put, ROTATE, body)
            self._rotated()

    @precondition(lambda self: self.rotations < MOST_ROTATIONS)
    @rule()
    def migrate(self) -> None:
        """To a root from elsewhere, key handed in."""
        if "dc1" in self.stage.sites:
            key = generate_key(KeyKind("ec", 256))
            config = {
                "PrivateKey": key_pem(key),
                "RootCert": certificate_pem(external_root(key, key_id=True)),
            }
            body = {"Provider": "consul", "Config": config}
            self.stage.do(self.stage.sites["dc1"].put, CONFIGURATION, body)
            self._rotated()

    def _rotated(self) -> None:
        self.rotations += 1
        self.stage.tick(0.001)

    @rule(name=st.sampled_from(NAMES))
    def cut_off(self, name: str) -> None:
        self.stage.do(_soon, self.stage.wan.cut, name)
        self.cut.add(name)

    @rule(name=st.sampled_from(NAMES))
    def heal(self, name: str) -> None:
        self.stage.do(_soon, self.stage.wan.heal, name)
        self.cut.discard(name)

    @rule(name=st.sampled_from(NAMES))
    def crash(self, name: str) -> None:
        if name in self.stage.sites:
            self.stage.crash(name)

    @rule(name=st.sampled_from(NAMES))
    def restart(self, name: str) -> None:
        if name not in self.stage.sites:
            self.stage.start(name)

    @rule(seconds=st.sampled_from((1, 30, 600, 4000, 20000)))
    def tick(self, seconds: float) -> None:
        self.stage.tick(seconds)

    @invariant()
    def holds(self) -> None:
        for name, site in self.stage.sites.items():
            self._issue(name, site)
        at = self.stage.do(_at)
        self.issued = [leaf for leaf in self.issued if leaf[1][0].not_valid_after_utc > at]
        bundles = {name: site.trust for name, site in self.stage.sites.items()}
        self.domains |= {trust.trust_domain for trust in bundles.values()}
        assert len(self.domains) <= 1
        for name, trust in bundles.items():
            store = crypto.X509Store()
            store.set_time(at)
            for root in trust.roots:
                store.add_cert(crypto.X509.from_cryptography(root.certificate))
            for issued_at, chain in self.issued:
                leaf, *pool = (crypto.X509.from_cryptography(step) for step in chain)
                try:
                    crypto.X509StoreContext(store, leaf, pool).verify_certificate()
                except crypto.X509StoreContextError as error:
                    what = f"{name} refuses {_who(chain[0])}, {at - issued_at} old: {error}"
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
        answer = self.stage.do(site.get, f"{LEAF}/web-{self.asked}")
        chain = x509.load_pem_x509_certificates(answer["CertPEM"].encode())
        signer = site.ca.signer().certificate
        assert chain[0].not_valid_after_utc <= signer.not_valid_after_utc, "a leaf outlives its issuer"
        chain[0].verify_directly_issued_by(signer)
        self.issued.append((self.stage.do(_at), chain))


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
    max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
