"""The intention endpoints, beyond what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import Site, Wan, token

ROOT = "/v1/connect/intentions"
EXACT = f"{ROOT}/exact?source=web&destination=db"
LEGACY = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
NOBODY = "00000000-0000-0000-0000-000000000000"
NO_UUID = "failed config entry lookup: index error: UUID must be 36 characters"
NAMESPACES = "Namespaces is a Consul Enterprise feature"
OLD_RULES_ONLY = (
    'cannot use legacy intention API to edit intentions with a destination of "db" '
    "after editing them via a service-intentions config entry"
)


@pytest.fixture
async def site() -> Site:
    return Wan().site("dc1")


async def create(site: Site, **changes: Any) -> str:
    """A legacy intention; its ID."""
    answered = await site.call("POST", ROOT, LEGACY | changes)
    assert answered.status == 200, answered
    made: str = answered.body["ID"]
    return made


async def test_a_legacy_intention_lives_from_creation_to_deletion(
    autojump_clock: MockClock, site: Site
) -> None:
    made = await create(site, Meta={"k": "v"})
    created = await site.get(f"{ROOT}/{made}")
    await trio.sleep(1.5)
    assert await site.put(f"{ROOT}/{made}", {**LEGACY, "Action": "deny"}) == {"ID": made}
    updated = await site.get(f"{ROOT}/{made}")
    assert (created["Action"], updated["Action"]) == ("allow", "deny")
    assert updated["CreatedAt"] == created["CreatedAt"] < updated["UpdatedAt"]
    assert "Meta" not in updated
    other = await create(site, SourceName="api")
    assert len(await site.get(ROOT)) == 2
    assert (await site.call("DELETE", f"{ROOT}/{made}")).body is True
    assert [each["ID"] for each in await site.get(ROOT)] == [other]
    assert (await site.call("DELETE", f"{ROOT}/{other}")).body is True
    assert await site.get("/v1/config/service-intentions") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("POST", ROOT, {**LEGACY, "ID": "x"}, "ID must be empty when creating a new intention"),
        (
            "POST",
            ROOT,
            {"DestinationName": "db", "Action": "allow"},
            "1 error occurred:\n\t* SourceName",
        ),
        ("POST", ROOT, {}, "3 errors occurred:\n\t* SourceName must be set\n\t* DestinationName must"),
        ("POST", ROOT, {**LEGACY, "SourceType": "x"}, "Sources[0].Type must be set to 'consul'"),
        ("PUT", f"{ROOT}/short", LEGACY, f"Intention lookup failed: {NO_UUID}"),
        ("DELETE", f"{ROOT}/short", None, f"Intention lookup failed: {NO_UUID}"),
        ("PUT", f"{ROOT}/{NOBODY}", LEGACY, f"Cannot modify non-existent intention: '{NOBODY}'"),
        ("DELETE", f"{ROOT}/{NOBODY}", None, f"Cannot delete non-existent intention: '{NOBODY}'"),
        ("POST", ROOT, b"{", "Failed to decode request body: unexpected EOF"),
        ("POST", ROOT, {"Bogus": 1}, 'Failed to decode request body: json: unknown field "Bogus"'),
        ("PUT", EXACT, {"Action": "deny", "Meta": {"k": "v"}}, "Meta must not be specified"),
        ("PUT", EXACT, {}, "Sources[0].Action must be set to 'allow' or 'deny'"),
        (
            "PUT",
            f"{ROOT}/exact?source=a/b/c&destination=db",
            {},
            "source \"a/b/c\" is invalid: input can contain at most one '/'",
        ),
        ("GET", f"{ROOT}/exact?source=foo/web&destination=db", None, f'Invalid SourceNS "foo": {NAMESPACES}'),
        (
            "GET",
            f"{ROOT}/exact?source=web&destination=foo/db",
            None,
            f'Invalid DestinationNS "foo": {NAMESPACES}',
        ),
        (
            "GET",
            f"{ROOT}/check?source=foo/web&destination=db",
            None,
            f'Invalid source namespace "foo": {NAMESPACES}',
        ),
        (
            "GET",
            f"{ROOT}/match?by=source&name=foo/db",
            None,
            f'Invalid match entry namespace "foo": {NAMESPACES}',
        ),
        ("GET", f"{ROOT}/check?source=a&destination=b&source-type=x", None, 'unsupported SourceType: "x"'),
        ("GET", f"{ROOT}?filter=x", None, "Failed to create boolean expression evaluator: "),
        ("GET", f"{ROOT}/match?name=db", None, "required query parameter 'by' not set"),
    ],
)
async def test_mistakes_are_500(site: Site, method: str, path: str, body: object, text: str) -> None:
    answered = await site.call(method, path, body)
    assert answered.status == 500
    assert answered.body.startswith(text)
    assert await site.get(ROOT) == []


async def test_a_body_that_does_not_fit_is_400(site: Site) -> None:
    assert (await site.call("PUT", EXACT, {"Bogus": 1})).status == 400
    looked_up = await site.call("GET", f"{ROOT}/short")
    assert (looked_up.status, looked_up.body) == (400, f"Bad request: {NO_UUID}")


async def test_a_namespace_is_not_looked_at_in_writes(site: Site) -> None:
    assert await site.put(f"{ROOT}/exact?source=foo/web&destination=bar/db", {"Action": "deny", "ID": "x"})
    assert (await site.get(EXACT))["Action"] == "deny"
    assert (await site.call("DELETE", f"{ROOT}/exact?source=foo/web&destination=db")).body is True
    assert await site.get(ROOT) == []


async def test_match_answers_under_the_name_that_was_asked(site: Site) -> None:
    await site.put(EXACT, {"Action": "deny"})
    matched = await site.get(f"{ROOT}/match?by=destination&name=default/db&name=")
    assert (list(matched), matched[""]) == (["default/db", ""], None)
    assert matched["default/db"][0]["SourceName"] == "web"


async def test_the_list_can_be_filtered(site: Site) -> None:
    for source in ("web", "api"):
        await site.put(f"{ROOT}/exact?source={source}&destination=db", {"Action": "deny"})
    found = await site.get(f"{ROOT}?filter=SourceName==api+and+Precedence==9")
    assert [each["SourceName"] for each in found] == ["api"]


async def test_an_updated_intention_keeps_its_destination(site: Site) -> None:
    made = await create(site)
    answered = await site.call("PUT", f"{ROOT}/{made}", {**LEGACY, "DestinationName": "cache"})
    assert answered.body == (
        "Cannot modify DestinationNS or DestinationName for an intention once it exists."
    )


async def test_a_destination_belongs_to_one_form_of_writing(site: Site) -> None:
    """Once every source came through the entry, the legacy endpoints may not touch it; and it may not mix."""
    made = await create(site)
    await site.put(f"{ROOT}/exact?source=api&destination=db", {"Action": "deny"})
    answered = await site.call("POST", ROOT, {**LEGACY, "SourceName": "x"})
    assert (answered.status, answered.body) == (500, OLD_RULES_ONLY)
    assert (await site.call("GET", f"{ROOT}/{made}")).status == 404  # the write took its ID away


async def test_exact_replaces_its_own_rule_and_no_other(site: Site) -> None:
    await site.put(EXACT, {"Action": "allow", "Description": "first"})
    await site.put(f"{ROOT}/exact?source=api&destination=db", {"Action": "deny"})
    await site.put(EXACT, {"Action": "deny"})
    assert [(each["SourceName"], each["Action"]) for each in await site.get(ROOT)] == [
        ("api", "deny"),
        ("web", "deny"),
    ]
    shown = await site.get(f"{ROOT}/exact?source=default/web&destination=default/db")
    assert "Description" not in shown
    await site.call("DELETE", EXACT)
    assert [each["SourceName"] for each in await site.get(ROOT)] == ["api"]


async def test_meta_of_the_entry_may_be_sent_back_unchanged(site: Site) -> None:
    sources = [{"Name": "web", "Action": "allow"}]
    entry = {"Kind": "service-intentions", "Name": "db", "Sources": sources, "Meta": {"k": "v"}}
    await site.put("/v1/config", entry)
    assert (await site.get(EXACT))["Meta"] == {"k": "v"}
    assert await site.put(EXACT, {"Action": "deny", "Meta": {"k": "v"}}) is True
    answered = await site.call("PUT", EXACT, {"Action": "deny", "Meta": {"k": "w"}})
    assert answered.body == "Meta must not be specified, or should be unchanged during an update."


async def test_rights_on_either_end_are_enough_to_read_and_only_the_destinations_to_write() -> None:
    tokens = (
        token("web-reader", Policy(service={"web": Access.READ})),
        token("db-writer", Policy(intentions={"db": Access.WRITE}, service={"db": Access.READ})),
        token("nobody", Policy()),
    )
    site = Wan().site("dc1", default_policy_allows=False, tokens=tokens)
    made = (await site.call("POST", ROOT, LEGACY, token="db-writer")).body["ID"]
    for path in (f"{ROOT}/{made}", EXACT):
        assert (await site.call("GET", path, token="web-reader")).status == 200
        assert (await site.call("GET", path, token="nobody")).body == "Permission denied"
    assert len(await site.get(ROOT, token="web-reader")) == 1
    assert await site.get(ROOT, token="nobody") == []
    for method, path in (("PUT", f"{ROOT}/{made}"), ("DELETE", f"{ROOT}/{made}"), ("DELETE", EXACT)):
        answered = await site.call(method, path, LEGACY, token="web-reader")
        assert (answered.status, answered.body) == (403, "Permission denied")


async def test_check_goes_by_the_rules_and_then_by_the_default() -> None:
    site = Wan().site("dc1")
    path = f"{ROOT}/check?source=web&destination=db"
    assert await site.get(path) == {"Allowed": True}
    await site.put(EXACT, {"Action": "deny"})
    assert await site.get(path) == {"Allowed": False}


async def test_a_destination_is_one_in_any_case_and_a_source_is_not(site: Site) -> None:
    await site.put(f"{ROOT}/exact?source=USTest&destination=service_a", {"Action": "deny"})
    await site.put(f"{ROOT}/exact?source=ustest&destination=SERVICE_A", {"Action": "allow"})
    for name in ("Service_A", "service_a"):
        rules = (await site.get(f"{ROOT}/match?by=destination&name={name}"))[name]
        assert [(rule["SourceName"], rule["DestinationName"], rule["Action"]) for rule in rules] == [
            ("USTest", "service_a", "deny"),
            ("ustest", "service_a", "allow"),
        ]
    for source, action in (("USTest", "deny"), ("ustest", "allow")):
        found = await site.get(f"{ROOT}/match?by=source&name={source}")
        assert [rule["Action"] for rule in found[source]] == [action]
        assert (await site.get(f"{ROOT}/exact?source={source}&destination=Service_a"))["Action"] == action
    assert (await site.call("DELETE", f"{ROOT}/exact?source=USTest&destination=Service_A")).body is True
    assert len(await site.get(ROOT)) == 1


async def test_check_alone_compares_the_destination_exactly_as_in_consul(site: Site) -> None:
    await site.put(f"{ROOT}/exact?source=web&destination=service_a", {"Action": "deny"})
    for name, allowed in (("service_a", False), ("Service_A", True)):
        path = f"{ROOT}/check?source=web&destination={name}"
        assert await site.get(path) == {"Allowed": allowed}
