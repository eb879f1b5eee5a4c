"""Settings read anew: what changes while the agent runs, and what waits."""

from __future__ import annotations

from pathlib import Path

from agent.config.options import OPTIONS
from agent.config.reload import LIVE, reload
from tests.support.agent_parts import settings

README = Path(__file__).parents[3] / "systemd" / "README.md"


def test_what_can_change_changes_and_the_rest_is_named() -> None:
    before = settings(drain_seconds="5", max_handshakes="9")
    read = settings(drain_seconds="7", narrow=["web@dc1"], workers="2", http_addr="127.0.0.1:1")
    reloaded = reload(before, read)
    assert reloaded.changed == ("drain_seconds", "narrow")
    assert reloaded.waiting == ("http_addr", "max_handshakes", "workers")
    assert (reloaded.settings.drain_seconds, reloaded.settings.narrow) == (7, read.narrow)
    assert (reloaded.settings.workers, reloaded.settings.max_handshakes) == (1, 9)
    assert str(reloaded.settings.origins["drain_seconds"]) == "flag -drain-seconds"


def test_what_waits_goes_on_waiting() -> None:
    before, read = settings(), settings(workers="2")
    again = reload(reload(before, read).settings, read)
    assert (again.changed, again.waiting) == ((), ("workers",))


def test_the_operators_page_names_what_is_carried_out() -> None:
    assert {option.name for option in OPTIONS} >= LIVE
    section = README.read_text().partition("## Change the settings while it runs")[2].partition("\n## ")[0]
    carried_out = section.partition("A restart is needed")[0]
    assert {name for name in LIVE if f"`{name}`" in carried_out} == LIVE
