"""/v1/agent/metrics: the calls of each endpoint, their durations, and the reads that wait now.

The form and names are Consul's (`consul.api.http` by method and path, `consul.rpc.queries_blocking`), but the
numbers count from the start of the process. Consul reports ten seconds only, which do not show how many
questions a minute has; hence there is no rate. The lost lines of our log have a name of our own.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.state.acl import require
from datacenter.state.call_counts import Durations
from datacenter.state.errors import ApiError
from datacenter.state.store import Document

PATH = "/v1/agent/metrics"
_NO_PROMETHEUS = "Prometheus is not enabled since its retention time is not positive"


def routes(dc: Datacenter) -> list[Route]:
    """The route of this module."""
    return [Route("GET", PATH, partial(_metrics, dc), forwards=False)]


async def _metrics(dc: Datacenter, request: Request) -> Reply:
    require(request.authorizer.agent_read())
    if request.query.get("format") == "prometheus":
        raise ApiError(415, _NO_PROMETHEUS)
    gauges = [
        _gauge("consul.rpc.queries_blocking", dc.tally.held),
        _gauge("sidecar.datacenter.log_lines_lost", dc.lost_lines()),
    ]
    samples = [_sample(*called, durations) for called, durations in sorted(dc.tally.calls.items())]
    timestamp = dc.clock().strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    return Reply(
        value={"Timestamp": timestamp, "Gauges": gauges, "Points": [], "Counters": [], "Samples": samples}
    )


def _gauge(name: str, value: int) -> Document:
    return {"Name": name, "Value": value, "Labels": {}}


def _sample(method: str, path: str, durations: Durations) -> Document:
    return {
        "Name": "consul.api.http",
        "Count": durations.count,
        "Sum": durations.sum,
        "Min": durations.least,
        "Max": durations.most,
        "Mean": durations.mean,
        "Stddev": durations.deviation,
        "Labels": {"method": method, "path": path},
    }
