"""What is read of `Expose`: what can be served, and a named problem for each part that cannot."""

from __future__ import annotations

from typing import Any

import pytest

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.config.effective import overridden
from agent.config.exposed_paths import ExposedPath
from agent.config.opaque_config import ProblemReason
from agent.config.registration import Registration, parse_registration
from tests.support.agent_parts import proxy_answer, settings

HEALTH = {"Path": "/health", "ListenerPort": 21500, "LocalPathPort": 8080}


def read(*paths: dict[str, Any], checks: bool = False, **proxy: Any) -> Registration:
    answer = proxy_answer()
    answer["Address"] = "10.0.0.7"
    told = answer["Proxy"]
    assert isinstance(told, dict)
    told |= {"Expose": {"Checks": checks, "Paths": list(paths)}, **proxy}
    return parse_registration(answer)


def problems(registration: Registration) -> list[tuple[str, ProblemReason]]:
    return [(problem.where, problem.reason) for problem in registration.problems]


@pytest.mark.parametrize("protocol", ["", "http", "HTTP"])
@pytest.mark.parametrize("path", ["/", "/health", "/v1/health/", "/a.b/..c/x-y_z~", "/(a)*,=:@$&!+'"])
def test_a_path_is_served_at_the_public_host(path: str, protocol: str) -> None:
    registration = read({**HEALTH, "Path": path, "Protocol": protocol, "ParsedFromCheck": True})
    bind, app = TcpAddress("10.0.0.7", 21500), TcpAddress("127.0.0.1", 8080)
    assert registration.exposed == (ExposedPath(path=path, bind=bind, app=app),)
    assert problems(registration) == []


@pytest.mark.parametrize(
    ("proxy", "app"),
    [
        ({"LocalServiceAddress": "[::1]"}, TcpAddress("::1", 8080)),
        ({"LocalServiceSocketPath": "/run/app.sock"}, UnixAddress("/run/app.sock")),
    ],
)
def test_the_app_is_where_it_is_for_callers(proxy: dict[str, Any], app: Address) -> None:
    (one,) = read(HEALTH, **proxy).exposed
    assert one.app == app


TWO_SPELLINGS = ["", "health", "/a/../b", "/./a", "/a/..", "/a/.", "//a", "/a//b", "/%61", "/a?b", "/a#b"]
TWO_SPELLINGS += ["/a b", "/a;b", "/ä", "/a\\b", "/a\n"]


@pytest.mark.parametrize("path", TWO_SPELLINGS)
def test_a_path_with_two_spellings_is_a_problem(path: str) -> None:
    registration = read({**HEALTH, "Path": path}, {**HEALTH, "ListenerPort": 21501})
    assert [one.bind.port for one in registration.exposed] == [21501]
    assert problems(registration) == [("Proxy.Expose.Paths[0]", ProblemReason.WRONG_VALUE)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ListenerPort": 0}, ProblemReason.WRONG_VALUE),
        ({"ListenerPort": 65536}, ProblemReason.WRONG_VALUE),
        ({"LocalPathPort": -1}, ProblemReason.WRONG_VALUE),
        ({"Protocol": "http2"}, ProblemReason.EXPOSED_PATHS),
    ],
)
def test_what_cannot_be_served_is_a_problem(change: dict[str, object], reason: ProblemReason) -> None:
    registration = read({**HEALTH, **change})
    assert registration.exposed == ()
    assert problems(registration) == [("Proxy.Expose.Paths[0]", reason)]


def test_checks_are_a_problem_and_the_paths_beside_them_are_served() -> None:
    registration = read(HEALTH, checks=True)
    assert len(registration.exposed) == 1
    assert problems(registration) == [("Proxy.Expose.Checks", ProblemReason.EXPOSED_PATHS)]


def test_unknown_keys_are_named_with_their_path() -> None:
    registration = read({**HEALTH, "Methods": ["GET"]})
    assert len(registration.exposed) == 1
    (problem,) = registration.problems
    assert (problem.where, problem.detail) == ("Proxy.Expose.Paths[0]", "not honoured here: Methods")


def test_settings_move_the_hosts_and_keep_the_ports() -> None:
    moved = overridden(read(HEALTH), settings(listen="127.0.0.9:1", service_addr="127.0.0.8:2"))
    assert moved.exposed == (
        ExposedPath(path="/health", bind=TcpAddress("127.0.0.9", 21500), app=TcpAddress("127.0.0.8", 8080)),
    )
    (at_socket,) = overridden(read(HEALTH), settings(service_addr="unix:/run/app.sock")).exposed
    assert at_socket.app == UnixAddress("/run/app.sock")
