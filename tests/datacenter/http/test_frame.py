"""The frame: routing, shared parameters, blocking, forwarding, headers; with routes of the test's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from datacenter.http.context import QueryMeta, Reply, Request, Route
from datacenter.http.frame import FORWARDED, Frame, RawRequest
from datacenter.state.acl import require
from datacenter.state.settings import Policy, Token
from tests.datacenter.routed import answering, blocking_site, echo, site
from tests.datacenter.world import World, settings


async def test_path_parameters() -> None:
    served = site(
        Route("GET", "/v1/one/{name}", echo("params")), Route("GET", "/v1/rest/{name:path}", echo("params"))
    )
    assert await served.ok("GET", "/v1/one/a") == {"params": {"name": "a"}}
    assert await served.ok("GET", "/v1/rest/a/b") == {"params": {"name": "a/b"}}
    assert await served.ok("GET", "/v1/rest/") == {"params": {"name": ""}}
    assert (await served.call("GET", "/v1/one/a/b")).status == 404


async def test_an_unknown_path() -> None:
    reply = await site().call("GET", "/v1/nothing")
    assert (reply.status, reply.headers, reply.body) == (404, {}, b"")


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    served = site(
        Route("GET", "/v1/a", echo()),
        Route("PUT", "/v1/a", echo()),
        Route("GET", "/v1/b", echo(), allow="GET"),
    )
    reply = await served.call("DELETE", "/v1/a")
    assert (reply.status, reply.body, reply.headers["Allow"]) == (
        405,
        b"method DELETE not allowed",
        "OPTIONS,GET,PUT",
    )
    assert (await served.call("PUT", "/v1/b")).headers["Allow"] == "GET"
    options = await served.call("OPTIONS", "/v1/a")
    assert (options.status, options.headers["Allow"], options.body) == (200, "OPTIONS,GET,PUT", b"")


def test_a_route_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        site(Route("GET", "/v1/a", echo()), Route("GET", "/v1/a", echo()))


TOKENS: list[tuple[str, Mapping[str, str], str]] = [
    ("", {}, ""),
    ("", {"authorization": "Bearer b"}, "b"),
    ("", {"authorization": "bearer b"}, "b"),
    ("", {"authorization": "Basic b"}, ""),
    ("", {"x-consul-token": "h", "authorization": "Bearer b"}, "h"),
    ("?token=q", {"x-consul-token": "h", "authorization": "Bearer b"}, "q"),
    ("?token=", {"x-consul-token": "h"}, "h"),
]


@pytest.mark.parametrize(("query", "headers", "token"), TOKENS)
async def test_where_the_token_is_taken_from(query: str, headers: Mapping[str, str], token: str) -> None:
    reply = await site(Route("GET", "/v1/a", echo("token"))).call("GET", f"/v1/a{query}", None, headers)
    assert json.loads(reply.body) == {"token": token}


async def test_an_unknown_token_is_refused_where_rights_are_needed() -> None:
    async def guarded(request: Request) -> Reply:
        require(request.authorizer.operator_read())
        return Reply()

    tokens = (Token(secret="manager", policy=Policy(management=True)),)
    served = site(
        Route("GET", "/v1/open", echo()),
        Route("GET", "/v1/guarded", guarded),
        tokens=tokens,
        default_policy_allows=False,
    )
    assert (await served.call("GET", "/v1/open?token=x")).status == 200
    unknown = await served.call("GET", "/v1/guarded?token=x")
    assert (unknown.status, unknown.body) == (403, b"ACL not found")
    anonymous = await served.call("GET", "/v1/guarded")
    assert (anonymous.status, anonymous.body) == (403, b"Permission denied")
    assert (await served.call("GET", "/v1/guarded?token=manager")).status == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("index=abc", "Invalid index"),
        ("index=-1", "Invalid index"),
        (f"index={'9' * 4301}", "Invalid index"),
        ("index=٣", "Invalid index"),
        ("wait=10", "Invalid wait time"),
        ("wait=soon&index=abc", "Invalid wait time"),
        ("stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
        (
            "ns=",
            'Bad request: Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
        ),
    ],
)
async def test_mistaken_parameters(query: str, text: str) -> None:
    reply = await site(Route("GET", "/v1/a", echo())).call("GET", f"/v1/a?{query}")
    assert (reply.status, reply.body.decode()) == (400, text)


@pytest.mark.parametrize(("wait", "shortest"), [("", 300.0), ("0s", 300.0), ("10s", 10.0), ("2h", 600.0)])
async def test_waits_are_bounded_and_spread(wait: str, shortest: float) -> None:
    served = site(Route("GET", "/v1/a", echo("wait")))
    waits = [(await served.ok("GET", f"/v1/a?wait={wait}"))["wait"] for _ in range(50)]
    assert min(waits) >= shortest
    assert max(waits) <= shortest * 17 / 16
    assert len(set(waits)) > 1


async def test_the_index_is_never_0() -> None:
    served = site(Route("GET", "/v1/a", answering(Reply(value=1, index=0, meta=QueryMeta.INDEX))))
    assert (await served.call("GET", "/v1/a")).headers["X-Consul-Index"] == "1"


@pytest.mark.parametrize(
    ("query", "consistency"), [("", "leader"), ("?stale", "stale"), ("?consistent", "consistent")]
)
async def test_consistency_is_repeated(query: str, consistency: str) -> None:
    reply = await blocking_site().call("GET", f"/v1/things{query}")
    assert reply.headers["X-Consul-Effective-Consistency"] == consistency


async def test_the_streaming_backend_knows_no_leader() -> None:
    streaming = Reply(value=1, streaming=True, meta=QueryMeta.PLAIN)
    reply = await site(Route("GET", "/v1/a", answering(streaming))).call("GET", "/v1/a")
    assert reply.headers["X-Consul-Knownleader"] == "false"
    assert reply.headers["X-Consul-Query-Backend"] == "streaming"
    assert "X-Consul-Effective-Consistency" not in reply.headers


async def test_settings_show_in_every_reply() -> None:
    served = site(Route("GET", "/v1/a", echo()), translate_wan_addrs=True, default_policy_allows=False)
    for method, status in (("GET", 200), ("PUT", 405)):
        reply = await served.call(method, "/v1/a")
        assert reply.status == status
        assert reply.headers["X-Consul-Translate-Addresses"] == "true"
        assert reply.headers["X-Consul-Default-Acl-Policy"] == "deny"


async def test_json_is_escaped_as_go_escapes_it() -> None:
    served = site(Route("GET", "/v1/a", answering(Reply(value={"k": "<ü&>\u2028"}))))
    reply = await served.call("GET", "/v1/a")
    assert reply.body.decode() == '{"k":"\\u003cü\\u0026\\u003e\\u2028"}'
    assert reply.headers["Content-Type"] == "application/json"
    pretty = await served.call("GET", "/v1/a?pretty")
    assert pretty.body.decode().startswith('{\n    "k": ')


@pytest.mark.parametrize("value", ["text", b"text"])
async def test_text_is_sent_as_it_is(value: str | bytes) -> None:
    served = site(Route("GET", "/v1/a", answering(Reply(value=value, content_type="text/x"))))
    reply = await served.call("GET", "/v1/a")
    assert (reply.body, reply.headers["Content-Type"]) == (b"text", "text/x")


async def test_cached_reads_miss_once() -> None:
    served = site(Route("GET", "/v1/a", echo(), cached=True))
    first, second = [await served.call("GET", "/v1/a?cached") for _ in range(2)]
    plain = await served.call("GET", "/v1/a")
    assert first.headers["X-Cache"] == "MISS"
    assert (second.headers["X-Cache"], second.headers["Age"]) == ("HIT", "0")
    assert "X-Cache" not in plain.headers


async def test_the_memory_of_cached_reads_is_bounded() -> None:
    served = site(Route("GET", "/v1/a", echo(), cached=True))
    for number in range(1100):
        await served.call("GET", f"/v1/a?cached&n={number}")
    assert (await served.call("GET", "/v1/a?cached&n=0")).headers["X-Cache"] == "MISS"
    assert (await served.call("GET", "/v1/a?cached&n=1099")).headers["X-Cache"] == "HIT"


def federated(route: Route, **changes: Any) -> World:
    """Two datacenters that serve one route; dc2's answers name it."""
    world = World()
    for name in ("dc1", "dc2"):
        made = world.add(settings(name, **changes))
        made.frame = Frame(made.dc, [route])
    return world


