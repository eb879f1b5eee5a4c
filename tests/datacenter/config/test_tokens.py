"""`[[tokens]]`: policies as they are written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from datacenter.config.tokens import parse_tokens
from datacenter.state.settings import Access, Policy

READ, WRITE, DENY = Access.READ, Access.WRITE, Access.DENY


def policy(text: str) -> Policy:
    tokens, mistakes = parse_tokens(tomllib.loads(f'[[tokens]]\nsecret = "s"\n{text}')["tokens"])
    assert mistakes == []
    return tokens[0].policy


def test_management() -> None:
    assert policy('policy = "management"') == Policy(management=True)


def test_no_policy_grants_nothing() -> None:
    assert policy("") == Policy()


def test_rules() -> None:
    made = policy(
        """
        description = "for web"
        [tokens.policy]
        agent = "read"
        operator = "write"
        [tokens.policy.service]
        web = "write"
        [tokens.policy.service_prefix]
        "" = "read"
        [tokens.policy.intentions]
        db = "deny"
        [tokens.policy.query]
        q = "read"
        """
    )
    assert made == Policy(
        agent=READ,
        operator=WRITE,
        service={"web": WRITE},
        service_prefix={"": READ},
        intentions={"db": DENY},
        query={"q": READ},
    )


def test_identities_and_rules_together() -> None:
    made = policy(
        """
        [tokens.policy]
        service_identities = ["web", "db"]
        [tokens.policy.service]
        db = "read"
        """
    )
    assert made.service == {
        "web": WRITE,
        "web-sidecar-proxy": WRITE,
        "db": READ,
        "db-sidecar-proxy": WRITE,
    }
    assert (made.service_prefix, made.node_prefix) == ({"": READ}, {"": READ})


MISTAKES: dict[str, Any] = {
    "a token is needed": "x",
    "a secret is required": {"secret": 1},
    "unknown key 'polciy'": {"secret": "s", "polciy": {}},
    "description: a text is needed": {"secret": "s", "description": 1},
    'policy: "management" or a table is needed': {"secret": "s", "policy": "root"},
    "policy: unknown key 'services'": {"secret": "s", "policy": {"services": {}}},
    "policy.service: a table of names is needed": {"secret": "s", "policy": {"service": "read"}},
    "policy.service.web: deny, read or write is needed, not 'list'": {
        "secret": "s",
        "policy": {"service": {"web": "list"}},
    },
    "policy.agent: deny, read or write is needed, not 1": {"secret": "s", "policy": {"agent": 1}},
    "policy.service_identities: a list of service names is needed": {
        "secret": "s",
        "policy": {"service_identities": "web"},
    },
}


@pytest.mark.parametrize(("text", "entry"), MISTAKES.items())
def test_mistakes(text: str, entry: object) -> None:
    assert parse_tokens([entry]) == ((), [f"tokens, number 1: {text}"])


def test_mistakes_are_counted_and_the_rest_kept() -> None:
    tokens, mistakes = parse_tokens([{"secret": "a"}, {"secret": ""}, {"secret": "a"}])
    assert [token.secret for token in tokens] == ["a"]
    assert mistakes == [
        "tokens, number 2: a secret is required",
        "tokens, number 3: the secret is the same as an earlier one's",
    ]
