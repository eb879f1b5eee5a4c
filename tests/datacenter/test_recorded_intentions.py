"""Intentions, authorize and config entries, held to the recordings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datacenter.joined import caught_up, joined
from tests.datacenter.replay import Case, replay
from tests.datacenter.world import (
    DB,
    MANAGEMENT,
    READ_ONLY,
    WEB,
    WEB_ONLY,
    World,
    world_a,
    world_b,
)

INTENTIONS = "/v1/connect/intentions"
EXACT = f"{INTENTIONS}/exact"
MATCH = f"GET {INTENTIONS}/match"
CONFIG = "/v1/config"
PUT_EXACT = f"PUT {EXACT}"
DOMAIN = "spiffe://e66dada9-21f6-30ae-92df-bd86e9e7af6b.consul"
WEB_URI = f"{DOMAIN}/ns/default/dc/dc1/svc/web"

RECORDED_ID = "d8a4c2bd-ea6b-bf8b-5107-6c98e2cf1daa"
DENY, ALLOW = {"Action": "deny"}, {"Action": "allow"}
LEGACY = {
    "SourceName": "web",
    "DestinationName": "db",
    "SourceType": "consul",
    "Action": "allow",
    "Description": "d",
    "Meta": {"k": "v"},
}
HEADERS = [
    {"Name": "x-a", "Exact": "1"},
    {"Name": "x-b", "Present": True, "Invert": True},
    {"Name": "x-c", "Regex": "^v[0-9]+$"},
    {"Name": "x-d", "Prefix": "p"},
    {"Name": "x-e", "Suffix": "s"},
]
PERMISSIONS = [
    {"Action": "deny", "HTTP": {"PathExact": "/admin"}},
    {"Action": "allow", "HTTP": {"PathPrefix": "/api", "Methods": ["get", "HEAD"], "Header": HEADERS}},
    {"Action": "allow", "HTTP": {"PathRegex": "/re/.*"}},
]
L7 = {
    "Kind": "service-intentions",
    "Name": "httpsvc",
    "Sources": [
        {"Name": "web", "Description": "l7", "Permissions": PERMISSIONS},
        {"Name": "*", "Action": "deny"},
    ],
}
SPEAKS_HTTP = {"Kind": "service-defaults", "Name": "httpsvc", "Protocol": "http"}
PROXY_DEFAULTS = {
    "Kind": "proxy-defaults",
    "Name": "global",
    "Config": {"protocol": "http", "local_connect_timeout_ms": 1234},
    "MeshGateway": {"Mode": "local"},
}


def one_permission(http: dict[str, Any], name: str = "httpsvc") -> dict[str, Any]:
    """A service-intentions entry with one HTTP permission."""
    permissions = [{"Action": "deny", "HTTP": http}]
    return {
        "Kind": "service-intentions",
        "Name": name,
        "Sources": [{"Name": "web", "Permissions": permissions}],
    }


async def _put(world: World, path: str, body: object) -> None:
    await world.dc1.ok("PUT", path, body, token=MANAGEMENT)


async def _exact(world: World, source: str, destination: str, **body: object) -> None:
    await _put(world, f"{EXACT}?source={source}&destination={destination}", body)


async def legacy(world: World) -> None:
    """web -> db, made through the legacy endpoint; db's leaf and the like are not needed."""
    await joined(world)
    await world.dc1.ok("POST", INTENTIONS, LEGACY, token=MANAGEMENT)


async def recorded_legacy(world: World) -> None:
    """As `legacy`, under the ID it was given when it was recorded."""
    await legacy(world)
    table = world.dc1.dc.store.table("config_entries")
    row = table.get("service-intentions/db")
    assert row is not None
    table.put(row.key, {**row.value, "Sources": [{**row.value["Sources"][0], "LegacyID": RECORDED_ID}]})


async def http_service(world: World) -> None:
    await joined(world)
    await _put(world, CONFIG, SPEAKS_HTTP)


