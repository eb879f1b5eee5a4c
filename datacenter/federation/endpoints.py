"""The endpoints for other datacenters: joining, signing, watching; and the service behind them.

The primary serves its federation under `/v1/internal/federation/`:

- `PUT join`: a secondary reports its name, the address at which others reach it ("" for none), how long its
leaves live and under which root it signs; again whenever one of them changes. - `GET state` (blocks): the
roots answer, every joined datacenter with its address, and how long the longest-lived leaf of all of them may
live. It needs no token, like the roots. - `PUT sign`: a secondary's certificate request becomes an
intermediate under the active root. The answer carries the roots of the same moment, so that a rotation in
between cannot separate the two. - `GET config-entries` (blocks): the source of replication.

All but `state` need operator:write, which the replication token has; with ACLs off every client that reaches
the HTTP API has it, as for all endpoints. No request or answer carries a key. `GET status` is served
everywhere: the state towards the primary, by a word and a reason, and when the certificate that signs leaves
here expires.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import trio
from cryptography import x509

from datacenter.ca.authority import ROOTS, CertificateAuthority
from datacenter.ca.certificates import RequestRefused
from datacenter.ca.retirement import longest_leaf_life, retire, take_report, take_request
from datacenter.ca.trust import timestamp
from datacenter.federation.replication import replicate
from datacenter.federation.secondary import Secondary, overdue, standing
from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import Fields, decode
from datacenter.http.forward import DATACENTERS
from datacenter.services.central_defaults import CONFIG_ENTRIES
from datacenter.state.acl import require
from datacenter.state.errors import ApiError

LONGEST_BETWEEN_PRUNINGS = 3600.0

_JOIN = Fields("Join", {"Datacenter": str, "Address": str, "LeafTTL": int, "RootID": str})
_SIGN = Fields("Sign", {"CSR": str, "Datacenter": str})
_PREFIX = "/v1/internal/federation"


def routes(dc: Datacenter) -> list[Route]:
    """Return every endpoint of this module."""
    return [
        Route("PUT", f"{_PREFIX}/join", partial(_join, dc), forwards=False),
        Route("GET", f"{_PREFIX}/state", partial(_state, dc), forwards=False),
        Route("PUT", f"{_PREFIX}/sign", partial(_sign, dc), forwards=False),
        Route("GET", f"{_PREFIX}/config-entries", partial(_config_entries, dc), forwards=False),
        Route("GET", f"{_PREFIX}/status", partial(_status, dc)),
    ]


async def run(dc: Datacenter, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Start the authority, prune its roots, and in a secondary follow the primary, until cancelled."""
    CertificateAuthority(dc).start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_retire, dc)
        if not dc.settings.is_primary:
            nursery.start_soon(Secondary(dc).follow)
            nursery.start_soon(replicate, dc)
        task_status.started()


async def _retire(dc: Datacenter) -> None:
    """Retire roots hourly as in Consul, more often if leaves live less than an hour."""
    ca = CertificateAuthority(dc)
    while True:
        retire(dc)
        await trio.sleep(min(LONGEST_BETWEEN_PRUNINGS, ca.config.leaf_ttl.total_seconds()))


async def _join(dc: Datacenter, request: Request) -> Reply:
    _require_primary(dc, request)
    body = decode(request.body, _JOIN)
    name, address = body.get("Datacenter", ""), body.get("Address", "")
    if not name or name == dc.settings.name:
        raise ApiError(400, f"a datacenter cannot join {dc.settings.name!r} under the name {name!r}")
    parts = urlsplit(address)
    if address and (parts.scheme not in {"http", "https"} or not parts.netloc):
        raise ApiError(400, f"not an HTTP address: {address!r}")
    take_report(
        dc,
        name,
        address=address,
        leaf_ttl=float(body.get("LeafTTL", 0)),
        root_id=body.get("RootID", ""),
    )
    return Reply(value={})


async def _state(dc: Datacenter, request: Request) -> Reply:  # noqa: ARG001  a handler takes a request
    _check_primary(dc)
    rows = dc.store.table(DATACENTERS).rows()
    value = {
        "Roots": CertificateAuthority(dc).answer(),
        "Datacenters": {row.key: row.value["Address"] for row in rows if row.value["Address"]},
        "LeafTTL": longest_leaf_life(dc).total_seconds(),
    }
    return Reply(value=value, topics=(ROOTS, DATACENTERS), meta=QueryMeta.PLAIN)


async def _sign(dc: Datacenter, request: Request) -> Reply:
    _require_primary(dc, request)
    ca = CertificateAuthority(dc)
    body = decode(request.body, _SIGN)
    name = body.get("Datacenter", "")
    try:
        csr = x509.load_pem_x509_csr(body.get("CSR", "").encode())
        await dc.csr_limit.wait(ca.config.csr_per_second)
        if name:
            take_request(dc, name)
        certificate = ca.sign_request(csr, dc.faults.intermediate_ttl if dc.faults else None)
    except ValueError as error:
        raise ApiError(400, "not a PEM certificate request") from error
    except RequestRefused as error:
        raise ApiError(400, f"signing refused: {error}") from error
    return Reply(value={"Certificate": certificate, "Roots": ca.answer()})


async def _config_entries(dc: Datacenter, request: Request) -> Reply:
    """Answer with all entries or none: a list filtered by rights would make the replica drop intentions."""
    _require_primary(dc, request)
    rows = dc.store.table(CONFIG_ENTRIES).rows()
    value = {"Entries": {row.key: row.value for row in rows}}
    return Reply(value=value, topics=(CONFIG_ENTRIES,), meta=QueryMeta.PLAIN)


async def _status(dc: Datacenter, request: Request) -> Reply:
    require(request.authorizer.operator_read())
    trust = CertificateAuthority(dc).trust
    value = {
        "Datacenter": dc.settings.name,
        "PrimaryDatacenter": dc.settings.primary_datacenter,
        "Datacenters": dc.federation.datacenters(),
        "ActiveRootID": trust.active.id if trust else "",
        "SigningKeyID": trust.active.signing_key_id if trust else "",
        "SigningNotAfter": timestamp(trust.active.signing_certificate.not_valid_after_utc) if trust else "",
        "Overdue": overdue(dc),
        **standing(dc),
    }
    return Reply(value=value)


def _require_primary(dc: Datacenter, request: Request) -> None:
    require(request.authorizer.operator_write())
    _check_primary(dc)


def _check_primary(dc: Datacenter) -> None:
    if not dc.settings.is_primary:
        raise ApiError(400, f"{dc.settings.name} is not the primary datacenter")
