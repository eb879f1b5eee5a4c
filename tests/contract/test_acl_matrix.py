"""Each right taken away from the minimal policy, and each state of a token: the remedy named cures it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import trio

from agent.config.settings import resolve
from agent.consul.connect import consul_of
from agent.consul.errors import ConsulError
from agent.consul.refusal import Refusal, refusal, remedy
from agent.consul.token import TokenSource
from tests.contract.alone import managed
from tests.contract.client import Api
from tests.contract.federation import consul_binary
from tests.contract.rights import MINIMAL, one_a_name
from upstreams.spec import ServiceDestination

pytestmark = [
    pytest.mark.consul,
    pytest.mark.skipif(not consul_binary(), reason="the embedded datacenter has its tokens in a file"),
]


@pytest.fixture(scope="module")
def apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Api]]:
    with managed("consul", "deny", tmp_path_factory.mktemp("matrix")) as (api, manager):
        service = {"Name": "web", "Port": 80, "Connect": {"SidecarService": {"Port": 21000}}}
        assert manager.put("/v1/agent/service/register", service).status == 200
        far = {"Name": "db", "Port": 5432, "Connect": {"SidecarService": {"Port": 21001}}}
        assert manager.put("/v1/agent/service/register", far).status == 200
        manager.until("/v1/health/connect/db", len)
        yield api, manager


def token_of(manager: Api, name: str, rules: str) -> str:
    """A new token with these rules; an existing policy gets them."""
    known = {policy["Name"]: policy["ID"] for policy in manager.get("/v1/acl/policies").json}
    policy = {"Name": name, "Rules": rules}
    if name in known:
        manager.put(f"/v1/acl/policy/{known[name]}", {"ID": known[name], **policy})
    else:
        manager.put("/v1/acl/policy", policy)
    return str(manager.put("/v1/acl/token", {"Policies": [{"Name": name}]}).json["SecretID"])


async def _problems(url: str, token: str) -> list[str]:
    settings = resolve({"sidecar-for": ["web"], "http-addr": [url]}, {}).settings
    assert settings is not None
    consul = consul_of(settings, TokenSource(token or None, None))
    found = []
    try:
        for ask in (
            lambda: consul.service("web-sidecar-proxy"),
            lambda: consul.leaf("web"),
            lambda: consul.match("web"),
            lambda: consul.authorize("web", "spiffe://x/ns/n/dc/dc1/svc/s"),
        ):
            try:
                await ask()
            except ConsulError as error:
                found.append(remedy(error, given=bool(token), service="web"))
        try:
            if not (await consul.endpoints(ServiceDestination("db"))).value:
                found.append("no endpoints: service db read and node read")
        except ConsulError as error:
            found.append(remedy(error, given=bool(token), service="web"))
    finally:
        with trio.CancelScope(shield=True):
            await consul.aclose()
    return found


def problems(api: Api, token: str) -> list[str]:
    """What a sidecar's questions are refused for, by remedy."""
    return trio.run(_problems, api.url.removeprefix("http://"), token)


def test_the_minimal_policy_is_enough_and_so_is_the_service_identity(apis: tuple[Api, Api]) -> None:
    api, manager = apis
    assert problems(api, token_of(manager, "minimal", "\n".join(MINIMAL.values()))) == []
    identity = manager.put("/v1/acl/token", {"ServiceIdentities": [{"ServiceName": "web"}]}).json
    assert problems(api, identity["SecretID"]) == []


@pytest.mark.parametrize("right", MINIMAL)
def test_no_rule_of_it_can_be_left_out_and_the_remedy_names_it(apis: tuple[Api, Api], right: str) -> None:
    api, manager = apis
    rules = [rule for name, rule in MINIMAL.items() if name != right]
    found = problems(api, token_of(manager, f"without-{right}", "\n".join(rules)))
    assert found
    named = set(re.findall(r'(?:service|node_prefix|query) "[^"]*" \{[^}]*\}', " ".join(found)))
    if right in ("registration", "identity"):
        assert MINIMAL[right] in named
        cured = token_of(manager, f"without-{right}", "\n".join([*rules, *one_a_name(named)]))
        assert problems(api, cured) == []


@pytest.mark.parametrize(
    ("token", "state"),
    [("", Refusal.ABSENT), ("11111111-2222-3333-4444-555555555555", Refusal.UNKNOWN)],
)
def test_a_token_that_is_absent_or_unknown_has_a_message_of_its_own(
    apis: tuple[Api, Api], token: str, state: Refusal
) -> None:
    api, _ = apis
    found = problems(api, token)
    said = {Refusal.ABSENT: "no token is given", Refusal.UNKNOWN: "Consul does not know this token"}[state]
    assert found
    assert all(one.startswith(said) or "no endpoints" in one for one in found)


async def _refusal(url: str, token: str) -> Refusal | None:
    settings = resolve({"sidecar-for": ["web"], "http-addr": [url]}, {}).settings
    assert settings is not None
    consul = consul_of(settings, TokenSource(token, None))
    try:
        await consul.match("web")
    except ConsulError as error:
        return refusal(error, given=True)
    finally:
        with trio.CancelScope(shield=True):
            await consul.aclose()
    return None


def test_a_token_that_is_deleted_becomes_unknown(apis: tuple[Api, Api]) -> None:
    api, manager = apis
    made = manager.put("/v1/acl/token", {"ServiceIdentities": [{"ServiceName": "web"}]}).json
    url = api.url.removeprefix("http://")
    assert trio.run(_refusal, url, made["SecretID"]) is None
    assert manager.delete(f"/v1/acl/token/{made['AccessorID']}").status == 200
    assert trio.run(_refusal, url, made["SecretID"]) is Refusal.UNKNOWN
