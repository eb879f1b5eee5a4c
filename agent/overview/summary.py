"""A summary of `/status` for a person: the headline, problems, then what there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.overview.headline import Health, few
from agent.overview.stations import Light, Paint

_LABEL = 12  # columns of the first word of a line
_HEALTH = {Health.OK: Light.GREEN, Health.DEGRADED: Light.AMBER, Health.FAILING: Light.RED}
_PROBLEMS = {
    "attention": Light.AMBER,
    "rejected": Light.RED,
    "failing": Light.AMBER,
    "churning": Light.RED,
    "clock": Light.AMBER,
}
NO_INSTANCE = "no instance"


def summary(document: Mapping[str, Any]) -> str:
    """Return the summary without colours."""
    return "\n".join(_lines(document))


def coloured(document: Mapping[str, Any], paint: Paint) -> str:
    """Return the summary with the headline, the problems and the names of lines painted."""
    first, *rest = _lines(document)
    health = Health(document.get("health", Health.OK if document["ready"] else Health.FAILING))
    return "\n".join((paint(first, _HEALTH[health]), *(_painted(line, paint) for line in rest)))


def _painted(line: str, paint: Paint) -> str:
    label, text = line[:_LABEL], line[_LABEL:]
    name = label.strip()
    if name in _PROBLEMS or text.endswith(NO_INSTANCE):
        return label + paint(text, _PROBLEMS.get(name, Light.RED))
    return (paint(label, Light.DARK) if name else label) + text


def _lines(document: Mapping[str, Any]) -> list[str]:
    credentials = document["credentials"] or {}
    return [
        _headline(document),
        *(f"attention   {one}" for one in document["complaints"] if one not in document.get("headline", "")),
        *_failing(document["watches"]),
        *_doubts(credentials),
        *_identity(credentials),
        *_public(document["public"]),
        *_tunnels(document.get("tunnels", ())),
        *(line for upstream in document["upstreams"] for line in upstream_lines(upstream)),
        *_endings(document["counters"]["endings"]),
    ]


def _headline(document: Mapping[str, Any]) -> str:
    """Return the agent's own headline; one of an older version has none."""
    if "headline" in document:
        return str(document["headline"])
    missing = "; ".join(document["missing"])
    return f"{document['phase']}, {'ready' if document['ready'] else f'not ready: {missing}'}"


def _failing(watches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each cause: several watches that fail alike, as in an outage of Consul, share one."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for watch in watches:
        if watch["failing"] is not None:
            path, _, cause = watch["failing"]["detail"].partition(": ")
            alike.setdefault(cause if path.startswith("/v1/") else watch["failing"]["detail"], []).append(
                watch
            )
    for cause, several in alike.items():
        since = min(one["failing"]["since"] for one in several)
        detail = several[0]["failing"]["detail"] if len(several) == 1 else cause
        yield f"failing     {few(one['name'] for one in several)} since {since}: {detail}"


def _doubts(credentials: Mapping[str, Any]) -> Iterator[str]:
    if credentials.get("churning"):
        yield f"churning    {credentials['churning']}"
    if credentials.get("clock_skew_notable"):
        skew = credentials["clock_skew_seconds"]
        yield f"clock       Consul's is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} ours"
    if credentials.get("rejected"):
        yield f"rejected    {credentials['rejected']['reason']}: {credentials['rejected']['detail']}"


def _identity(credentials: Mapping[str, Any]) -> Iterator[str]:
    if "id" in credentials:
        yield f"identity    {credentials['id']}"
        generation = f"generation {credentials['generation']}"
        yield f"leaf        {credentials['serial']} until {credentials['not_after']}, {generation}"
        yield f"roots       {_roots(credentials['roots'])}"


def _public(public: Mapping[str, Any] | None) -> Iterator[str]:
    if public is not None:
        yield f"public      {', '.join(public['addresses'])}, {public['live']} live"


def _tunnels(tunnels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each tunnel; an older agent does not count the streams."""
    for tunnel in tunnels:
        other = "to" if tunnel["direction"] == "outbound" else "from"
        streams = f"{tunnel.get('streams', '?')} streams, {tunnel.get('streams_opened', '?')} so far"
        generation = f"generation {tunnel.get('generation', '?')}"
        yield f"tunnel      {other} {tunnel['peer']} since {tunnel['since']}, {generation}, {streams}"


def _endings(endings: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for direction, counts in endings.items():
        text = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        yield f"{direction:11} {text or 'nothing yet'}"


def _roots(roots: Sequence[Mapping[str, Any]]) -> str:
    """Return how many roots are trusted, and the id of the one that signs leaves now, as Consul prints it."""
    active = ", ".join(root["id"] for root in roots if root["active"])
    return f"{len(roots)} trusted, active {active}"


def upstream_lines(upstream: Mapping[str, Any]) -> list[str]:
    """Return the lines of one upstream: its bind, the instances of each target, its warm connections."""
    listener = upstream["listener"] or {}
    problem = listener.get("problem")
    name = upstream.get("upstream") or upstream.get("destination")  # an older agent's word
    lines = [f"upstream    {name} on {upstream['bind']}{f': {problem}' if problem else ''}"]
    for target in upstream["targets"]:
        if len(upstream["targets"]) > 1:
            active = ", where new connections go" if target["target"] == upstream["active"] else ""
            lines.append(f"            {target['target']}{active}")
        lines += [f"              {line}" for line in _instance_lines(target)]
    lines += [f"              {line}" for line in _travel_lines(upstream["targets"])]
    warm = upstream.get("warm") or {}  # an older agent does not report it
    if warm.get("wanted"):
        given_up = "".join(f", {count} {reason}" for reason, count in sorted(warm["discarded"].items()))
        text = f"{len(warm['ready'])} of {warm['wanted']} ready, {warm['used']} used, {warm['missed']} missed"
        lines.append(f"              warm: {text}{given_up}")
    return lines


def _travel_lines(targets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how connections travel, one line if all alike; an older agent does not say it."""
    known: dict[str, list[str]] = {}
    for target in targets:
        for endpoint in target["endpoints"]:
            if said := endpoint.get("travel_says"):
                known.setdefault(said, []).append(endpoint["instance"])
    for said, instances in known.items():
        yield f"travels {said}" if len(known) == 1 else f"travels {said}: {few(instances)}"


def _instance_lines(target: Mapping[str, Any]) -> list[str]:
    if target["source"] is None:
        return ["Consul has not said where it is"]
    return [
        f"{endpoint['instance']} at {endpoint['address'] or 'no address'} ({endpoint['why']}),"
        f" {endpoint['status']}"
        for endpoint in target["endpoints"]
    ] or [NO_INSTANCE]
