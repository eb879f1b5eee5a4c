"""`sidecar connect proxy …` and `sidecar connect envoy …`: runs the agent by a command line of Consul's CLI.

A unit that starts Consul's own proxy, or Envoy through Consul, needs another program's name only.
"""

from __future__ import annotations

from dataclasses import replace

from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.cli.consul_flags import DIALECTS, translate

SAYS = "run the sidecar with the flags of `consul connect proxy` or `consul connect envoy`"

_USAGE = f"""\
usage: sidecar connect proxy [FLAGS]
       sidecar connect envoy [FLAGS] [-- WORDS FOR ENVOY]

  {SAYS}

Flags mean what they mean in Consul's CLI, or are ignored with a line that names them: docs/migrating.md.
The flags of `sidecar run` are taken too."""


def as_run(console: Console) -> Console | ExitCode:
    """Return the console that `run` is to have, with the mistakes; the exit code where help was asked for."""
    kind, *words = console.words or ("",)
    if kind in ("-h", "-help", "--help"):
        console.say(_USAGE)
        return ExitCode.CLEAN
    if kind not in DIALECTS:
        what = f"{kind!r} is neither proxy nor envoy" if kind else "say which: proxy or envoy"
        mistake = f"connect: {what}; Consul's other commands stay with Consul's CLI"
        return replace(console, words=(), mistakes=(mistake,))
    translation = translate(kind, words, console.environ)
    if translation.help_wanted:
        console.say(_USAGE)
        return ExitCode.CLEAN
    mistakes = tuple(f"connect {kind}: {mistake}" for mistake in translation.mistakes)
    return replace(console, words=translation.words, notes=translation.notes, mistakes=mistakes)
