"""The usage of every command: what it does, its words, and its flags in groups, as its `-help` has them.

The commands of the embedded datacenter are another package's and print theirs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.cli import admin_commands, check, connect, doctor, explain, ping
from agent.cli.commands import COMMANDS
from agent.cli.console import RUN_GROUPS
from agent.config.options import LogLevel, Option
from agent.deployment import units
from agent.migration import migrate

PAGES = ("sidecar", "sidecar.toml")
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The usage of one command. `words`: what may be said beside flags, where there is a choice."""

    says: str
    form: str = ""
    groups: Mapping[str, Sequence[Option]] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def options(self) -> list[Option]:
        """Every flag of the command."""
        return [option for group in self.groups.values() for option in group]


def usages() -> dict[str, Usage]:
    """Return the usage of each command, in the order of `sidecar help`."""
    found = {
        "run": Usage(says=COMMANDS["run"].says, groups=RUN_GROUPS),
        "connect": Usage(says=connect.SAYS, form="proxy|envoy", groups=RUN_GROUPS, words=("proxy", "envoy")),
        "check": Usage(says=check.SAYS, form="[FILE]", groups=RUN_GROUPS),
        "explain": Usage(says=explain.SAYS, groups=explain.GROUPS),
        "ping": Usage(says=ping.SAYS, form=ping.FORM, groups=doctor.GROUPS),
        "doctor": Usage(says=doctor.SAYS, groups=doctor.GROUPS),
        "migrate": Usage(says=migrate.SAYS, groups=migrate.GROUPS),
        "units": Usage(
            says=units.SAYS, form=units.FORM, groups={"flags": units.OPTIONS}, words=tuple(units.names())
        ),
        "manual": Usage(says=COMMANDS["manual"].says, form="[PAGE]", words=PAGES),
        "completion": Usage(says=COMMANDS["completion"].says, form="SHELL", words=SHELLS),
    }
    for name, options in admin_commands.FLAGS.items():
        found[name] = Usage(
            says=admin_commands.SAYS[name],
            form=admin_commands.form_of(name),
            groups={"flags": options},
            words=tuple(LogLevel) if name == "log-level" else (),
        )
    return {name: found.get(name, Usage(says=command.says)) for name, command in COMMANDS.items()}
