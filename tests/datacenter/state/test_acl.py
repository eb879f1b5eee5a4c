"""Tokens and what they may do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datacenter.state.acl import Acl, Authorizer, require, service_identity
from datacenter.state.errors import ApiError
from datacenter.state.settings import Access, Policy, Token
from tests.datacenter.world import settings, world_a

READ, WRITE, DENY = Access.READ, Access.WRITE, Access.DENY


def _authorizer(policy: Policy, *, allow: bool = False) -> Authorizer:
    return Authorizer(policy, default_allows=allow)


def test_the_default_decides_where_no_rule_speaks() -> None:
    for allow in (True, False):
        nobody = _authorizer(Policy(), allow=allow)
        answers = {
            nobody.service_read("a"),
            nobody.service_write("a"),
            nobody.intention_read("a"),
            nobody.intention_write("a"),
            nobody.node_read("a"),
            nobody.node_write("a"),
            nobody.query_read("a"),
            nobody.query_write("a"),
            nobody.agent_read(),
            nobody.operator_read(),
            nobody.operator_write(),
        }
        assert answers == {allow}


def test_management_may_everything() -> None:
    manager = _authorizer(Policy(management=True))
    assert manager.service_write("a")
    assert manager.intention_read("a")
    assert manager.intention_write("*")
    assert manager.operator_write()
    assert manager.agent_read()


def test_write_includes_read_and_not_the_reverse() -> None:
    reader = _authorizer(Policy(service={"a": READ}))
    writer = _authorizer(Policy(service={"a": WRITE}))
    assert (reader.service_read("a"), reader.service_write("a")) == (True, False)
    assert (writer.service_read("a"), writer.service_write("a")) == (True, True)


def test_exact_rules_before_prefixes_and_longer_prefixes_first() -> None:
    policy = Policy(
        service={"web-admin": READ}, service_prefix={"": READ, "web": WRITE, "web-": DENY, "web-admin": WRITE}
    )
    authorizer = _authorizer(policy, allow=True)
    assert not authorizer.service_write("other")
    assert authorizer.service_write("web")
    assert not authorizer.service_read("web-x")
    assert (authorizer.service_read("web-admin"), authorizer.service_write("web-admin")) == (True, False)


def test_intentions_follow_the_service_unless_they_have_a_rule() -> None:
    by_service = _authorizer(Policy(service={"a": WRITE}), allow=True)
    assert (by_service.intention_read("a"), by_service.intention_write("a")) == (True, False)
    outright = _authorizer(Policy(service={"a": READ}, intentions={"a": WRITE, "b": DENY}))
    assert (outright.intention_write("a"), outright.intention_read("b")) == (True, False)
    by_prefix = _authorizer(Policy(intentions_prefix={"": READ}))
    assert (by_prefix.intention_read("x"), by_prefix.intention_write("x")) == (True, False)


def test_the_other_rules_have_their_own_names() -> None:
    authorizer = _authorizer(
        Policy(node={"n": WRITE}, query_prefix={"q": READ}, agent=READ, operator=READ, node_prefix={"": READ})
    )
    assert (authorizer.node_write("n"), authorizer.node_write("m"), authorizer.node_read("m")) == (
        True,
        False,
        True,
    )
    assert (authorizer.query_read("q1"), authorizer.query_write("q1")) == (True, False)
    assert (authorizer.operator_read(), authorizer.operator_write()) == (True, False)


def test_a_service_identity_is_itself_and_its_sidecar() -> None:
    web = _authorizer(service_identity("web"))
    assert web.service_write("web")
    assert web.service_write("web-sidecar-proxy")
    assert web.service_read("db")
    assert not web.service_write("db")
    assert web.node_read("any")


def test_without_acls_every_token_is_welcome() -> None:
    acl = Acl(settings("dc1"))
    assert (acl.enabled, acl.default_policy) == (False, "allow")
    assert acl.resolve("whatever").operator_write()


def test_an_unknown_token_is_refused() -> None:
    acl = Acl(settings("dc1", default_policy_allows=False))
    assert (acl.enabled, acl.default_policy) == (True, "deny")
    with pytest.raises(ApiError) as caught:
        acl.resolve("whatever")
    assert (caught.value.status, caught.value.text) == (403, "ACL not found")


def test_tokens_switch_acls_on_and_keep_the_default() -> None:
    token = Token(secret="s", policy=Policy(service={"a": DENY}))
    acl = Acl(settings("dc1", tokens=(token,)))
    assert (acl.enabled, acl.default_policy) == (True, "allow")
    assert not acl.resolve("s").service_read("a")
    assert acl.resolve("").service_read("a")


def test_the_anonymous_token_can_have_rules() -> None:
    token = Token(secret="anonymous", policy=Policy(service={"a": READ}))
    acl = Acl(settings("dc1", tokens=(token,), default_policy_allows=False))
    assert acl.resolve("").service_read("a")
    assert not acl.resolve("").service_read("b")


def test_secrets_are_not_printed() -> None:
    made = settings("dc1", tokens=(Token(secret="hunter2", policy=Policy()),))
    assert "hunter2" not in repr(replace(made, replication_token="hunter2"))


def test_require() -> None:
    require(True)
    with pytest.raises(ApiError) as caught:
        require(False, "Missing service:write on web")
    assert (caught.value.status, caught.value.text) == (
        403,
        "Permission denied: Missing service:write on web",
    )


@pytest.mark.parametrize("path", ["/v1/query", "/v1/connect/intentions", "/v1/config/service-defaults"])
async def test_an_unknown_token_is_refused_where_there_is_nothing_to_list(path: str) -> None:
    reply = await world_a().dc1.call("GET", path, headers={"x-consul-token": "unknown"})
    assert (reply.status, reply.body) == (403, b"ACL not found")
