"""One datacenter by itself, embedded or a real Consul, in which ACLs decide what holds without a rule.

Who asks does so with a token that may write any service and any intention and is no manager: of a manager
Consul says that by default he may all, whatever the default policy is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Literal
from uuid import uuid4

from tests.contract.client import Api
from tests.contract.federation import START_SECONDS, Kind, consul_binary, free_port, switched_off
from tests.contract.processes import process

Default = Literal["allow", "deny"]

RULES = 'service_prefix "" { policy = "write" intentions = "write" }'
IDENTITY = "db"  # a service with a service identity, as a sidecar has it
IDENTITY_TOKEN = "7d5b0b3e-6c1f-4d0a-9a55-3f2c1b7e8d90"


@contextmanager
def alone(kind: Kind, default: Default, directory: Path, *, intentions: str = "") -> Iterator[Api]:
    """Ready, and asked with the token. `intentions`: the default for them, of an embedded one."""
    with managed(kind, default, directory, intentions=intentions) as (api, _):
        yield api


@contextmanager
def managed(
    kind: Kind,
    default: Default,
    directory: Path,
    *,
    intentions: str = "",
    connections: int = 200,
    tokens: str = "",
) -> Iterator[tuple[Api, Api]]:
    """The same, and asked with a manager's token too.

    `connections`: how many the agent takes of one client address. `tokens`: more of an embedded one's, as its
    file has them.
    """
    port, manager, token = free_port(), str(uuid4()), str(uuid4())
    if kind == "embedded":
        written = f'[[tokens]]\nsecret = "{manager}"\npolicy = "management"\n{tokens}'
        command = _embedded(default, directory, port, token, written)
        command += ["-http-max-conns-per-client", str(connections)]
    else:
        command = _consul(default, directory, port, manager, connections)
    command += ["-default-intention-policy", intentions] if intentions else []
    with ThreadPoolExecutor(max_workers=1) as threads, process(command, directory / "log") as member:
        url = f"http://127.0.0.1:{port}"
        api = Api("dc1", url, threads, token=token)
        managing = Api("dc1", url, threads, token=manager)
        deadline = monotonic() + START_SECONDS
        while missing := _missing(api) if kind == "embedded" else _consul_missing(api, managing, token):
            member.must_live()
            assert monotonic() < deadline, f"not ready, {missing}:\n{member.last_words()}"
            sleep(0.1)  # a poll of another process's readiness; there is nothing to wait on
        yield api, managing


def _embedded(default: Default, directory: Path, port: int, token: str, more: str) -> list[str]:
    file = directory / "dc1.toml"
    every = '[tokens.policy.{kind}_prefix]\n"" = "write"\n'
    rules = "".join(every.format(kind=kind) for kind in ("service", "intentions"))
    identity = (
        f'[[tokens]]\nsecret = "{IDENTITY_TOKEN}"\n[tokens.policy]\nservice_identities = ["{IDENTITY}"]\n'
    )
    file.write_text(f'[[tokens]]\nsecret = "{token}"\n{rules}{identity}{more}')
    command = [sys.executable, "-m", "agent", "datacenter", "-name", "dc1", "-config", str(file)]
    command += ["-http-addr", f"127.0.0.1:{port}", "-data-dir", str(directory / "dc1")]
    return [*command, "-default-policy", default]


def _consul(default: Default, directory: Path, port: int, manager: str, connections: int) -> list[str]:
    binary = consul_binary()
    assert binary
    ports = {
        "http": port,
        **{name: free_port() for name in ("serf_lan", "server")},
        **switched_off(binary, "https", "grpc", "dns", "serf_wan"),
    }
    settings = {
        "datacenter": "dc1",
        "server": True,
        "bootstrap_expect": 1,
        "data_dir": str(directory / "dc1"),
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": ports,
        "connect": {"enabled": True},
        "limits": {"http_max_conns_per_client": connections},
        "acl": {"enabled": True, "default_policy": default, "tokens": {"master": manager}},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
    }
    file = directory / "dc1.json"
    file.write_text(json.dumps(settings))
    return [binary, "agent", "-config-file", str(file)]


def _consul_missing(api: Api, managing: Api, token: str) -> str:
    """What is not there yet; the token and its policy are made on the way."""
    try:
        managing.put("/v1/acl/policy", {"Name": "any-service", "Rules": RULES})
        managing.put("/v1/acl/token", {"SecretID": token, "Policies": [{"Name": "any-service"}]})
        identity = {"SecretID": IDENTITY_TOKEN, "ServiceIdentities": [{"ServiceName": IDENTITY}]}
        managing.put("/v1/acl/token", identity)
    except ConnectionError as error:
        return str(error)
    return _missing(api)


def _missing(api: Api) -> str:
    try:
        answer = api.get("/v1/connect/intentions/check?source=web&destination=nobody")
    except ConnectionError as error:
        return str(error)
    return "" if answer.status == 200 else answer.text
