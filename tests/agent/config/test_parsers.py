"""Texts of settings, read into values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.config import parsers
from agent.config.options import LogLevel
from agent.config.parsers import ConsulAddress


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_what_go_calls_true(text: str) -> None:
    assert parsers.parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_what_go_calls_false(text: str) -> None:
    assert parsers.parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "on", "tRUE", "2"])
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="neither true nor false"):
        parsers.parse_bool(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("1.5", 1.5), ("0", 0.0), ("90s", 90.0), ("1m30s", 90.0)]
)
def test_seconds_bare_or_as_go_writes_them(text: str, seconds: float) -> None:
    assert parsers.parse_seconds(text) == seconds


def test_seconds_that_go_cannot_count_are_too_long_bare_too() -> None:
    """Where they are added to a date, there is none so late."""
    for text in ("9223372037", "9" * 400):
        with pytest.raises(ValueError, match="longer than the 292 years"):
            parsers.parse_max_age(text)
    assert parsers.parse_seconds("9223372036") == 9223372036.0


@pytest.mark.parametrize("text", ["", "-1", "ten", "5 s", "٣"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parsers.parse_seconds(text)


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
    assert parsers.parse_http_addr(text) == address


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
        parsers.parse_http_addr(text)


@pytest.mark.parametrize(
    ("read", "text", "address"),
    [
        (parsers.parse_listen, "0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        (parsers.parse_listen, ":21000", TcpAddress("0.0.0.0", 21000)),
        (parsers.parse_listen, "[::]:21000", TcpAddress("::", 21000)),
        (parsers.parse_dial, ":8080", TcpAddress("127.0.0.1", 8080)),
        (parsers.parse_dial, "unix:/run/app.sock", UnixAddress("/run/app.sock")),
        (parsers.parse_admin, ":0", TcpAddress("127.0.0.1", 0)),
        (parsers.parse_admin, "unix:///run/admin.sock", UnixAddress("/run/admin.sock")),
    ],
)
def test_addresses(read: object, text: str, address: Address) -> None:
    assert callable(read)
    assert read(text) == address


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parsers.parse_listen, "21000"),
        (parsers.parse_listen, "a:x"),
        (parsers.parse_dial, "a:0"),
        (parsers.parse_dial, "unix:app.sock"),
        (parsers.parse_admin, "unix:/run/"),
        (parsers.parse_admin, "a:b:1"),
    ],
)
def test_no_addresses(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"write|port|brackets"):
        read(text)


def test_one_of_an_enumeration_lists_the_others() -> None:
    read = parsers.OneOf(LogLevel)
    assert read("warn") is LogLevel.WARN
    with pytest.raises(ValueError, match="'loud' is not one of debug, info, warn, error"):
        read("loud")


def test_files_and_directories_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert parsers.parse_file(str(file)) == file
    assert parsers.parse_directory(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match="there is no file"):
        parsers.parse_file(str(tmp_path))
    with pytest.raises(ValueError, match="there is no directory"):
        parsers.parse_directory(str(file))


def test_names_fit_into_a_url() -> None:
    assert parsers.parse_name("web-1.X_y") == "web-1.X_y"
    for text in ("", "a/b", "a b", "a?b", "a%2f", "a\x07"):
        with pytest.raises(ValueError, match="not a name"):
            parsers.parse_name(text)


@pytest.mark.parametrize("text", ["web-1", "a/b", "a b", " a", "a?b", "a#b", "100%", "a%2fb", "grün"])
def test_an_id_is_any_printable_text(text: str) -> None:
    assert parsers.parse_id(text) == text


@pytest.mark.parametrize("text", ["", " ", "a\x07", "a\nb", "a\r"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        parsers.parse_id(text)


def test_a_grace_may_be_for_ever() -> None:
    assert parsers.parse_grace("1m30s") == 90
    assert parsers.parse_grace("never") == math.inf
    with pytest.raises(ValueError, match="duration"):
        parsers.parse_grace("always")


def test_a_greatest_age_is_longer_than_a_quiet_consul_takes() -> None:
    assert parsers.parse_max_age("90") == parsers.LEAST_MAX_AGE
    assert parsers.parse_max_age("never") == math.inf
    for text in ("0", "89", "1m"):
        with pytest.raises(ValueError, match="give at least 90, or never"):
            parsers.parse_max_age(text)


def test_counts_and_texts() -> None:
    assert parsers.parse_count("12") == 12
    for text in ("", "-1", "1.5", "²"):
        with pytest.raises(ValueError, match="whole number"):
            parsers.parse_count(text)
    assert parsers.parse_text("x") == "x"
    with pytest.raises(ValueError, match="empty"):
        parsers.parse_text("")


def test_a_token_is_one_line_that_a_header_can_carry() -> None:
    for text in ("6b7e2f0e-1f4c-4b7a-8d43-0d1f2f7e6a11", "x", "two words"):
        assert parsers.parse_token(text) == text
    for text, fault in (("", "visible ASCII"), ("a\nb", "one line"), ("a\0b", "ASCII"), ("é", "ASCII")):
        with pytest.raises(ValueError, match=fault):
            parsers.parse_token(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("10s", 10.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("300ms", 0.3),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("2μs", 2e-6),
        ("5ns", 5e-9),
        ("1m1s1ms", 61.001),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parsers.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-1s", "+1s", "1d", "1s2", "1,5s", "1..5s", "٣s", "1S"]
)
def test_mistakes_show_the_value_and_a_remedy(text: str) -> None:
    with pytest.raises(parsers.InvalidDuration, match="write one as 10s") as caught:
        parsers.parse_duration(text)
    assert repr(text) in str(caught.value)


def test_a_long_row_of_digits_is_no_work() -> None:
    """Were there several ways to read it, this would not end."""
    with pytest.raises(parsers.InvalidDuration):
        parsers.parse_duration("9" * 200_000)
    assert parsers.parse_duration("0" * 200_000 + "h") == 0.0


def test_what_go_cannot_count_is_too_long() -> None:
    assert parsers.parse_duration("2562047h") == 2562047 * 3600
    with pytest.raises(parsers.InvalidDuration, match="longer than the 292 years"):
        parsers.parse_duration("2562048h")
