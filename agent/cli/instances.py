"""Finds the running agents of this machine by the admin sockets that the units give them.

`sidecar@NAME` has its admin socket at /run/connect-sidecar/NAME/admin.sock (systemd/README.md). The directory
is its user's and root's, so another user sees the name and no more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.base.address import Address, UnixAddress
from agent.base.exits import Exit, ExitCode
from agent.config.options import ADMIN_ADDRESS
from agent.config.settings import Rank, Settings

RUNTIME = Path("/run/connect-sidecar")
SETTINGS = Path("/etc/connect-sidecar")
SOCKET = "admin.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The directory of one instance. `problem`: why this user cannot talk to its agent; empty if they can."""

    name: str
    path: Path
    problem: str = ""

    @property
    def address(self) -> UnixAddress:
        """Return where its admin endpoint listens. Raises Exit where this user may not go."""
        if self.problem:
            raise Exit(ExitCode.PERMISSION, self.problem)
        return UnixAddress(str(self.path))


def instances() -> list[Instance]:
    """Return the instances that have an admin socket, or may have one that this user cannot see, by name."""
    try:
        found = sorted(RUNTIME.iterdir())
    except OSError:
        return []
    return [instance for instance in map(_look, found) if instance is not None]


def _look(directory: Path) -> Instance | None:
    path = directory / SOCKET
    try:
        path.stat()
    except PermissionError:
        return _closed(directory.name, directory)
    except OSError:
        return None
    if os.access(path, os.W_OK, effective_ids=True):
        return Instance(name=directory.name, path=path)
    return _closed(directory.name, path)


def _closed(name: str, place: Path) -> Instance:
    problem = (
        f"{place} is not open to this user: run the command as root, or as a member of the operators' group"
    )
    return Instance(name=name, path=place, problem=problem)


def named(name: str) -> Instance:
    """Return the instance of this name. Raises Exit, with the names that there are."""
    present = instances()
    for instance in present:
        if instance.name == name:
            return instance
    there = f"there is {_names(present)}" if present else "there is no instance at all"
    raise Exit(ExitCode.UNAVAILABLE, f"no instance {name!r} below {RUNTIME}; {there}")


def only(present: Sequence[Instance]) -> Address:
    """Return the address of the one instance, or the default of `admin_bind` where there is none.

    Raises Exit, with all names, where there are several.
    """
    if not present:
        return ADMIN_ADDRESS
    if len(present) > 1:
        raise Exit(ExitCode.USAGE, f"several instances run here, say which: {_names(present)}")
    return present[0].address


def beside(settings: Settings) -> Address:
    """Return where the agent of these settings has its admin endpoint. Raises Exit.

    The unit says it in a variable, which a command of the operator's does not have: where the settings come
    from /etc/connect-sidecar/NAME.toml, and say nothing of it, it is that of the instance NAME.
    """
    if settings.origins["admin_bind"].rank is not Rank.DEFAULT:
        return settings.admin_bind[0]
    files = {Path(origin.place) for origin in settings.origins.values() if origin.rank is Rank.FILE}
    names = {file.stem for file in files if file.parent == SETTINGS}
    return only([instance for instance in instances() if not names or instance.name in names])


def _names(present: Sequence[Instance]) -> str:
    return ", ".join(instance.name for instance in present)
