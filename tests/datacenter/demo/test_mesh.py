"""What the demo registers and starts."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from datacenter.demo.mesh import (
    API_PORT,
    LAN_PORT,
    WAN_PORT,
    Addresses,
    Processes,
    child_environment,
    commands,
    db_registration,
    free_addresses,
)

ADDRESSES = Addresses(dc1="127.0.77.11", dc2="127.0.77.21", wan="127.0.77.121")


def _sidecar(registration: dict[str, object]) -> dict[str, object]:
    connect = registration["Connect"]
    assert isinstance(connect, dict)
    sidecar = connect["SidecarService"]
    assert isinstance(sidecar, dict)
    return sidecar


def test_db_in_dc2_is_bound_only_where_the_wan_sees_it() -> None:
    sidecar = _sidecar(db_registration(ADDRESSES, "dc2"))
    assert sidecar["TaggedAddresses"] == {"wan": {"Address": "127.0.77.121", "Port": WAN_PORT}}
    assert sidecar["Port"] == LAN_PORT
    proxy = sidecar["Proxy"]
    assert isinstance(proxy, dict)
    assert proxy["Config"] == {"bind_address": "127.0.77.121", "bind_port": WAN_PORT}


def test_db_in_dc1_has_no_wan_address() -> None:
    assert "TaggedAddresses" not in _sidecar(db_registration(ADDRESSES, "dc1"))


def test_only_the_secondary_knows_a_primary() -> None:
    made = commands(ADDRESSES, Path("/data"))
    assert "-primary-addr" not in made["dc1"]
    assert made["dc2"][made["dc2"].index("-primary-addr") + 1] == "http://127.0.77.11:8500"


def test_every_sidecar_takes_what_changes_it() -> None:
    made = commands(ADDRESSES, Path("/data"))
    for name in ("web sidecar in dc1", "db sidecar in dc1", "db sidecar in dc2"):
        service, _, _, datacenter = name.split()
        assert f"unix:/data/{service}-in-{datacenter}.sock" in made[name]


def test_a_network_in_use_is_passed_over() -> None:
    first = free_addresses()
    with socket.create_server((first.dc2, API_PORT)):  # though a demo ended there a moment ago
        assert free_addresses() != first


def test_the_persons_own_consul_settings_do_not_reach_the_demo() -> None:
    environ = {
        "PATH": "/bin",
        "CONSUL_HTTP_TOKEN": "s",
        "CONNECT_SIDECAR_FOR": "x",
        "SIDECAR_LOG_LEVEL": "debug",
    }
    assert child_environment(environ) == {"PATH": "/bin"}


async def test_processes_are_started_stopped_and_missed(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    brief = [sys.executable, "-c", "print('done'); raise SystemExit(3)"]
    processes = Processes(tmp_path, {}, {"sleeper": sleeper, "a brief one": brief})
    await processes.start("sleeper")
    await processes.start("a brief one")
    await processes.running["a brief one"].wait()
    assert processes.ended() == {"a brief one": 3}
    assert processes.log("a brief one").read_text() == "done\n"
    assert await processes.stop("sleeper") == -15
    await processes.stop_all()
    assert processes.running == {}