async def named(request: Request) -> Reply:
    return Reply(value={"forwarded": request.forwarded, "body": request.body.decode(), **request.query})


async def test_dc_forwards() -> None:
    world = federated(Route("PUT", "/v1/a", named))
    assert await world.dc1.ok("PUT", "/v1/a?dc=dc2&x=y", "body") == {
        "forwarded": True,
        "body": "body",
        "x": "y",
    }
    assert (await world.dc1.ok("PUT", "/v1/a?dc=dc1", ""))["forwarded"] is False


async def test_an_agent_s_own_endpoint_stays_here() -> None:
    world = federated(Route("GET", "/v1/a", named, forwards=False))
    assert (await world.dc1.ok("GET", "/v1/a?dc=dc2"))["forwarded"] is False


def translated(answer: object) -> object:
    return {"translated": answer}


@pytest.mark.parametrize("setting", [True, False])
async def test_what_comes_from_elsewhere_is_translated_if_set(setting: bool) -> None:
    world = federated(Route("GET", "/v1/a", named, translate=translated), translate_wan_addrs=setting)
    assert ("translated" in await world.dc1.ok("GET", "/v1/a?dc=dc2")) is setting
    assert "translated" not in await world.dc1.ok("GET", "/v1/a")


async def test_who_asks_for_another_translates_itself() -> None:
    world = federated(Route("GET", "/v1/a", named, translate=translated), translate_wan_addrs=True)
    raw = RawRequest(method="GET", path="/v1/a", query="dc=dc2", headers={FORWARDED: "dc3"})
    assert "translated" not in json.loads((await world.dc1.frame.handle(raw)).body)
