"""The table of settings: names are a contract, and the sample file knows them all."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agent.config.options import BY_NAME, CONFIG, OPTIONS
from agent.config.settings import resolve

ROOT = Path(__file__).resolve().parents[3]


def test_flags_of_the_contract() -> None:
    flags = {option.flag_name for option in OPTIONS} | {CONFIG.flag_name}
    assert flags >= {
        "sidecar-for", "proxy-id", "service", "listen", "service-addr", "upstream", "register", "config",
        "http-addr", "token", "token-file", "ca-file", "ca-path", "client-cert", "client-key",
        "tls-server-name", "namespace", "partition", "admin-bind", "log-level", "log-format", "drain-seconds",
        "start-timeout",
    }  # fmt: skip


def test_variables_of_our_own_start_with_sidecar() -> None:
    variables = [option.variable for option in OPTIONS]
    assert len(set(variables)) == len(variables)
    assert all(re.match(r"(CONSUL|CONNECT|SIDECAR)_[A-Z_]+$", variable) for variable in variables)


def test_defaults_are_what_their_readers_read() -> None:
    for option in OPTIONS:
        if option.default is None or option.repeatable:
            continue
        assert option.read(option.printed(option.default)) == option.default


def test_the_sample_file_names_every_setting() -> None:
    text = (ROOT / "systemd" / "sidecar.toml").read_text()
    named = re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE)
    assert set(BY_NAME) <= set(named)
    assert not resolve({}, {}, str(ROOT / "systemd" / "sidecar.toml")).mistakes
    assert tomllib.loads(text)


@pytest.mark.parametrize("name", ["sidecar_for", "proxy_id", "register_id"])
def test_ids_are_no_names(name: str) -> None:
    assert BY_NAME[name].read("web/1 #a?b%c") == "web/1 #a?b%c"
