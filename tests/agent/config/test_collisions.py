"""Which listeners meet, by every spelling, and which of them give way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.config import collisions
from agent.config.collisions import Known, Served, check_address, unknown_names, without_collisions
from agent.config.exposed_paths import ExposedPath
from agent.config.opaque_config import ProblemReason
from upstreams.spec import LocalBind, ServiceDestination, SocketBind, Upstream, parse_upstream_flag

PUBLIC = TcpAddress("0.0.0.0", 21000)
APP = TcpAddress("127.0.0.1", 80)
ADMIN = (TcpAddress("127.0.0.1", 19000),)


def db(host: str, port: int = 80) -> Upstream:
    return Upstream(destination=ServiceDestination("db"), bind=LocalBind(host, port))


def at_path(path: str) -> Upstream:
    return Upstream(destination=ServiceDestination("db"), bind=SocketBind(path))


def served(
    *upstreams: Upstream,
    public: Address | None = PUBLIC,
    app: Address | None = APP,
    admin: Sequence[Address] = ADMIN,
    known: Known | None = None,
) -> Served:
    return without_collisions(public=public, app=app, upstreams=upstreams, admin=admin, known=known)


def reasons(found: Served) -> list[ProblemReason]:
    return [problem.reason for problem in found.problems]


SPELLINGS = [
    "127.0.0.1",
    "0.0.0.0",
    "localhost",
    "LOCALHOST.",
    "web.localhost",
    "::",
    "::ffff:127.0.0.1",
    "::FFFF:7f00:1",
    "::ffff:0.0.0.0",
    "127.1",
    "0x7f000001",
    "2130706433",
]


@pytest.mark.parametrize("app", SPELLINGS)
@pytest.mark.parametrize("bind", SPELLINGS)
def test_an_upstream_where_the_app_is_is_not_served(bind: str, app: str) -> None:
    found = served(db(bind), db("127.0.0.1", 9191), app=TcpAddress(app, 80))
    assert found.upstreams == (db("127.0.0.1", 9191),)
    assert reasons(found) == [ProblemReason.APP_BIND]
    assert str(found.problems[0]).startswith(f"upstream db on {TcpAddress(bind, 80)}: bind_of_the_app: ")
    assert str(TcpAddress(app, 80)) in found.problems[0].detail
    assert found.public


@pytest.mark.parametrize(
    ("bind", "app"),
    [
        ("127.0.0.1", "127.0.0.2"),
        ("127.0.0.1", "::1"),
        ("0.0.0.0", "::1"),
        ("::1", "0.0.0.0"),
        ("0.0.0.0", "10.1.2.3"),  # of another machine, as far as is known
        ("127.0.0.1", "app.example"),
    ],
)
def test_who_does_not_meet_is_served(bind: str, app: str) -> None:
    found = served(db(bind), app=TcpAddress(app, 80))
    assert found.upstreams == (db(bind),)
    assert found.problems == ()


@pytest.mark.parametrize(("bind", "app"), [("127.0.0.2", "0.0.0.0"), ("0.0.0.0", "127.0.0.2"), ("::1", "::")])
def test_any_address_takes_in_every_one_of_the_machine(bind: str, app: str) -> None:
    assert reasons(served(db(bind), app=TcpAddress(app, 80))) == [ProblemReason.APP_BIND]


def test_what_the_machine_knows_of_names_addresses_and_paths() -> None:
    known = Known(
        hosts={"app.example": frozenset({"127.0.0.1"}), "Db.example": frozenset({"10.9.9.9"})},
        paths={"/run/link": "/run/app.sock"},
        ours=frozenset({"10.1.2.3"}),
    )
    assert reasons(served(db("127.0.0.1"), app=TcpAddress("app.example", 80), known=known))
    assert reasons(served(db("0.0.0.0"), app=TcpAddress("10.1.2.3", 80), known=known))
    assert not reasons(served(db("0.0.0.0"), app=TcpAddress("Db.example", 80), known=known))
    assert reasons(served(at_path("/run/link"), app=UnixAddress("/run/app.sock"), known=known))


def test_a_name_nobody_knows_is_itself_in_any_case() -> None:
    assert reasons(served(db("App.example"), app=TcpAddress("app.Example.", 80)))


@pytest.mark.parametrize("path", ["/run/app.sock", "/run/../run/app.sock", "//run//./app.sock"])
def test_paths_of_sockets(path: str) -> None:
    assert reasons(served(at_path(path), app=UnixAddress("/run/app.sock"))) == [ProblemReason.APP_BIND]
    assert reasons(served(at_path("/run/other"), app=UnixAddress("/run/app.sock"))) == []
    assert reasons(served(at_path(path))) == []


@pytest.mark.parametrize(
    ("bind", "other"),
    [
        (db("0.0.0.0", 19000), "the admin endpoint"),
        (db("::1", 21000), ""),
        (db("127.0.0.9", 21000), "public"),
    ],
)
def test_an_upstream_where_another_listener_is(bind: Upstream, other: str) -> None:
    found = served(bind)
    assert reasons(found) == [ProblemReason.DUPLICATE_BIND] * bool(other)
    assert all(other in problem.detail for problem in found.problems)


def test_of_two_upstreams_the_first_is_served() -> None:
    first, second, third = db("127.0.0.1", 9191), db("localhost", 9191), db("127.0.0.3", 9191)
    found = served(first, second, third)
    assert found.upstreams == (first, third)
    assert reasons(found) == [ProblemReason.DUPLICATE_BIND]


@pytest.mark.parametrize("public", [APP, *ADMIN])
def test_a_public_listener_in_the_way_gives_way_and_the_upstreams_are_served(public: TcpAddress) -> None:
    found = served(db("0.0.0.0", 9191), public=public)
    assert not found.public
    assert found.upstreams == (db("0.0.0.0", 9191),)
    assert found.problems[0].where == f"the public listener on {public}"


def test_an_app_where_the_admin_endpoint_is_gets_no_callers() -> None:
    found = served(app=TcpAddress("localhost", 19000))
    assert not found.public
    assert [problem.where.partition(" on")[0] for problem in found.problems] == [
        "the admin endpoint",
        "the public listener",
    ]


def test_two_admin_endpoints() -> None:
    found = served(admin=(*ADMIN, TcpAddress("0.0.0.0", 19000)))
    assert reasons(found) == [ProblemReason.DUPLICATE_BIND]


def test_a_port_that_the_kernel_chooses_meets_nobody() -> None:
    any_port = TcpAddress("127.0.0.1", 0)
    assert served(public=any_port, admin=(any_port,)).problems == ()


@pytest.mark.parametrize(
    ("public", "check"),
    [
        (TcpAddress("10.0.0.5", 21000), TcpAddress("127.0.0.1", 21000)),
        (TcpAddress("fd00::5", 21000), TcpAddress("127.0.0.1", 21000)),
        (TcpAddress("0.0.0.0", 21000), None),
        (TcpAddress("::", 21000), None),
        (TcpAddress("127.0.0.2", 21000), None),
        (TcpAddress("web.example", 21000), None),
        (UnixAddress("/run/x"), None),
        (None, None),
    ],
)
def test_where_consul_looks(public: Address | None, check: TcpAddress | None) -> None:
    assert check_address(public, Known(hosts={"web.example": frozenset()})) == check
    assert check_address(TcpAddress("web.example", 80), Known(hosts={"web.example": frozenset({"10.0.0.5"})}))


def test_consuls_check_gives_way_to_the_app_and_to_upstreams() -> None:
    """The app on loopback and the sidecar on an outside address share a port, which is all in order."""
    outside = TcpAddress("10.0.0.5", 80)
    found = served(public=outside)
    assert (found.public, found.check, reasons(found)) == (True, False, [ProblemReason.APP_BIND])
    found = served(db("127.0.0.1", 81), public=TcpAddress("10.0.0.5", 81))
    assert (found.check, len(found.upstreams), reasons(found)) == (False, 1, [ProblemReason.DUPLICATE_BIND])
    assert served(public=TcpAddress("10.0.0.5", 82)).check


def test_only_names_that_share_a_port_are_looked_up() -> None:
    asked = unknown_names(
        [
            TcpAddress("a.example", 80),
            TcpAddress("b.example", 81),
            TcpAddress("c.example", 80),
            TcpAddress("localhost", 80),
            TcpAddress("127.0.0.1", 81),
            UnixAddress("/run/x"),
        ]
    )
    assert asked == {"a.example", "b.example", "c.example"}


def test_a_thousand_upstreams_are_compared_with_those_at_their_port_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0
    meet = collisions._Claims._meet

    def counting(*args: Any) -> bool:
        nonlocal compared
        compared += 1
        return meet(*args)

    monkeypatch.setattr(collisions._Claims, "_meet", counting)
    upstreams = [parse_upstream_flag(f"u{number}:{20000 + number}") for number in range(1000)]
    served = collisions.without_collisions(
        public=None, app=TcpAddress("127.0.0.1", 8080), upstreams=[*upstreams, upstreams[7]], admin=()
    )
    assert (len(served.upstreams), len(served.problems)) == (1000, 1)
    assert compared <= 2002  # each with the app, and one with another


def exposing(port: int, app: int = 8081, host: str = "0.0.0.0") -> ExposedPath:
    return ExposedPath(path="/health", bind=TcpAddress(host, port), app=TcpAddress("127.0.0.1", app))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (exposing(21000), ProblemReason.DUPLICATE_BIND),  # the public listener
        (exposing(19000), ProblemReason.DUPLICATE_BIND),  # the admin endpoint
        (exposing(9191), ProblemReason.DUPLICATE_BIND),  # an upstream
        (exposing(80), ProblemReason.APP_BIND),
        (exposing(21500, app=19000), ProblemReason.APP_BIND),  # else the admin endpoint would be exposed
        (exposing(21500, app=21000), ProblemReason.APP_BIND),
        (exposing(21500, app=9191), ProblemReason.APP_BIND),
    ],
)
def test_an_exposed_path_that_meets_another_address_is_not_served(
    one: ExposedPath, reason: ProblemReason
) -> None:
    good = exposing(21501)
    found = without_collisions(
        public=PUBLIC, app=APP, upstreams=[db("127.0.0.1", 9191)], admin=ADMIN, exposed=[one, good]
    )
    assert found.exposed == (good,)
    (problem,) = found.problems
    assert (problem.reason, problem.where) == (reason, f"exposed path /health on {one.bind}")


def test_of_two_exposed_paths_at_one_port_the_first_is_served() -> None:
    found = without_collisions(
        public=None, app=APP, upstreams=(), admin=ADMIN, exposed=[exposing(21500), exposing(21500, app=8082)]
    )
    assert [one.app for one in found.exposed] == [TcpAddress("127.0.0.1", 8081)]
    assert reasons(found) == [ProblemReason.DUPLICATE_BIND]
