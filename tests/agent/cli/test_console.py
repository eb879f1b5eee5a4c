"""What commands print."""

from __future__ import annotations

from agent.cli.console import effective_text, run_usage, usage
from agent.config.options import OPTIONS
from agent.config.settings import Origin, Rank


def test_the_list_of_commands() -> None:
    text = usage({"run": "run it", "check": "check it"})
    assert "  run         run it\n  check       check it\n" in text


def test_help_names_every_flag_its_variable_and_its_default() -> None:
    text = run_usage("run", "run it")
    for option in OPTIONS:
        assert f"  -{option.flag_name}" in text
        assert option.variable in text
    assert "CONSUL_HTTP_ADDR, default http://127.0.0.1:8500" in text
    assert "SIDECAR_ADMIN_BIND, default 127.0.0.1:19000" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_settings_in_columns() -> None:
    rows = [("a", "1", Origin(Rank.DEFAULT)), ("longer", "2", Origin(Rank.FLAG, "-longer"))]
    assert effective_text(rows) == "a = 1       # default\nlonger = 2  # flag -longer"
    assert effective_text([]) == ""
