"""Creating, changing and deleting prepared queries, and who may."""

from __future__ import annotations

from typing import Any

from datacenter.state.settings import Access, Policy, Token
from tests.datacenter.world import Site, World, settings

QUERY: dict[str, Any] = {"Name": "q", "Service": {"Service": "db"}}
READER, WRITER, MANAGER = "reader", "writer", "manager"


def site() -> Site:
    return World().add(settings("dc1"))


def guarded() -> Site:
    tokens = (
        Token(secret=MANAGER, policy=Policy(management=True)),
        Token(secret=WRITER, policy=Policy(query={"q": Access.WRITE})),
        Token(secret=READER, policy=Policy(query_prefix={"q": Access.READ})),
    )
    return World().add(settings("dc1", tokens=tokens, default_policy_allows=False))


async def create(dc1: Site, body: dict[str, Any] = QUERY, token: str = "") -> str:
    created: dict[str, str] = await dc1.ok("POST", "/v1/query", body, token=token)
    return created["ID"]


async def refused(
    dc1: Site, method: str, target: str, body: object = None, token: str = ""
) -> tuple[int, str]:
    reply = await dc1.call(method, target, body, {"x-consul-token": token})
    return reply.status, reply.body.decode()


async def test_a_query_s_life() -> None:
    dc1 = site()
    identifier = await create(dc1)
    changed = {"Name": "r", "Service": {"Service": "web", "Tags": ["a"]}}
    await dc1.ok("PUT", f"/v1/query/{identifier}", changed)
    read = (await dc1.ok("GET", f"/v1/query/{identifier}"))[0]
    assert (read["ID"], read["Name"], read["Service"]["Service"]) == (identifier, "r", "web")
    await dc1.ok("DELETE", f"/v1/query/{identifier}")
    assert await dc1.ok("GET", "/v1/query") == []


async def test_what_was_read_can_be_sent_back() -> None:
    dc1 = site()
    identifier = await create(dc1)
    read = (await dc1.ok("GET", f"/v1/query/{identifier}"))[0]
    await dc1.ok("PUT", f"/v1/query/{identifier}", read)


async def test_what_is_not_there_cannot_be_changed() -> None:
    dc1 = site()
    nobody = "00000000-0000-0000-0000-000000000000"
    no_uuid = (
        "Prepared Query lookup failed: failed prepared query lookup: index error: UUID must be 36 characters"
    )
    absent = f"Cannot modify non-existent prepared query: '{nobody}'"
    for identifier, text in ((nobody, absent), ("x", no_uuid)):
        assert await refused(dc1, "PUT", f"/v1/query/{identifier}", QUERY) == (500, text)
        assert await refused(dc1, "DELETE", f"/v1/query/{identifier}") == (500, text)


async def test_an_id_is_given_and_not_taken() -> None:
    assert (await refused(site(), "POST", "/v1/query", {**QUERY, "ID": "x"}))[0] == 500


async def test_names_do_not_hide_ids_or_each_other() -> None:
    dc1 = site()
    first = await create(dc1)
    second = await create(dc1, {**QUERY, "Name": "r"})
    assert await refused(dc1, "PUT", f"/v1/query/{second}", QUERY) == (
        500,
        "raft apply failed: name 'q' aliases an existing query name",
    )
    assert await refused(dc1, "POST", "/v1/query", {**QUERY, "Name": first}) == (
        500,
        f"raft apply failed: name '{first}' aliases an existing query ID",
    )
    assert await refused(dc1, "POST", "/v1/query", {"Service": {"Service": "db"}}) == (
        500,
        "Invalid prepared query: Must be bound to a session",
    )


async def test_who_may_what() -> None:
    dc1 = guarded()
    denied = (403, "Permission denied")
    for token in ("", READER):
        assert await refused(dc1, "POST", "/v1/query", QUERY, token) == denied
    identifier = await create(dc1, token=WRITER)
    target = f"/v1/query/{identifier}"
    for method, body in (("PUT", QUERY), ("DELETE", None)):
        assert await refused(dc1, method, target, body, READER) == denied
    assert await refused(dc1, "PUT", target, {**QUERY, "Name": "other"}, WRITER) == denied
    assert await refused(dc1, "GET", target) == denied
    assert await refused(dc1, "GET", "/v1/query/q/explain") == denied
    assert await dc1.ok("GET", "/v1/query") == []
    assert len(await dc1.ok("GET", "/v1/query", token=READER)) == 1


async def test_a_stored_token_is_not_shown() -> None:
    dc1 = guarded()
    identifier = await create(dc1, {**QUERY, "Token": "hunter2"}, WRITER)
    for target in (f"/v1/query/{identifier}", "/v1/query", "/v1/query/q/explain"):
        reply = await dc1.call("GET", target, None, {"x-consul-token": READER})
        assert b"hunter2" not in reply.body
        assert b"\\u003chidden\\u003e" in reply.body


async def test_an_unknown_query_cannot_be_explained() -> None:
    assert await refused(site(), "GET", "/v1/query/nope/explain") == (404, "Query not found")
