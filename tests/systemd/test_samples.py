"""The settings an operator copies: they parse, leave no setting out, and show true defaults."""

from __future__ import annotations

import re
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest

from agent.config.options import OPTIONS
from agent.config.parsers import parse_directory, parse_file
from agent.config.settings import resolve
from agent.config.upstream_config import KEYS
from agent.config.upstream_tables import read_tables
from tests.systemd.boot import CHECKOUT
from upstreams.spec import parse_upstream_flag

UNITS = CHECKOUT / "systemd"
SAMPLE = UNITS / "sidecar.toml"
OF_THE_READER = (parse_file, parse_directory)  # files that must exist on the reader's machine


def shown() -> dict[str, str]:
    """Key to value text of every setting in the sample, commented out or not; without the tables."""
    settings = SAMPLE.read_text().partition("# [[")[0]
    return dict(re.findall(r"^(?:# )?([a-z_]+) = (.+)$", settings, flags=re.MULTILINE))


def tables() -> object:
    """The upstreams of the sample, taken out of their comments."""
    text = "".join(SAMPLE.read_text().partition("# [[")[1:])
    lines = re.findall(r"^# (\[\[.+|[a-z_]+ = .+)$", text, flags=re.MULTILINE)
    return tomllib.loads("\n".join(lines))["upstreams"]


def property_of(unit: str, name: str) -> str:
    """One assignment of a unit's [Service] section."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / unit)
    return parser.get("Service", name)


@pytest.mark.parametrize("name", ["sidecar.toml", "web.toml"])
def test_a_sample_is_accepted_as_it_stands(name: str) -> None:
    assert resolve({}, {}, str(UNITS / name)).mistakes == ()


def test_the_sample_shows_every_setting_and_no_other() -> None:
    assert set(shown()) == {option.name for option in OPTIONS}


def test_the_sample_shows_every_setting_of_an_upstream() -> None:
    sample = tables()
    assert isinstance(sample, list)
    (table,) = sample
    assert set(table) == KEYS - {"poll_interval", "protocol"} | {"spec"}
    (upstream,), wrong = read_tables(sample)
    assert wrong == []
    plain = parse_upstream_flag(table["spec"])
    for name in ("connect_timeout", "deadline", "hold", "ejection"):
        assert getattr(upstream, name) == getattr(plain, name)


@pytest.mark.parametrize("name", [option.name for option in OPTIONS if option.read not in OF_THE_READER])
def test_what_the_sample_shows_can_be_read(tmp_path: Path, name: str) -> None:
    text = shown()[name]
    settings = tmp_path / "one.toml"
    settings.write_text(f"{name} = {text}\n")
    mistakes = resolve({}, {}, str(settings), identity_required=False).mistakes
    assert [
        mistake for mistake in mistakes if "as well" not in mistake.text and "only with" not in mistake.text
    ] == []


@pytest.mark.parametrize(
    "name", ["start_timeout", "drain_seconds", "max_connections", "max_handshakes", "workers", "log_level",
             "log_format", "wan_addresses", "http_ssl", "http_ssl_verify", "register"]
)  # fmt: skip
def test_a_default_the_sample_shows_is_the_default(name: str) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    value = tomllib.loads(f"value = {shown()[name]}")["value"]
    assert option.read(str(value).lower() if isinstance(value, bool) else str(value)) == option.default


def test_the_unit_waits_longer_than_the_sidecar_does() -> None:
    default = {option.name: option.default for option in OPTIONS}
    assert float(property_of("sidecar@.service", "TimeoutStartSec")) > float(str(default["start_timeout"]))
    assert float(property_of("sidecar@.service", "TimeoutStopSec")) > float(str(default["drain_seconds"]))


def test_an_app_beside_a_sidecar_wants_it_and_comes_after_it_and_nothing_stronger() -> None:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "app-beside-sidecar.conf")
    assert parser.sections() == ["Unit"]
    assert dict(parser.items("Unit")) == {"Wants": "sidecar@web.service", "After": "sidecar@web.service"}
