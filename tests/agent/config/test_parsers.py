"""Texts of settings, read into values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.config import parsers as values
from agent.config.options import LogLevel
from agent.config.parsers import ConsulAddress


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_what_go_calls_true(text: str) -> None:
    assert values.parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_what_go_calls_false(text: str) -> None:
    assert values.parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "on", "tRUE", "2"])
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="neither true nor false"):
        values.parse_bool(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("1.5", 1.5), ("0", 0.0), ("90s", 90.0), ("1m30s", 90.0)]
)
def test_seconds_bare_or_as_go_writes_them(text: str, seconds: float) -> None:
    assert values.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "ten", "5 s", "٣"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        values.parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8500", ConsulAddress(host="127.0.0.1", port=8500)),
        ("consul.internal", ConsulAddress(host="consul.internal", port=80)),
        ("http://consul.internal:8500/", ConsulAddress(host="consul.internal", port=8500)),
        ("https://consul.internal", ConsulAddress(host="consul.internal", port=443, tls=True)),
        ("https://[::1]:8501", ConsulAddress(host="::1", port=8501, tls=True)),
        ("[::1]", ConsulAddress(host="::1", port=80)),
        (":8500", ConsulAddress(host="127.0.0.1", port=8500)),
        ("unix:///run/consul.sock", ConsulAddress(socket="/run/consul.sock")),
    ],
)
def test_where_consul_is(text: str, address: ConsulAddress) -> None:
    assert values.parse_http_addr(text) == address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (ConsulAddress(host="::1", port=8501, tls=True), "https://[::1]:8501"),
        (ConsulAddress(host="a", port=1), "http://a:1"),
        (ConsulAddress(socket="/s"), "unix:///s"),
    ],
)
def test_where_consul_is_in_print(address: ConsulAddress, text: str) -> None:
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "ftp://a", "unix://relative", "http://a/path", "http://u:p@a", "a:0", "a:65536", "::1:8500"]
)
def test_nowhere_consul_could_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|scheme|port|brackets"):
        values.parse_http_addr(text)


@pytest.mark.parametrize(
    ("read", "text", "address"),
    [
        (values.parse_listen, "0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        (values.parse_listen, ":21000", TcpAddress("0.0.0.0", 21000)),
        (values.parse_listen, "[::]:21000", TcpAddress("::", 21000)),
        (values.parse_dial, ":8080", TcpAddress("127.0.0.1", 8080)),
        (values.parse_dial, "unix:/run/app.sock", UnixAddress("/run/app.sock")),
        (values.parse_admin, ":0", TcpAddress("127.0.0.1", 0)),
        (values.parse_admin, "unix:///run/admin.sock", UnixAddress("/run/admin.sock")),
    ],
)
def test_addresses(read: object, text: str, address: Address) -> None:
    assert callable(read)
    assert read(text) == address


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (values.parse_listen, "21000"),
        (values.parse_listen, "a:x"),
        (values.parse_dial, "a:0"),
        (values.parse_dial, "unix:app.sock"),
        (values.parse_admin, "unix:/run/"),
        (values.parse_admin, "a:b:1"),
    ],
)
def test_no_addresses(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"write|port|brackets"):
        read(text)


def test_one_of_an_enumeration_lists_the_others() -> None:
    read = values.one_of(LogLevel)
    assert read("warn") is LogLevel.WARN
    with pytest.raises(ValueError, match="'loud' is not one of debug, info, warn, error"):
        read("loud")


def test_files_and_directories_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert values.parse_file(str(file)) == file
    assert values.parse_directory(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match="there is no file"):
        values.parse_file(str(tmp_path))
    with pytest.raises(ValueError, match="there is no directory"):
        values.parse_directory(str(file))


def test_names_fit_into_a_url() -> None:
    assert values.parse_name("web-1.X_y") == "web-1.X_y"
    for text in ("", "a/b", "a b", "a?b", "a%2f", "a\x07"):
        with pytest.raises(ValueError, match="not a name"):
            values.parse_name(text)


def test_a_grace_may_be_for_ever() -> None:
    assert values.parse_grace("1m30s") == 90
    assert values.parse_grace("never") == math.inf
    with pytest.raises(ValueError, match="duration"):
        values.parse_grace("always")


def test_a_greatest_age_is_longer_than_a_quiet_consul_takes() -> None:
    assert values.parse_max_age("90") == values.LEAST_MAX_AGE
    assert values.parse_max_age("never") == math.inf
    for text in ("0", "89", "1m"):
        with pytest.raises(ValueError, match="give at least 90, or never"):
            values.parse_max_age(text)


def test_counts_and_texts() -> None:
    assert values.parse_count("12") == 12
    for text in ("", "-1", "1.5", "²"):
        with pytest.raises(ValueError, match="whole number"):
            values.parse_count(text)
    assert values.parse_text("x") == "x"
    with pytest.raises(ValueError, match="empty"):
        values.parse_text("")


def test_a_token_is_one_line_that_a_header_can_carry() -> None:
    for text in ("6b7e2f0e-1f4c-4b7a-8d43-0d1f2f7e6a11", "x", "two words"):
        assert values.parse_token(text) == text
    for text, fault in (("", "visible ASCII"), ("a\nb", "one line"), ("a\0b", "ASCII"), ("é", "ASCII")):
        with pytest.raises(ValueError, match=fault):
            values.parse_token(text)
