"""`sidecar demo`: two federated datacenters with a sidecar beside each service, shown step by step.

    mesh.py     the processes, addresses and registrations
    origin.py   the workload, a plain HTTP server
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
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

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
from datacenter.demo.story import STEPS, Story, Told


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the story. Exit status 0 only if every step held (with `--keep`: and the user ended it)."""
    parser = argparse.ArgumentParser(prog="sidecar demo", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="plain output; exit 0 only if every step held")
    parser.add_argument("--keep", action="store_true", help="leave the mesh running until Ctrl-C")
    args = parser.parse_args([f"-{arg}" if arg in ("-check", "-keep") else arg for arg in argv])
    console = Console(no_color=args.check, highlight=False, soft_wrap=True)
    return trio.run(_demo, console, dict(environ), args.keep)


async def _demo(console: Console, environ: Mapping[str, str], keep: bool) -> int:
    directory = Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    addresses = free_addresses()
    processes = Processes(directory, child_environment(environ), commands(addresses, directory))
    told: list[Told] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            try:
                told = await _tell(console, Story(addresses, processes))
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


async def _tell(console: Console, story: Story) -> list[Told]:
    told: list[Told] = []
    for number, (title, step) in enumerate(STEPS.items(), 1):
        started = trio.current_time()
        try:
            seen, held = await step(story), True
        except (StepFailed, Unanswered) as error:
            seen, held = str(error), False
        row = Told(title=title, seen=seen, held=held, seconds=trio.current_time() - started)
        told.append(row)
        mark = "[green]held[/]" if held else "[red]FAILED[/]"
        console.print(f"{number}/{len(STEPS)} {title} … {mark} ({row.seconds:.1f} s)")
        if not held:
            break  # the later steps depend on this one
    for name, status in story.processes.ended().items():
        told.append(
            Told(title=f"process “{name}”", seen=f"ended by itself, status {status}", held=False, seconds=0)
        )
    console.print(_table(told))
    return told


def _table(told: Sequence[Told]) -> Table:
    table = Table(show_lines=True, width=None)
    table.add_column("step", ratio=2)
    table.add_column("seen", ratio=5, overflow="fold")
    table.add_column("held")
    for row in told:
        table.add_row(row.title, row.seen, "[green]yes[/]" if row.held else "[red]NO[/]")
    return table


async def _keep(console: Console, processes: Processes, addresses: Addresses) -> None:
    console.print("\nThe mesh runs until Ctrl-C. Try:")
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