async def wildcards(world: World) -> None:
    """Rules of the two forms that hold for every destination."""
    await joined(world)
    await _exact(world, "web", "*", Action="deny")
    await _exact(world, "*", "*", Action="allow")


async def l7(world: World) -> None:
    """The wildcards, and HTTP permissions for httpsvc."""
    await wildcards(world)
    await _put(world, CONFIG, SPEAKS_HTTP)
    await _put(world, CONFIG, L7)


async def every_form(world: World) -> None:
    """As `l7`, and three rules for db; dc2 has its copy."""
    await l7(world)
    await _exact(world, "web", "db", Action="allow", Description="d")
    await _exact(world, "*", "db", Action="deny")
    await _exact(world, "viasec", "db", Action="allow")
    await caught_up(world)


async def for_db_only(world: World) -> None:
    await joined(world)
    await _exact(world, "web", "db", Action="allow", Description="d")
    await _exact(world, "*", "db", Action="deny")
    await _exact(world, "viasec", "db", Action="allow")
    await caught_up(world)
    world.down.add("dc1")


async def web_may_call_db(world: World) -> None:
    await joined(world)
    await _exact(world, "web", "db", Action="allow", Description="d")


async def web_may_call_zzz(world: World) -> None:
    await _exact(world, "web", "zzz", Action="allow")


async def legacy_and_l7(world: World) -> None:
    """What `config-service-intentions-list` shows: one entry of each making."""
    await l7(world)
    await world.dc1.ok("POST", INTENTIONS, LEGACY, token=MANAGEMENT)


async def asked(world: World) -> None:
    """db's intentions are in the agent's cache."""
    body = {"Target": "db", "ClientCertURI": WEB_URI, "ClientCertSerial": "01"}
    token = "" if world.dc1.dc.settings.default_policy_allows else DB
    for site in (world.dc1, world.dc2):
        await site.ok("POST", "/v1/agent/connect/authorize", body, token=token)


async def asked_before(world: World) -> None:
    await joined(world)
    await asked(world)


async def legacy_asked_before(world: World) -> None:
    await legacy(world)
    await asked(world)


async def denied(world: World) -> None:
    """In B, web may not call db; dc2 knows."""
    await joined(world)
    await _exact(world, "web", "db", Action="deny")
    await caught_up(world)
    await asked(world)


async def proxy_defaults(world: World) -> None:
    await joined(world)
    await _put(world, CONFIG, {**PROXY_DEFAULTS, "Config": {**PROXY_DEFAULTS["Config"], "extra": "x"}})  # type: ignore[dict-item]


def a(recording: str, request: str, token: str = MANAGEMENT, **more: Any) -> Case:
    fields = {"before": joined, "by_shape": frozenset({"Hash"}), **more}
    return Case(recording=recording, world=world_a, request=request, token=token, **fields)


def put(recording: str, source: str, destination: str, body: object, **more: Any) -> Case:
    return a(recording, f"{PUT_EXACT}?source={source}&destination={destination}", body=body, **more)


def entry(recording: str, body: object, **more: Any) -> Case:
    return a(recording, f"PUT {CONFIG}", body=body, **more)


def authorize(recording: str, uri: str = WEB_URI, token: str = DB, **more: Any) -> Case:
    target = more.pop("target", "db")
    body = more.pop("body", {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "01"})
    fields = {"world": world_a, "before": legacy_asked_before, **more}
    path = "POST /v1/agent/connect/authorize"
    return Case(recording=recording, request=path, token=token, body=body, **fields)


