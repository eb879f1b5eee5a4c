"""Typed calls to a Consul agent, and what their failures mean (docs/consul-api.md#requests)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.consul.api import CALL_SECONDS, Blocking, Consul
from agent.consul.errors import MAX_TEXT, ConsulError, ConsulReason, classify
from agent.consul.http import Client, Request, Response
from agent.consul.token import TokenSource
from tests.support.fake_consul import FakeConsul, Scripted
from upstreams.spec import QueryDestination, ServiceDestination

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
HEALTH = "/v1/health/connect/db"
MATCH = "/v1/connect/intentions/match"
QUERY = "/v1/query/q/execute"
FILTERED = "X-Consul-Results-Filtered-By-ACLs"


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (403, "Permission denied", ConsulReason.DENIED),
        (403, "ACL not found", ConsulReason.DENIED),
        (401, "", ConsulReason.DENIED),
        (404, "unknown service ID: x", ConsulReason.NOT_FOUND),
        (429, "Rate limit reached, try again later", ConsulReason.RATE_LIMITED),
        (500, "No cluster leader", ConsulReason.UNAVAILABLE),
        (500, "rpc error making call: Permission denied", ConsulReason.DENIED),
        (500, "rpc error making call: ACL not found", ConsulReason.DENIED),
        (503, "", ConsulReason.UNAVAILABLE),
        (400, "Invalid index", ConsulReason.MALFORMED),
        (405, "method GET not allowed", ConsulReason.MALFORMED),
        (302, "", ConsulReason.MALFORMED),
    ],
)
def test_what_an_error_answer_means(status: int, text: str, reason: ConsulReason) -> None:
    assert classify(status, text) is reason


@pytest.mark.parametrize(
    ("at", "params", "seconds"),
    [
        (Blocking(), {}, CALL_SECONDS),
        (Blocking(wait=60), {}, CALL_SECONDS),
        (Blocking(index=7, wait=60), {"index": "7", "wait": "60s"}, 60 * 17 / 16 + 10),
        (Blocking(content_hash="abc", wait=1.5), {"hash": "abc", "wait": "1.5s"}, 1.5 * 17 / 16 + 10),
    ],
)
def test_where_a_question_goes_on_from(at: Blocking, params: dict[str, str], seconds: float) -> None:
    assert at.params == params
    assert at.seconds == seconds


async def test_an_answer_comes_with_its_position(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer(ROOTS, {"TrustDomain": "x"}, index=7, policy="deny")
    answer = await scripted.client(nursery).roots()
    assert (answer.value, answer.index, answer.default_policy) == ({"TrustDomain": "x"}, 7, "deny")


@pytest.mark.parametrize(("said", "filtered"), [({}, False), ({FILTERED: "true"}, True)])
async def test_a_list_that_acls_have_shortened_says_so(
    nursery: trio.Nursery, said: dict[str, str], filtered: bool
) -> None:
    scripted = FakeConsul()
    for path, empty in ((HEALTH, b"[]"), (MATCH, b'{"web": null}'), (QUERY, b"{}")):
        scripted.say(path, Scripted(body=empty, headers=said))
    consul = scripted.client(nursery)
    assert (await consul.endpoints(ServiceDestination("db"))).filtered is filtered
    assert (await consul.intentions("web")).filtered is filtered
    assert (await consul.execute(QueryDestination("q"))).filtered is filtered


async def test_a_registration_is_asked_for_by_hash(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer("/v1/agent/service/web-sidecar-proxy", {"ID": "x"}, content_hash="abc")
    answer = await scripted.client(nursery).service(
        "web-sidecar-proxy", Blocking(content_hash="old", wait=60)
    )
    assert (answer.content_hash, answer.index) == ("abc", None)
    assert scripted.asked[0].query == {"hash": "old", "wait": "60s"}


async def test_names_are_one_segment_of_the_path(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    with pytest.raises(ConsulError):
        await scripted.client(nursery).service("a/b?c#d")
    assert scripted.asked[0].path == "/v1/agent/service/a%2Fb%3Fc%23d"


ODD = "a/b c#d?e%f&g+h=i"
ENCODED = "a%2Fb%20c%23d%3Fe%25f%26g%2Bh%3Di"


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda consul: consul.service(ODD), f"/v1/agent/service/{ENCODED}"),
        (lambda consul: consul.deregister(ODD), f"/v1/agent/service/deregister/{ENCODED}"),
        (
            lambda consul: consul.update_check(f"service:{ODD}", "", passing=True),
            f"/v1/agent/check/update/service%3A{ENCODED}",
        ),
    ],
)
async def test_an_id_is_percent_encoded_in_a_path(
    nursery: trio.Nursery, ask: Callable[[Consul], Awaitable[object]], path: str
) -> None:
    scripted = FakeConsul()
    with pytest.raises(ConsulError):
        await ask(scripted.client(nursery))
    assert scripted.asked[0].path == path


async def test_an_id_is_percent_encoded_in_a_query(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    with pytest.raises(ConsulError):
        await scripted.client(nursery).proxies_of(ODD)
    asked = scripted.asked[0]
    assert asked.query["filter"].endswith(f'Proxy.DestinationServiceID == "{ODD}"')


@pytest.mark.parametrize("service_id", ['a`"', "a`\\"])
async def test_an_id_that_no_filter_can_hold_is_looked_for_in_the_whole_list(
    nursery: trio.Nursery, service_id: str
) -> None:
    scripted = FakeConsul()
    with pytest.raises(ConsulError):
        await scripted.client(nursery).proxies_of(service_id)
    assert (scripted.asked[0].path, dict(scripted.asked[0].query)) == ("/v1/agent/services", {})


@pytest.mark.parametrize(
    ("at", "index", "took", "age"),
    [
        (Blocking(), "7", 10, 10),  # dated at any time since the question
        (Blocking(index=7, wait=60), "7", 63, 3),  # Consul has held the question for all the wait
        (Blocking(index=7, wait=60), "8", 63, 63),  # answered when something changed, nobody knows when
        (Blocking(index=7, wait=60), "7", 20, 20),  # a server that went away
    ],
)
async def test_how_old_the_date_of_an_answer_can_be(
    autojump_clock: MockClock, at: Blocking, index: str, took: float, age: float
) -> None:
    headers = {"X-Consul-Index": index, "Date": "Sun, 22 Nov 2026 20:40:58 GMT"}

    class Slow(Client):
        async def exchange(self, request: Request, seconds: float) -> Response:
            await trio.sleep(took)
            return Response(
                status=200, headers={name.lower(): text for name, text in headers.items()}, body=b"{}"
            )

    async def never() -> trio.abc.Stream:
        raise AssertionError

    consul = Consul(Slow(never, host="consul"), TokenSource(None, None))
    dates: list[tuple[str, float]] = []
    consul.on_date = lambda date, oldest: dates.append((date, oldest))
    await consul.roots(at)
    assert dates == [(headers["Date"], age)]


async def test_a_leaf_and_its_key_are_not_shown(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer(LEAF, {"CertPEM": "cert-text", "PrivateKeyPEM": "key-text", "Other": 1}, index=3)
    answer = await scripted.client(nursery).leaf("web")
    assert (answer.value.cert_pem, answer.value.private_key_pem) == ("cert-text", "key-text")
    assert "key-text" not in repr(answer) + repr(answer.value) + str(answer.value)


async def test_the_intentions_of_one_destination(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    path = "/v1/connect/intentions/match"
    scripted.answer(path, {"db": None}, index=2, policy="deny")
    scripted.answer(path, {"db": [{"SourceName": "web"}]}, index=3)
    client = scripted.client(nursery)
    first, second = await client.intentions("db"), await client.intentions("db")
    assert (first.value, first.index, first.default_policy) == (None, 2, "deny")
    assert second.value is not None
    assert [msgspec.json.decode(one) for one in second.value] == [{"SourceName": "web"}]
    assert scripted.asked[0].query == {"by": "destination", "name": "db"}


async def test_registering_updating_and_leaving(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    for path in ("service/register", "service/deregister/x", "check/update/x-ttl"):
        scripted.answer(f"/v1/agent/{path}", text="")
    client = scripted.client(nursery)
    await client.register({"Name": "x"})
    await client.update_check("x-ttl", "leaf missing", passing=False)
    await client.update_check("x-ttl", "ready", passing=True)
    await client.deregister("x")
    assert [(asked.method, json.loads(asked.body or b"null")) for asked in scripted.asked] == [
        ("PUT", {"Name": "x"}),
        ("PUT", {"Status": "critical", "Output": "leaf missing"}),
        ("PUT", {"Status": "passing", "Output": "ready"}),
        ("PUT", None),
    ]


async def test_an_error_names_path_status_and_text(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer(LEAF, text="Permission\n denied " + "x" * 5000, status=403)
    with pytest.raises(ConsulError) as caught:
        await scripted.client(nursery, TokenSource("s3cret", None)).leaf("web")
    error = caught.value
    assert (error.reason, error.path, error.status) == (ConsulReason.DENIED, LEAF, 403)
    assert str(error).startswith(f"{LEAF} answered 403: Permission denied xxx")
    assert len(error.text) == MAX_TEXT
    assert "s3cret" not in str(error)


async def test_nobody_answers(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    client = scripted.client(nursery)
    scripted.down = True
    with pytest.raises(ConsulError, match="Connection refused") as caught:
        await client.roots()
    assert caught.value.unanswered
    scripted.down = False
    scripted.say(ROOTS, Scripted(cut=True))
    with pytest.raises(ConsulError, match="without an answer") as caught:
        await client.roots()
    assert caught.value.unanswered


async def test_an_answer_of_another_shape_names_the_field_and_no_value(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer(LEAF, {"CertPEM": "cert", "PrivateKeyPEM": ["key-text"]})
    scripted.answer(LEAF, text="<html>key-text")
    client = scripted.client(nursery)
    for expected in (r"\$\.PrivateKeyPEM", "malformed"):
        with pytest.raises(ConsulError, match=expected) as caught:
            await client.leaf("web")
        assert caught.value.reason is ConsulReason.MALFORMED
        assert not caught.value.unanswered
        assert "key-text" not in str(caught.value)


DEEP = b"[" * 100_000 + b"]" * 100_000  # Python 3.13 reads many thousands


@pytest.mark.parametrize(
    "body",
    [b'{"Roots": %b}' % DEEP, b'{"Roots": "\xff"}', b'{"Roots": [{"\xe2\x82": 1}]}'],
    ids=["deep", "no text", "half a character"],
)
async def test_an_answer_that_is_hardly_json_is_malformed(nursery: trio.Nursery, body: bytes) -> None:
    scripted = FakeConsul()
    scripted.say(ROOTS, Scripted(status=200, body=body))
    with pytest.raises(ConsulError) as caught:
        await scripted.client(nursery).roots()
    assert caught.value.reason is ConsulReason.MALFORMED


async def test_an_index_of_thousands_of_digits_is_none(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.say(ROOTS, Scripted(status=200, body=b"{}", headers={"X-Consul-Index": "9" * 4301}))
    assert (await scripted.client(nursery).roots()).index is None


async def test_nonsense_instead_of_http(nursery: trio.Nursery) -> None:
    async def dial() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"SSH-2.0-OpenSSH\r\n\r\n")
        return ours

    client = Consul(Client(dial, host="x"), TokenSource(None, None))
    with pytest.raises(ConsulError) as caught:
        await client.roots()
    assert caught.value.reason is ConsulReason.MALFORMED


async def test_what_is_sent_with_every_question(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.client(nursery)
    scripted.answer(ROOTS, {})
    http = Client(scripted.dial, host="x")
    scope = {"ns": "default", "partition": "p"}
    client = Consul(http, TokenSource("s3cret", None), scope=scope, http_auth="user:password")
    await client.roots(Blocking(index=3, wait=60))
    (asked,) = scripted.asked
    assert asked.query == {"ns": "default", "partition": "p", "index": "3", "wait": "60s"}
    assert asked.headers["x-consul-token"] == "s3cret"
    assert asked.headers["authorization"] == "Basic " + b64encode(b"user:password").decode()


async def test_without_a_token_there_is_no_header(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer(ROOTS, {})
    await scripted.client(nursery).roots()
    assert "x-consul-token" not in scripted.asked[0].headers


async def test_the_token_file_is_read_again_when_it_changes(nursery: trio.Nursery, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    source = TokenSource(None, file)
    scripted = FakeConsul()
    scripted.client(nursery)
    scripted.answer(ROOTS, {})
    client = Consul(Client(scripted.dial, host="x"), source)
    await client.roots()
    file.write_text("second, longer\n")
    await client.roots()
    assert [asked.headers["x-consul-token"] for asked in scripted.asked] == ["first", "second, longer"]


async def test_where_things_are(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    for path in ("/v1/health/connect/db", "/v1/health/service/mesh-gateway"):
        scripted.answer(path, [], index=1)
    scripted.answer("/v1/query/near-db/execute", {"Nodes": []})
    client = scripted.client(nursery)
    await client.endpoints(ServiceDestination("db", "dc2"), Blocking(index=4, wait=60))
    await client.gateways("dc2")
    await client.execute(QueryDestination("near-db", "dc2"))
    assert [(asked.path, dict(asked.query)) for asked in scripted.asked] == [
        ("/v1/health/connect/db", {"dc": "dc2", "index": "4", "wait": "60s"}),
        ("/v1/health/service/mesh-gateway", {"dc": "dc2"}),
        ("/v1/query/near-db/execute", {"connect": "true", "dc": "dc2"}),
    ]
