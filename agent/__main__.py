"""The command line: `sidecar COMMAND …`, which imports only the modules of that command.

The environment is read here and nowhere else; everything below receives values. Imports are late where a
command does without them (`agent.process.sink` brings trio, 13 MB; `agent.run` is 31 MB, `agent.cli.console`
5 MB), and because OpenSSL has to be prepared before the first import that loads it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, MutableMapping, Sequence

from agent import VERSION
from agent.base.exits import ExitCode
from agent.cli.commands import COMMANDS, WORKER, Command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        importlib.import_module("agent.process.sink").replace_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("help", "-h", "-help", "--help"):
        return _help(words[1:])
    name, *rest = words
    if name.lstrip("-") == "version":
        sys.stdout.write(f"sidecar {VERSION}\n")
        return ExitCode.CLEAN
    environ = os.environ  # noqa: TID251 - read here and nowhere else
    if name == WORKER:
        _one_openssl(environ)
        worker: Callable[[Sequence[str], MutableMapping[str, str]], int]
        worker = importlib.import_module("agent.workers.worker").start
        return worker(rest, environ)
    command = COMMANDS.get(name)
    if command is None:
        from agent.config.flags import did_you_mean  # noqa: PLC0415 - only for a mistake

        sys.stderr.write(
            f"sidecar: unknown command {name!r}{did_you_mean(name, COMMANDS)}; see `sidecar help`\n"
        )
        return ExitCode.USAGE
    if rest and rest[-1] in ("-h", "--h") and "--" not in rest:
        return _examples(name, command)
    try:
        return _run(name, command, rest, environ)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sidecar status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def _run(name: str, command: Command, words: list[str], environ: MutableMapping[str, str]) -> int:
    if environ.get("SIDECAR_UPGRADE_FD") and os.fork():
        os._exit(0)  # the child is the service manager's, as a main process must be (agent.handover.upgrade)
    if command.apart:
        return _run_apart(name, command, words, environ)
    if name in ("run", "connect"):
        _one_openssl(environ)
    from agent.cli.console import Console  # noqa: PLC0415 - `sidecar datacenter` does without

    console = Console(words=tuple(words), environ=environ, out=sys.stdout, err=sys.stderr)
    if name == "connect":
        from agent.cli.connect import as_run  # noqa: PLC0415 - only for this command

        translated = as_run(console)
        if not isinstance(translated, Console):
            return translated
        console = translated
    if name in ("run", "connect"):
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # a reload, an upgrade: both come by a start too
        run: Callable[[Console, MutableMapping[str, str]], int]
        run = importlib.import_module(command.module).start
        return run(console, environ)
    entry: Callable[[str, Console], int] = importlib.import_module(command.module).main
    return entry(name, console)


def _one_openssl(environ: MutableMapping[str, str]) -> None:
    """Prepare OpenSSL for a long-lived process, before any other import."""
    from agent.process.openssl import configure_the_first, defer_the_second  # noqa: PLC0415 - no matter to others

    defer_the_second()
    configure_the_first(environ)


def _run_apart(name: str, command: Command, words: list[str], environ: MutableMapping[str, str]) -> int:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("agent", "certs", "datacenter", "upstreams"):
            raise
        sys.stderr.write(
            f"sidecar: `{name}` needs the package {error.name!r}; install connect-sidecar[datacenter]\n"
        )
        return ExitCode.USAGE
    entry: Callable[[Sequence[str], MutableMapping[str, str]], int] = module.main
    return entry(words, environ)


def _examples(name: str, command: Command) -> int:
    short_help: Callable[[str, str], str] = importlib.import_module("agent.cli.console").short_help
    sys.stdout.write(f"{short_help(name, command.says)}\n")
    return ExitCode.CLEAN


def _help(words: Sequence[str]) -> int:
    if words and words[0] in COMMANDS:
        return main([words[0], "-help"])
    usage: Callable[[dict[str, str]], str] = importlib.import_module("agent.cli.console").usage
    sys.stdout.write(usage({name: command.says for name, command in COMMANDS.items()}))
    return ExitCode.CLEAN


if __name__ == "__main__":
    sys.exit(main())
