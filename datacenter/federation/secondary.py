"""Follows the primary's authority, in a secondary datacenter.

See docs/consul-api.md#secondary-datacenters.

One loop: read the primary's state (blocking while there is nothing new); join, if this is the first answer
since the primary was out of reach; and when the active root is not the one we sign under, or our intermediate
has passed half its life, make a key, have it signed, and install intermediate, key and roots in one
transaction. Leaves change only then, with the signing key.

After every failure the last installed state goes on signing. An unreachable primary and a refusal are
distinguished, shown to operators, and retried with backoff. While the primary answers and refuses, its roots
are trusted here all the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from datacenter.ca.authority import CertificateAuthority
from datacenter.ca.certificates import RequestRefused, check_intermediate, intermediate_request
from datacenter.ca.keys import generate_key_aside
from datacenter.ca.retirement import take_listing
from datacenter.ca.trust import Trust, followed, past_half_life, signed, timestamp, trust_of_answer
from datacenter.federation.backoff import Backoff
from datacenter.http.context import Datacenter
from datacenter.http.forward import DATACENTERS
from datacenter.state.errors import ApiError

WATCH_SECONDS = 60

_PATIENCE = WATCH_SECONDS * 17 / 16 + 10  # the far side adds a jitter of a sixteenth
_TABLE = "federation"  # "primary" -> {"State", "Detail", "Since"}
_LOG = logging.getLogger(__name__)


class State(StrEnum):
    """The state towards the primary."""

    NEVER_JOINED = "never_joined"
    JOINED = "joined"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    BAD_ANSWER = "bad_answer"
    PRIMARY = "primary"  # this datacenter is the primary


class BadAnswer(Exception):
    """The primary's answer has the wrong shape."""


