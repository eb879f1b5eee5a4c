"""The deny list: what each form of entry denies, and what is no entry."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.policy.deny_list import NO_ENTRIES, InvalidDenyList, parse_deny_list
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


def peer(service: str = "web", datacenter: str = "dc1", serial: str = "0a:7f", domain: str = DOMAIN) -> Peer:
    return Peer(
        id=ServiceId(trust_domain=TrustDomain(domain), datacenter=datacenter, service=service),
        serial=serial,
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
        root="00",
    )


def spiffe(datacenter: str = "dc1", service: str = "web", domain: str = DOMAIN) -> str:
    return f"spiffe://{domain}/ns/default/dc/{datacenter}/svc/{service}"


@pytest.mark.parametrize(
    ("entry", "denied"),
    [
        (spiffe(), True),
        (f"  {spiffe()}   # stolen", True),
        (spiffe(domain=DOMAIN.upper()), True),
        (spiffe("*"), True),
        (spiffe("dc1", "*"), True),
        (spiffe("*", "*"), True),
        (spiffe("dc2"), False),
        (spiffe("dc2", "*"), False),
        (spiffe(service="WEB"), False),
        (spiffe(domain="x.consul"), False),
        (f"serial {DOMAIN} dc1 0a:7f", True),
        (f"serial {DOMAIN} dc1 A7F", True),
        (f"serial {DOMAIN} dc1 000A7F", True),
        (f"serial {DOMAIN} dc2 0a:7f", False),  # another datacenter's authority numbers its own
        ("serial x.consul dc1 0a:7f", False),
        (f"serial {DOMAIN} dc1 0a:7e", False),
        ("# nobody", False),
        ("", False),
    ],
)
def test_who_is_denied(entry: str, denied: bool) -> None:
    said = parse_deny_list(entry).objection(peer())
    assert bool(said) is denied
    if denied:
        assert said.startswith("deny list line 1: ")


def test_many_entries_at_once() -> None:
    text = "\n".join(["# head", spiffe("dc9"), "", f"serial {DOMAIN} dc1 0a:7f # leaked", spiffe("*", "api")])
    denied = parse_deny_list(text)
    assert len(denied) == 3
    assert denied.objection(peer()) == f"deny list line 4: serial {DOMAIN} dc1 0a:7f"
    assert denied.objection(peer("api", "dc7", "01"))
    assert not denied.objection(peer("api2", "dc7", "01"))


def test_an_empty_list_denies_nobody() -> None:
    assert (len(NO_ENTRIES), NO_ENTRIES.objection(peer())) == (0, "")


@pytest.mark.parametrize(
    "line",
    [
        "web",
        "spiffe://",
        f"spiffe://{DOMAIN}",
        f"spiffe://{DOMAIN}/agent/client/dc/dc1/id/n",
        spiffe("dc*"),
        spiffe(service="web-*"),
        f"{spiffe()} {spiffe()}",
        "serial 0a:7f",
        f"serial {DOMAIN} dc1",
        f"serial {DOMAIN} dc1 xyz",
        f"serial {DOMAIN} dc1 0a:",
        "serial a/b dc1 0a:7f",
        "serial: 0a:7f",
        f"serial {DOMAIN} * 0a:7f",  # no serial is of every datacenter
        f"serial {DOMAIN} dc\x01 0a:7f",
        spiffe().replace("/ns/default", "/ns/*"),
        spiffe().replace("/ns/", "/ap/*/ns/"),
    ],
)
def test_what_is_no_entry_spoils_the_list(line: str) -> None:
    with pytest.raises(InvalidDenyList, match=r"^line 2: "):
        parse_deny_list(f"{spiffe()}\n{line}\n")


def test_a_file_full_of_something_else_is_told_of_in_part() -> None:
    with pytest.raises(InvalidDenyList, match=r"; and 90 more$"):
        parse_deny_list("nonsense\n" * 100)
