"""Flags and file of `sidecar datacenter`: what they come to, and every mistake at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datacenter.config.options import OPTIONS, UsageMistake, parse_flags, read_settings, usage
from datacenter.state.settings import Settings


def read(*words: str) -> Settings:
    settings, mistakes = read_settings(parse_flags(["-data-dir", "/d", *words]))
    assert mistakes == []
    assert settings is not None
    return settings


def mistakes_of(*words: str) -> list[str]:
    settings, mistakes = read_settings(parse_flags(words))
    assert settings is None
    return mistakes


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "dc.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ["-name", "dc1", "-translate-wan-addrs"],
        ["--name", "dc1", "--translate-wan-addrs"],
        ["-name=dc1", "-translate-wan-addrs=true"],
    ],
)
def test_flags_have_one_dash_or_two(words: list[str]) -> None:
    assert parse_flags(words) == {"name": "dc1", "translate-wan-addrs": True}


@pytest.mark.parametrize("text", ["false", "FALSE", "0"])
def test_a_switch_can_be_off(text: str) -> None:
    assert parse_flags([f"-translate-wan-addrs={text}"]) == {"translate-wan-addrs": False}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-bogus"], "unknown argument '-bogus'"),
        (["--nam", "dc1"], "unknown argument '--nam'"),
        (["-nam", "dc1"], "unknown argument '-nam'"),
        (["dc1"], "unknown argument 'dc1'"),
        (["-name", "a", "b"], "unknown argument 'b'"),
        (["-name"], "argument --name: expected one argument"),
        (["-translate-wan-addrs=off"], "argument --translate-wan-addrs: true or false is needed, not 'off'"),
    ],
)
def test_a_command_line_that_cannot_be_read_says_why(words: list[str], says: str) -> None:
    with pytest.raises(UsageMistake, match=says):
        parse_flags(words)


def test_usage_names_every_flag() -> None:
    assert all(f"-{name} " in usage() for name in OPTIONS)


def test_defaults() -> None:
    settings = read("-name", "dc1")
    assert settings == Settings(
        name="dc1",
        http_addr="127.0.0.1:8500",
        data_dir=Path("/d"),
        primary_datacenter="dc1",
        node_name="dc1-node",
    )
    assert settings.is_primary
    assert not settings.acls_enabled
    assert settings.http_hosts == ()
    assert settings.default_intention_policy == ""


@pytest.mark.parametrize("policy", ["allow", "deny"])
def test_the_default_for_intentions_is_a_setting_of_its_own(tmp_path: Path, policy: str) -> None:
    file = tmp_path / "dc1.toml"
    file.write_text(f'name = "dc1"\ndata_dir = "/d"\ndefault_intention_policy = "{policy}"\n')
    by_flag = read("-name", "dc1", "-data-dir", "/d", "-default-intention-policy", policy)
    for settings in (by_flag, read("-config", str(file))):
        assert (settings.default_intention_policy, settings.acls_enabled) == (policy, False)


def test_a_secondary(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(" secret\n")
    settings = read(
        *("-name", "DC2", "-primary-datacenter", "dc1", "-primary-addr", "http://10.0.0.1:8500/"),
        *("-replication-token-file", str(token), "-default-policy", "deny", "-leaf-ttl", "1h"),
    )
    assert (settings.name, settings.primary_datacenter, settings.primary_addr) == (
        "dc2",
        "dc1",
        "http://10.0.0.1:8500",
    )
    assert (settings.is_primary, settings.replication_token, settings.acls_enabled) == (False, "secret", True)
    assert settings.leaf_ttl == 3600


def test_names_of_the_api_are_a_list() -> None:
    settings = read("-name", "dc1", "-data-dir", "/d", "-http-hosts", "consul.internal, box")
    assert settings.http_hosts == ("consul.internal", "box")


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("10.0.0.1:8500", "10.0.0.1"),
        ("0.0.0.0:8500", "127.0.0.1"),
        ("[::]:8500", "127.0.0.1"),
        ("[fd00::1]:8500", "fd00::1"),
        ("unix:///run/x", "127.0.0.1"),
    ],
)
def test_the_node_is_known_by_the_address(address: str, node: str) -> None:
    settings = read("-name", "dc1", "-http-addr", address)
    assert (settings.node_address, settings.node_wan_address) == (node, node)


def test_the_node_s_addresses_can_be_given() -> None:
    settings = read("-name", "dc1", "-node-address", "10.0.0.9")
    assert (settings.node_address, settings.node_wan_address) == ("10.0.0.9", "10.0.0.9")
    settings = read("-name", "dc1", "-node-wan-address", "192.0.2.1", "-node-name", "n1")
    assert (settings.node_address, settings.node_wan_address, settings.node_name) == (
        "127.0.0.1",
        "192.0.2.1",
        "n1",
    )


def test_a_file_and_a_flag_over_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        name = "dc1"
        http_addr = "127.0.0.1:9999"
        translate_wan_addrs = true
        log_level = "debug"
        [[tokens]]
        secret = "s"
        policy = "management"
        """,
    )
    settings = read("-config", path, "-log-level", "error")
    assert (settings.http_addr, settings.translate_wan_addrs, settings.log_level) == (
        "127.0.0.1:9999",
        True,
        "error",
    )
    assert [token.policy.management for token in settings.tokens] == [True]


