"""An error says which command to run next."""

from __future__ import annotations

import shutil

import pytest

from agent.base.exits import ExitCode
from agent.cli.commands import COMMANDS
from agent.log.next_steps import NEXT, after_exit, next_step
from tests.reference import events

# Events that one function writes beside an error, at a lower level.
NO_ERRORS = {"credentials.published", "token.usable", "watchdog.fed"}


def test_every_event_that_is_an_error_has_a_next_step_and_no_other() -> None:
    errors = {event.name for event in events() if "error" in event.levels} - NO_ERRORS
    assert set(NEXT) | {"exit"} == errors
    assert next_step("ready") == ""


@pytest.mark.parametrize("step", sorted({*NEXT.values(), *map(after_exit, ExitCode)}))
def test_the_next_step_is_a_command_that_there_is(step: str) -> None:
    program, *words = step.split()
    assert words[0] in COMMANDS if program == "sidecar" else shutil.which(program)
