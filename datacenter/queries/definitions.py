"""The stored form of prepared queries: shape, validation, templates.

See docs/consul-api.md#prepared-queries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from datacenter.http.decode import Fields, Mapped
from datacenter.state.durations import parse_duration
from datacenter.state.store import Document

QUERIES = "queries"  # table: ID -> definition

QUERY = Fields(
    "PreparedQuery",
    {
        "ID": str,
        "Name": str,
        "Session": str,
        "Token": str,
        "Template": Fields("QueryTemplateOptions", {"Type": str, "Regexp": str, "RemoveEmptyTags": bool}),
        "Service": Fields(
            "ServiceQuery",
            {
                "Service": str,
                "Failover": Fields("QueryDatacenterOptions", {"NearestN": int, "Datacenters": [str]}),
                "OnlyPassing": bool,
                "IgnoreCheckIDs": [str],
                "Near": str,
                "Tags": [str],
                "NodeMeta": Mapped(str),
                "ServiceMeta": Mapped(str),
                "Connect": bool,
            },
        ),
        "DNS": Fields("QueryDNSOptions", {"TTL": str}),
        "Datacenter": str,
        "CreateIndex": int,  # a client may send back what it has read
        "ModifyIndex": int,
    },
)

_UUID_LENGTH = 36
_VARIABLE = re.compile(
    r"\$\{\s*(?:(name\.full|name\.prefix|name\.suffix|agent\.segment)|match\((\d+)\))\s*\}"
)


class InvalidQuery(Exception):
    """The definition is refused with a 500 and this text."""


def normal_query(given: Document, identifier: str) -> Document:
    """Return the stored form, with every key. Raises InvalidQuery."""
    service, session = given.get("Service", {}), given.get("Session", "")
    if not (session or given.get("Name") or given.get("Template", {}).get("Type")):
        raise InvalidQuery("Invalid prepared query: Must be bound to a session")
    if not service.get("Service"):
        raise InvalidQuery("Invalid prepared query: Must provide a Service name to query")
    failover, template = service.get("Failover", {}), given.get("Template", {})
    nearest = failover.get("NearestN", 0)
    if nearest < 0:
        raise InvalidQuery(f"Invalid prepared query: Bad NearestN '{nearest}', must be >= 0")
    _check_ttl(given.get("DNS", {}).get("TTL", ""))
    _check_template(template)
    if session:
        # There are no sessions here, so no session is valid.
        why = f' "{session}"' if is_uuid(session) else ": index error: UUID must be 36 characters"
        raise InvalidQuery(f"raft apply failed: invalid session{why}")
    return {
        "ID": identifier,
        "Name": given.get("Name", ""),
        "Session": "",
        "Token": given.get("Token", ""),
        "Template": {"Type": "", "Regexp": "", "RemoveEmptyTags": False, **template},
        "Service": {
            "Service": service["Service"],
            "Failover": {"NearestN": nearest, "Datacenters": failover.get("Datacenters")},
            "OnlyPassing": service.get("OnlyPassing", False),
            "IgnoreCheckIDs": service.get("IgnoreCheckIDs"),
            "Near": service.get("Near", ""),
            "Tags": service.get("Tags"),
            "NodeMeta": service.get("NodeMeta"),
            "ServiceMeta": service.get("ServiceMeta"),
            "Connect": service.get("Connect", False),
        },
        "DNS": {"TTL": given.get("DNS", {}).get("TTL", "")},
    }


def is_uuid(text: str) -> bool:
    """Return whether the text has the form by which queries are looked up."""
    return len(text) == _UUID_LENGTH and all(text[place] == "-" for place in (8, 13, 18, 23))


def resolve(queries: Iterable[Document], name_or_id: str) -> Document | None:
    """Find by ID, else by name, else by the template with the longest matching prefix, filled in.

    In any case.
    """
    known, name = list(queries), name_or_id.lower()
    for query in known:
        if query["ID"] == name_or_id:
            return query
    for query in known:
        if query["Name"].lower() == name and not query["Template"]["Type"]:
            return query
    templates = [
        query for query in known if query["Template"]["Type"] and name.startswith(query["Name"].lower())
    ]
    if not templates:
        return None
    return _fill_in(max(templates, key=lambda query: len(query["Name"])), name_or_id)


def _fill_in(template: Document, name: str) -> Document:
    """Return the template's service with the variables in its texts replaced."""
    prefix, pattern = template["Name"], template["Template"]["Regexp"]
    match = re.search(pattern, name) if pattern else None
    named: dict[str, str] = {
        "name.full": name,
        "name.prefix": prefix,
        "name.suffix": name[len(prefix) :],
        "agent.segment": "",
    }

    def variable(found: re.Match[str]) -> str:
        if found[1]:
            return named[found[1]]
        number = int(found[2])
        if match is None or number > match.re.groups:
            return ""
        return str(match[number] or "")

    service = _map_texts(template["Service"], lambda text: _VARIABLE.sub(variable, text))
    if template["Template"]["RemoveEmptyTags"]:
        service["Tags"] = [tag for tag in service["Tags"] or [] if tag]
    return {**template, "Service": service}


def _map_texts(document: Document, change: Callable[[str], str]) -> Document:
    def changed(value: object) -> object:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [changed(item) for item in value]
        return _map_texts(value, change) if isinstance(value, dict) else value

    return {key: changed(value) for key, value in document.items()}


def _check_ttl(text: str) -> None:
    if not text:
        return
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidQuery(f"Invalid prepared query: Bad DNS TTL '{text}': {error}") from error
    if seconds < 0:
        raise InvalidQuery(f"Invalid prepared query: DNS TTL '{round(seconds * 1e9)}', must be >=0")


def _check_template(template: Document) -> None:
    kind = template.get("Type", "")
    if not kind:
        return
    if kind != "name_prefix_match":
        raise InvalidQuery(f"raft apply failed: failed compiling template: Bad Template.Type '{kind}'")
    try:
        re.compile(template.get("Regexp", ""))
    except re.error as error:
        where = "raft apply failed: failed compiling template: Bad Regexp"
        raise InvalidQuery(f"{where}: error parsing regexp: {error}") from error
