"""`sidecar demo`: two federated datacenters with a sidecar beside each service, shown step by step.

    mesh.py     the processes, addresses and registrations
    origin.py   the workload, a plain HTTP server
    showing.py  what is printed
    story.py    the steps; each one checks its result before it says that it held
    looking.py  waiting for a condition; requests that never stop
    http.py     one request on one connection

It uses only what a user can: processes, HTTP, TCP.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import trio
from rich.console import Console

from datacenter.demo.http import Unanswered
from datacenter.demo.looking import StepFailed
from datacenter.demo.mesh import (
    UPSTREAM_PORTS,
    Addresses,
    Processes,
    admin_socket,
    child_environment,
    commands,
    free_addresses,
)
from datacenter.demo.showing import MESH, Told, seen_lines, step_line
from datacenter.demo.story import STEPS, Story


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the story. Exit status 0 only if every step held (with `--keep`: and the user ended it)."""
    parser = argparse.ArgumentParser(prog="sidecar demo", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="plain output; exit 0 only if every step held")
    parser.add_argument("--keep", action="store_true", help="leave the mesh running until Ctrl-C")
    args = parser.parse_args([f"-{arg}" if arg in ("-check", "-keep", "-help") else arg for arg in argv])
    return trio.run(_demo, console_for(environ, sys.stdout, plain=args.check), dict(environ), args.keep)


def console_for(environ: Mapping[str, str], out: IO[str], *, plain: bool) -> Console:
    """Return what prints: in colour only to a terminal, and never where `plain` or NO_COLOR says so."""
    return Console(file=out, no_color=plain or None, highlight=False, soft_wrap=True, _environ=environ)


async def _demo(console: Console, environ: Mapping[str, str], keep: bool) -> int:
    directory = Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    addresses = free_addresses()
    processes = Processes(directory, child_environment(environ), commands(addresses, directory))
    told: list[Told] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            try:
                told = await tell(console, Story(addresses, processes))
                if keep:
                    await _keep(console, processes, addresses)
            finally:
                with trio.CancelScope(shield=True):
                    await processes.stop_all()
            nursery.cancel_scope.cancel()
    held = len(told) == len(STEPS) and all(row.held for row in told)
    if held:
        shutil.rmtree(directory)
    else:
        console.print(f"logs and data: {directory}")
    return 0 if held else 1


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def tell(console: Console, story: Story) -> list[Told]:
    """Take the steps one after the other, until one fails, and print each."""
    told: list[Told] = []
    _say(console, MESH)
    for number, (title, step) in enumerate(STEPS.items(), 1):
        started = trio.current_time()
        with console.status(f"{number}/{len(STEPS)}  {title}") if console.is_terminal else nullcontext():
            try:
                seen, held = await step(story), True
            except (StepFailed, Unanswered) as error:
                seen, held = str(error), False
        row = Told(title=title, seen=seen, held=held, seconds=trio.current_time() - started)
        told.append(row)
        _say(console, step_line(number, len(STEPS), row), "green" if held else "bold red")
        _say(console, seen_lines(row), "dim")
        if not held:
            break  # the later steps depend on this one
    for name, status in story.processes.ended().items():
        seen = f"process “{name}” ended by itself, status {status}"
        told.append(Told(title=name, seen=seen, held=False, seconds=0))
        _say(console, seen, "bold red")
    return told


def _say(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is: what a peer has said is no markup."""
    console.print(text, style=style or None, markup=False)


async def _keep(console: Console, processes: Processes, addresses: Addresses) -> None:
    console.print("\nThe mesh runs until Ctrl-C. Try:")
    for service, datacenter in (("web", "dc1"), ("db", "dc2")):
        page = addresses.admin(service, datacenter)
        console.print(f"  {page}/    # the page of the sidecar of {service}@{datacenter}")
    for name in UPSTREAM_PORTS:
        console.print(f"  curl {addresses.upstream(name)}/    # {name}")
    console.print(f"  curl -X PUT {addresses.api('dc1')}/v1/connect/ca/rotate    # a new root of trust")
    for action, says in (("status", "which leaf, which roots"), ("rotate", "a new leaf now")):
        socket = admin_socket(processes.directory, "web", "dc1")
        console.print(f"  sidecar {action} -admin-bind unix:{socket}    # {says}")
    console.print("\nKill any one of these, start it again with its command, and the story goes on:")
    for name, command in processes.commands.items():
        console.print(f"  {name} (pid {processes.running[name].pid}, log {processes.log(name)})")
        console.print(f"    {shlex.join(command)}")
    await trio.sleep_forever()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], {}))
