"""Switches that break a datacenter on purpose, so that sidecars can be tested on it.

Only with `-enable-faults`: otherwise there is no such endpoint, and none of this code runs. In memory: a
restart resets everything. `PUT /v1/internal/faults` replaces all faults, and `{}` ends them:

    {"WanCut": true}                                 no other datacenter reaches this one, nor the reverse
    {"HungWatches": ["/v1/agent/connect/ca/leaf"]}   blocking reads below these paths never answer
    {"ClockSkewSeconds": -3600}                      our clock, and the Date of our answers
    {"Corrupt": "wrong_key"}                         leaf or roots answers as in `state.switches.Corruption`
    {"IntermediateSeconds": 30}                      in the primary: new intermediates expire this soon
    {"RevokedTokens": ["6f2a…"]}                     these secrets are unknown from now on
    {"FrozenReplication": true}                      in a secondary: config entries are not copied any more

`GET` shows the present faults, and of the secrets only their number.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.http.decode import Fields, decode
from datacenter.state.acl import require
from datacenter.state.errors import ApiError
from datacenter.state.switches import Corruption, Faults

PATH = "/v1/internal/faults"

_LOG = logging.getLogger(__name__)
_SHAPE = Fields(
    "Faults",
    {
        "WanCut": bool,
        "HungWatches": [str],
        "ClockSkewSeconds": float,
        "Corrupt": str,
        "IntermediateSeconds": float,
        "RevokedTokens": [str],
        "FrozenReplication": bool,
    },
)


def routes(dc: Datacenter) -> list[Route]:
    """Return the endpoint; none unless faults are enabled."""
    if dc.faults is None:
        return []
    return [
        Route("GET", PATH, partial(_read, dc, dc.faults), forwards=False),
        Route("PUT", PATH, partial(_write, dc, dc.faults), forwards=False),
    ]


async def _read(dc: Datacenter, faults: Faults, request: Request) -> Reply:  # noqa: ARG001  one form for both
    require(request.authorizer.operator_read())
    value: dict[str, object] = {
        "WanCut": faults.wan_cut,
        "HungWatches": list(faults.hung),
        "ClockSkewSeconds": faults.skew.total_seconds(),
        "Corrupt": faults.corrupt or "",
        "IntermediateSeconds": faults.intermediate_ttl.total_seconds() if faults.intermediate_ttl else 0,
        "RevokedTokens": len(faults.revoked),
        "FrozenReplication": faults.frozen,
    }
    return Reply(value=value)


async def _write(dc: Datacenter, faults: Faults, request: Request) -> Reply:
    require(request.authorizer.operator_write())
    body = decode(request.body, _SHAPE)
    seconds = float(body.get("IntermediateSeconds", 0))
    try:
        corrupt = Corruption(body["Corrupt"]) if body.get("Corrupt") else None
        skew = timedelta(seconds=float(body.get("ClockSkewSeconds", 0)))
        intermediate_ttl = timedelta(seconds=seconds) if seconds > 0 else None
    except (ValueError, OverflowError) as error:
        raise ApiError(400, f"no such fault: {error}") from error
    faults.set(
        wan_cut=bool(body.get("WanCut", False)),
        hung=tuple(body.get("HungWatches", ())),
        skew=skew,
        corrupt=corrupt,
        intermediate_ttl=intermediate_ttl,
        revoked=frozenset(body.get("RevokedTokens", ())),
        frozen=bool(body.get("FrozenReplication", False)),
    )
    _LOG.warning("faults of %s: %s", dc.settings.name, ", ".join(sorted(body)) or "none")
    return Reply()