DC2: dict[str, Any] = {"at": "dc2"}
CASES = [
    # legacy endpoints
    a("intention-create-legacy", f"POST {INTENTIONS}", body=LEGACY),
    a("intention-create-legacy-dup", f"POST {INTENTIONS}", body={**LEGACY, "Action": "deny"}, before=legacy),
    # with the recorded ID, so that even the hash is the recorded one
    a("intention-get-id", f"GET {INTENTIONS}/{RECORDED_ID}", before=recorded_legacy, by_shape=frozenset()),
    a("intention-get-unknown-id", f"GET {INTENTIONS}/11111111-2222-3333-4444-555555555555"),
    a("intention-list", f"GET {INTENTIONS}", before=legacy),
    a("intention-list-anonymous", f"GET {INTENTIONS}", "", before=legacy),
    a("intention-list-secondary", f"GET {INTENTIONS}", before=every_form, **DC2),
    # exact
    a("intention-exact", f"GET {EXACT}?source=web&destination=db", before=legacy),
    a("intention-exact-404", f"GET {EXACT}?source=nope&destination=db", before=legacy),
    a("intention-exact-noparams", f"GET {EXACT}"),
    put("intention-put-exact", "web", "db", {"Action": "allow", "Description": "d"}),
    put("intention-put-exact-onlegacy", "api", "db", DENY, before=legacy),
    put("intention-put-wild", "*", "db", DENY),
    put("intention-put-wild-onlegacy", "*", "db", DENY, before=legacy),
    put("intention-put-wild-dest", "web", "*", DENY),
    put("intention-put-wildwild", "*", "*", ALLOW),
    put("intention-put-partial-wild", "web*", "db", DENY, before=web_may_call_db),
    put("intention-put-partial-wild-onlegacy", "web*", "db", DENY, before=legacy),
    put("intention-put-both", "web", "db2", {**DENY, "Permissions": PERMISSIONS[1:]}),
    put("intention-put-l7-on-tcp", "web", "httpsvc", {"Permissions": PERMISSIONS[1:]}),
    put("intention-put-denied", "web", "db", DENY, token=READ_ONLY),
    put("intention-put-secondary", "viasec", "db", ALLOW, **DC2),
    put("intention-put-secondary-onlegacy", "viasec", "db", ALLOW, before=legacy, **DC2),
    Case(
        recording="intention-put-allow-off",
        world=world_b,
        request=f"{PUT_EXACT}?source=web&destination=db",
        body=DENY,
        before=joined,
    ),
    a("intention-delete-exact", f"DELETE {EXACT}?source=web&destination=db", before=legacy),
    a("intention-delete-exact-again", f"DELETE {EXACT}?source=web&destination=db"),
    # match
    a("intention-match-dest", f"{MATCH}?by=destination&name=db", DB, before=legacy),
    a("intention-match-source", f"{MATCH}?by=source&name=web", WEB, before=legacy),
    a("intention-match-two", f"{MATCH}?by=destination&name=db&name=web", before=legacy),
    a("intention-match-empty", f"{MATCH}?by=destination&name=zzz", before=legacy),
    a("intention-match-unknown-dest", f"{MATCH}?by=destination&name=zzz", before=every_form),
    a("intention-match-dest-precedence", f"{MATCH}?by=destination&name=db", DB, before=every_form),
    a("intention-match-secondary", f"{MATCH}?by=destination&name=db", DB, before=every_form, **DC2),
    a("intention-match-l7", f"{MATCH}?by=destination&name=httpsvc", before=l7),
    a("intention-match-badby", f"{MATCH}?by=xx&name=db"),
    a("intention-match-noname", f"{MATCH}?by=destination"),
    a("intention-match-acl-denied", f"{MATCH}?by=destination&name=db", WEB_ONLY),
    a(
        "intention-match-blocking-change",
        f"{MATCH}?by=destination&name=zzz&index=999&wait=30s",
        during=web_may_call_zzz,
    ),
    a(
        "outage-primary-secondary-match",
        f"{MATCH}?by=destination&name=db",
        DB,
        before=for_db_only,
        **DC2,
    ),
    put("outage-primary-secondary-intention-write", "x", "db", ALLOW, before=for_db_only, **DC2),
    # check
    a("intention-check-allow", f"GET {INTENTIONS}/check?source=web&destination=db", before=legacy),
    a("intention-check-deny", f"GET {INTENTIONS}/check?source=zzz&destination=db", before=legacy),
    a("intention-check-l7", f"GET {INTENTIONS}/check?source=web&destination=httpsvc", before=l7),
    a("intention-check-missing", f"GET {INTENTIONS}/check?source=web"),
    a("intention-check-denied-acl", f"GET {INTENTIONS}/check?source=web&destination=db", ""),
    # authorize
    authorize("authorize-default-deny", before=joined),
    authorize("authorize-allow"),
    authorize("authorize-allow-other-dc", f"{DOMAIN}/ns/default/dc/dc2/svc/web"),
    authorize("authorize-allow-foreign-trust-domain", "spiffe://other.consul/ns/default/dc/dc2/svc/web"),
    authorize("authorize-unknown-source", f"{DOMAIN}/ns/default/dc/dc1/svc/other"),
    authorize("authorize-case", f"{DOMAIN}/ns/default/dc/dc1/svc/WEB"),
    authorize("authorize-other-ns", f"{DOMAIN}/ns/foo/dc/dc1/svc/web"),
    authorize("authorize-partition-uri", f"{DOMAIN}/ap/default/ns/default/dc/dc1/svc/web"),
    authorize("authorize-agent-uri", f"{DOMAIN}/agent/client/dc/dc1/id/n1"),
    authorize("authorize-bad-uri", "x/y"),
    authorize("authorize-bad-json", body="{"),
    authorize("authorize-no-target", target=""),
    authorize("authorize-acl-denied", token=WEB_ONLY),
    authorize("authorize-l7-deny", token=MANAGEMENT, target="httpsvc", before=l7),
    a("authorize-wrong-method", "GET /v1/agent/connect/authorize", DB),
    authorize("authorize-default-allow", token="", world=world_b, before=asked_before),
    authorize("authorize-first", token="", world=world_b, before=asked_before),
    authorize("authorize-deny-intention", token="", world=world_b, before=denied),
    authorize("authorize-secondary", token="", world=world_b, before=denied, **DC2),
    # config entries
    entry("config-service-defaults-put", SPEAKS_HTTP),
    a("config-service-defaults-get", f"GET {CONFIG}/service-defaults/httpsvc", before=http_service),
    a("config-service-defaults-404", f"GET {CONFIG}/service-defaults/nope", before=http_service),
    a("config-service-defaults-change-denied", f"DELETE {CONFIG}/service-defaults/httpsvc", before=l7),
    entry("config-proxy-defaults-put", PROXY_DEFAULTS),
    entry("config-proxy-defaults-put-badname", {"Kind": "proxy-defaults", "Name": "x"}),
    a("config-proxy-defaults-get", f"GET {CONFIG}/proxy-defaults/global", before=proxy_defaults),
    a("config-proxy-defaults-404", f"GET {CONFIG}/proxy-defaults/global", before=http_service),
    a("config-proxy-defaults-delete", f"DELETE {CONFIG}/proxy-defaults/global", before=proxy_defaults),
    entry("config-service-intentions-l7-put", L7, before=http_service),
    a("config-service-intentions-get", f"GET {CONFIG}/service-intentions/httpsvc", before=l7),
    a("config-service-intentions-404", f"GET {CONFIG}/service-intentions/nope", before=l7),
    a("config-service-intentions-denied", f"GET {CONFIG}/service-intentions/httpsvc", "", before=l7),
    a("config-service-intentions-list", f"GET {CONFIG}/service-intentions", before=legacy_and_l7),
    entry("config-service-intentions-bad-empty", one_permission({}), before=http_service),
    entry("config-service-intentions-bad-relative", one_permission({"PathExact": "x"}), before=http_service),
    entry(
        "config-service-intentions-bad-two-paths",
        one_permission({"PathExact": "/admin", "PathPrefix": "/"}),
        before=http_service,
    ),
    entry("config-service-intentions-bad-wild-l7", one_permission({"PathExact": "/x"}, name="*")),
    a("config-badkind", f"GET {CONFIG}/nope/x"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_recorded(case: Case, autojump_clock: object) -> None:
    await replay(case)
