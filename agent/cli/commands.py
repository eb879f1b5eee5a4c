"""The commands of `sidecar`: the module of each, and the line that says what it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: the module whose `main` runs it. `apart`: in another package.

    Its main has two arguments.
    """

    module: str
    says: str
    apart: bool = False


COMMANDS = {
    "run": Command(module="agent.run", says="run the sidecar of a service"),
    "connect": Command(
        module="agent.run", says="run, with the flags of `consul connect proxy` or `consul connect envoy`"
    ),
    "check": Command(module="agent.cli.check", says="validate the settings, print the effective ones"),
    "status": Command(module="agent.cli.admin_commands", says="print the state of a running agent"),
    "wait": Command(module="agent.cli.admin_commands", says="wait until a running agent is ready"),
    "rotate": Command(module="agent.cli.admin_commands", says="ask Consul for a new leaf now"),
    "log-level": Command(module="agent.cli.admin_commands", says="change the log level of a running agent"),
    "explain": Command(module="agent.cli.explain", says="may this source call that destination, and why"),
    "ping": Command(module="agent.cli.ping", says="walk the path to an upstream, station by station"),
    "doctor": Command(
        module="agent.cli.doctor", says="check everything that a sidecar needs to serve, line by line"
    ),
    "migrate": Command(
        module="agent.migration.migrate", says="what will differ from Consul's own proxy and from Envoy"
    ),
    "drain": Command(module="agent.cli.admin_commands", says="let a running agent finish and exit"),
    "units": Command(module="agent.deployment.units", says="print or install the systemd units"),
    "manual": Command(module="agent.deployment.manual", says="print a man page: sidecar or sidecar.toml"),
    "completion": Command(
        module="agent.deployment.completion", says="print the completions of a shell: bash, zsh or fish"
    ),
    "datacenter": Command(module="datacenter.__main__", says="run one embedded datacenter", apart=True),
    "demo": Command(module="datacenter.demo", says="run and prove two datacenters with sidecars", apart=True),
}

WORKER = "worker"  # started by an agent with `workers`, never by a person