MISTAKES: dict[str, list[str]] = {
    "name is required": ["-data-dir", "/d"],
    "data-dir is required": ["-name", "dc1"],
    "name: 'a b' must consist of": ["-name", "a b"],
    "http-addr: '8500' must be HOST:PORT or unix:///PATH": ["-http-addr", "8500"],
    "http-addr: 'a:99999' must be HOST:PORT": ["-http-addr", "a:99999"],
    "http-addr: 'unix://x' needs an absolute path": ["-http-addr", "unix://x"],
    "primary-addr: 'dc1:8500' is no URL": ["-primary-datacenter", "dc0", "-primary-addr", "dc1:8500"],
    "primary-addr is required when": ["-primary-datacenter", "dc0"],
    "primary-addr: only a secondary has one": ["-name", "dc1", "-primary-addr", "http://a:1"],
    "advertise-addr is required": [
        *("-name", "dc2", "-http-addr", "unix:///s"),
        *("-primary-datacenter", "dc1", "-primary-addr", "http://a:1"),
    ],
    "default-policy: 'maybe' must be one of allow, deny": ["-default-policy", "maybe"],
    "default-intention-policy: 'no' must be one of allow, deny": ["-default-intention-policy", "no"],
    "leaf-ttl: '3 days' is no duration": ["-leaf-ttl", "3 days"],
    "leaf-ttl: '-1h' is no duration": ["-leaf-ttl=-1h"],
    "leaf-ttl must be more than 0": ["-leaf-ttl", "0"],
    "log-level: 'loud' must be one of info, debug, warning, error": ["-log-level", "loud"],
    "replication-token-file: /nowhere cannot be read: no such file": ["-replication-token-file", "/nowhere"],
    "config: /nowhere cannot be read: no such file": ["-config", "/nowhere"],
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.items())
def test_mistakes(text: str, words: list[str]) -> None:
    assert [mistake for mistake in mistakes_of(*words) if mistake.startswith(text)]


FILES: dict[str, str] = {
    "config: {} is no TOML": "name = ",
    "unknown setting 'nmae'": 'nmae = "dc1"',
    "unknown setting 'config'": 'config = "x"',
    "name: a text is needed, not 1": "name = 1",
    "translate-wan-addrs: true or false is needed, not 'yes'": 'translate_wan_addrs = "yes"',
    "tokens, number 1: a secret is required": "[[tokens]]",
    "tokens: write each as [[tokens]]": "tokens = 1",
}


@pytest.mark.parametrize(("text", "content"), FILES.items())
def test_mistakes_in_the_file(text: str, content: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    assert [mistake for mistake in mistakes_of("-config", path) if mistake.startswith(text.format(path))]


def test_an_empty_token_file(tmp_path: Path) -> None:
    path = written(tmp_path, "\n")
    assert f"replication-token-file: {path} is empty" in mistakes_of("-replication-token-file", path)


def test_every_mistake_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, 'bogus = 1\nleaf_ttl = "x"\n[[tokens]]\nsecret = ""')
    found = mistakes_of("-config", path, "-log-level", "loud")
    assert len(found) == 6  # token, unknown key, name, data-dir, leaf-ttl, log-level
    assert all(isinstance(mistake, str) for mistake in found)


def test_no_secret_is_in_a_mistake(tmp_path: Path) -> None:
    tokens: dict[str, Any] = {"policy": '{ service = "hunter2" }'}
    path = written(tmp_path, f'[[tokens]]\nsecret = "hunter2"\npolicy = {tokens["policy"]}')
    assert not any("hunter2" in mistake for mistake in mistakes_of("-config", path))
