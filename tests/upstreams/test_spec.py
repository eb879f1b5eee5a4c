"""The SPEC grammar of the command line, and what each mistake is told."""

from __future__ import annotations

import pytest

from upstreams.spec import (
    Bind,
    Destination,
    InvalidUpstream,
    LocalBind,
    QueryDestination,
    ServiceDestination,
    SocketBind,
    Upstream,
    bind_key,
    first_of_each_bind,
    parse_bind,
    parse_upstream_flag,
    without_brackets,
)

READ: list[tuple[str, Destination, Bind]] = [
    ("db:9191", ServiceDestination("db"), LocalBind("127.0.0.1", 9191)),
    ("db@dc2:9191", ServiceDestination("db", "dc2"), LocalBind("127.0.0.1", 9191)),
    ("db:127.0.0.7:9191", ServiceDestination("db"), LocalBind("127.0.0.7", 9191)),
    ("db:localhost:9191", ServiceDestination("db"), LocalBind("localhost", 9191)),
    ("db:a-b.example:9191", ServiceDestination("db"), LocalBind("a-b.example", 9191)),
    ("db:[::1]:9191", ServiceDestination("db"), LocalBind("::1", 9191)),
    ("db@dc2:[FE80::0:1]:1", ServiceDestination("db", "dc2"), LocalBind("fe80::1", 1)),
    ("We_b.X:65535", ServiceDestination("We_b.X"), LocalBind("127.0.0.1", 65535)),
    ("db:unix:/run/db.sock", ServiceDestination("db"), SocketBind("/run/db.sock")),
    ("db@dc2:unix:/run/a:b.sock", ServiceDestination("db", "dc2"), SocketBind("/run/a:b.sock")),
    ("prepared_query:geo:9191", QueryDestination("geo"), LocalBind("127.0.0.1", 9191)),
    ("prepared_query:geo@dc2:0.0.0.0:9191", QueryDestination("geo", "dc2"), LocalBind("0.0.0.0", 9191)),
    ("prepared_query:geo:unix:/run/g", QueryDestination("geo"), SocketBind("/run/g")),
]


@pytest.mark.parametrize(("text", "destination", "bind"), READ)
def test_each_form(text: str, destination: Destination, bind: Bind) -> None:
    assert parse_upstream_flag(text) == Upstream(destination=destination, bind=bind)


@pytest.mark.parametrize(("text", "destination", "bind"), READ)
def test_what_is_printed_is_read_again(text: str, destination: Destination, bind: Bind) -> None:
    assert parse_upstream_flag(f"{destination}:{bind}") == parse_upstream_flag(text)
    assert str(parse_upstream_flag(text)) == f"{destination} on {bind}"


WRONG = [
    ("", "spec"),
    ("db", "spec"),
    ("db:", "spec"),
    ("prepared_query:9191", "spec"),
    (":9191", "name"),
    ("@dc2:9191", "name"),
    ("d b:9191", "name"),
    ("a/b:9191", "name"),
    ("prepared_query::9191", "name"),
    ("db@:9191", "datacenter"),
    ("db@dc/2:9191", "datacenter"),
    ("db@dc2@dc3:9191", "datacenter"),
    ("db:0", "port"),
    ("db:65536", "port"),
    ("db:-1", "port"),
    ("db:http", "port"),
    ("db:127.0.0.1:", "port"),
    ("db:٩١", "port"),
    ("db::9191", "address"),
    ("db:1.2.3:9191", "address"),
    ("db:1.2.3.400:9191", "address"),
    ("db:::1:9191", "address"),
    ("db:[::1:9191", "address"),
    ("db:[1.2.3.4]:9191", "address"),
    ("db:-x-:9191", "address"),
    ("db:unix:", "socket"),
    ("db:unix:run/db.sock", "socket"),
    ("db:unix:/run/", "socket"),
]


@pytest.mark.parametrize(("text", "field"), WRONG)
def test_each_mistake_names_its_field_its_value_and_a_remedy(text: str, field: str) -> None:
    with pytest.raises(InvalidUpstream) as caught:
        parse_upstream_flag(text)
    error = caught.value
    assert error.field == field
    assert error.value in text
    assert error.remedy
    assert str(error) == f"upstream {field} {error.value!r}: {error.remedy}"


def test_bind_alone_has_the_same_grammar() -> None:
    assert parse_bind("9191") == LocalBind("127.0.0.1", 9191)
    assert parse_bind("[::]:9191") == LocalBind("::", 9191)


def upstream(name: str, bind: Bind) -> Upstream:
    return Upstream(destination=ServiceDestination(name), bind=bind)


def test_the_first_upstream_gets_the_bind() -> None:
    first, second = upstream("a", LocalBind("127.0.0.1", 1)), upstream("b", LocalBind("127.0.0.1", 1))
    other = upstream("b", LocalBind("127.0.0.2", 1))
    assert first_of_each_bind([first, second, other, first]) == ((first, other), (second, first))


def test_a_socket_is_one_bind_whatever_its_mode() -> None:
    assert bind_key(SocketBind("/run/a", 0o600)) == bind_key(SocketBind("/run/a"))
    assert bind_key(SocketBind("/run/a")) != bind_key(SocketBind("/run/b"))


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        ("[::1]", "::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("::1", "::1"),
        ("[db]", "[db]"),
        ("[::1", "[::1"),
        ("[", "["),
        ("", ""),
    ],
)
def test_brackets_are_no_part_of_an_ipv6_address(host: str, bare: str) -> None:
    assert without_brackets(host) == bare