@contextmanager
def _as_bad_answer() -> Iterator[None]:
    """Raise BadAnswer for what decoding raises about an answer of another shape."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswer(f"{type(error).__name__}: {error}") from error


def standing(dc: Datacenter) -> dict[str, str]:
    """Return `State`, `Detail` and `Since` as noted last."""
    if dc.settings.is_primary:
        return {"State": State.PRIMARY, "Detail": "", "Since": ""}
    row = dc.store.table(_TABLE).get("primary")
    return dict(row.value) if row else {"State": State.NEVER_JOINED, "Detail": "", "Since": ""}


def overdue(dc: Datacenter) -> str:
    """Return a warning about an intermediate that should have been renewed; empty without a cause."""
    trust = CertificateAuthority(dc).trust
    if dc.settings.is_primary or trust is None:
        return ""
    certificate, now = trust.active.signing_certificate, dc.clock()
    if not past_half_life(certificate, now):
        return ""
    end = certificate.not_valid_after_utc
    if now >= end:
        return f"the intermediate certificate ended at {timestamp(end)}: no leaf can be signed"
    return f"the intermediate certificate ends at {timestamp(end)} and is not renewed: no leaf outlives it"


class Secondary:
    """The secondary's side of the federation."""

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc
        self._ca = CertificateAuthority(dc)
        self._reported: dict[str, Any] | None = (
            None  # since it was last out of reach: it may have forgotten us
        )
        self._feared = ""  # of our intermediate, as last logged

    async def follow(self) -> None:
        """Follow the primary until cancelled."""
        backoff, index = Backoff(self._dc.rng), 0
        while True:
            try:
                index = await self._round(index)
            except ApiError as error:
                refused = error.status in {400, 403, 429}
                self._note(State.REFUSED if refused else State.UNREACHABLE, error.text)
            except (BadAnswer, RequestRefused) as error:
                self._note(State.BAD_ANSWER, str(error))
            else:
                self._note(State.JOINED, "")
                backoff.reset()
                continue
            self._reported, index = None, 0
            self._fear()
            await trio.sleep(backoff.next())

    async def _round(self, index: int) -> int:
        """Handle one answer of the primary; return the index to continue from."""
        path = f"state?index={index}&wait={WATCH_SECONDS}s"
        state, new_index = await self._ask("GET", path)
        with _as_bad_answer():
            theirs = trust_of_answer(state["Roots"])
            addresses = {str(name): str(address) for name, address in state["Datacenters"].items()}
            take_listing(self._dc, [root.id for root in theirs.roots], float(state.get("LeafTTL", 0)))
        self._learn_addresses(addresses)
        try:
            await self._report()
            if self._must_be_signed(theirs):
                await self._renew(theirs)
                return 0  # the report's answer may be newer than the one we waited for
        finally:
            self._trust_more(theirs)
        return new_index

    async def _report(self) -> None:
        """Join, or report a change: the primary keeps a root for as long as its leaves may be valid."""
        settings, ours = self._dc.settings, self._ca.trust
        report = {
            "Datacenter": settings.name,
            "Address": settings.advertise_addr,  # "": a unix socket alone is not reachable for others
            "LeafTTL": math.ceil(self._ca.leaf_life.total_seconds()),
            "RootID": ours.active.id if ours is not None else "",
        }
        if report != self._reported:
            await self._ask("PUT", "join", report)
            self._reported = report

    def _must_be_signed(self, theirs: Trust) -> bool:
        ours = self._ca.trust
        if ours is None or ours.trust_domain != theirs.trust_domain or ours.active.id != theirs.active.id:
            return True
        return past_half_life(ours.active.signing_certificate, self._dc.clock())

    async def _renew(self, theirs: Trust) -> None:
        """Make a key, have the primary sign its intermediate, and install both; the key stays here."""
        key = await generate_key_aside(self._ca.config.kind)
        request = intermediate_request(key, trust_domain=theirs.trust_domain)
        csr = request.public_bytes(serialization.Encoding.PEM).decode()
        answer, _ = await self._ask("PUT", "sign", {"CSR": csr, "Datacenter": self._dc.settings.name})
        with _as_bad_answer():
            theirs = trust_of_answer(answer["Roots"])
            pem = str(answer["Certificate"])
            certificate = x509.load_pem_x509_certificate(pem.encode())
        check_intermediate(certificate, key, theirs.active.certificate, theirs.trust_domain)
        self._ca.install(signed(self._ca.trust, theirs, pem, self._dc.clock()), key)
        if self._must_be_signed(theirs):
            raise BadAnswer("the intermediate certificate has less than half of its life before it")
        _LOG.info("intermediate installed under root %s of %s", theirs.active.id, theirs.trust_domain)

    def _trust_more(self, theirs: Trust) -> None:
        ours = self._ca.trust
        if ours is not None:
            self._ca.trust_more(followed(ours, theirs, self._dc.clock()))

    def _learn_addresses(self, addresses: Mapping[str, str]) -> None:
        """Note every datacenter's address as the primary knows it; the primary's as we reach it."""
        settings, table = self._dc.settings, self._dc.store.table(DATACENTERS)
        known = {**addresses, settings.primary_datacenter: self._primary}
        with self._dc.store.transaction():
            for name, address in known.items():
                row = table.get(name)
                if name != settings.name and (row is None or row.value["Address"] != address):
                    table.put(name, {"Address": address})

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], int]:
        """Call the primary with the replication token. Raises ApiError, BadAnswer."""
        with _as_bad_answer():
            answer = await self._dc.forwarder.call(
                method,
                f"{self._primary}/v1/internal/federation/{path}",
                body=body,
                token=self._dc.settings.replication_token,
                patience=_PATIENCE,
            )
        if not isinstance(answer.value, dict):
            raise BadAnswer("the primary did not answer with an object")
        return answer.value, max(answer.index, 1)  # 0 would not block

    @property
    def _primary(self) -> str:
        return (self._dc.settings.primary_addr or "").rstrip("/")

    def _fear(self) -> None:
        """Log once that the intermediate is overdue, and once that it has expired."""
        fear = overdue(self._dc)
        if fear and fear != self._feared:
            _LOG.warning(fear)
        self._feared = fear

    def _note(self, state: State, detail: str) -> None:
        """Remember and log a change of the state."""
        before = standing(self._dc)
        if (before["State"], before["Detail"]) == (state, detail):
            return
        level = logging.INFO if state is State.JOINED else logging.WARNING
        _LOG.log(level, "primary %s: %s %s", self._dc.settings.primary_datacenter, state, detail)
        since = timestamp(self._dc.clock())
        self._dc.store.table(_TABLE).put("primary", {"State": state, "Detail": detail, "Since": since})
