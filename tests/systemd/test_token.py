"""ACLs on in both datacenters: the token reaches the sidecar as a credential, and no other process."""

from __future__ import annotations

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import UPSTREAM, Mesh, federation, workloads

pytestmark = pytest.mark.root

MANAGEMENT = "5ec7e700-0000-4000-8000-000000000000"
OF_SERVICE = {"web": "5ec7e700-3eb0-4000-8000-000000000001", "db": "5ec7e700-db00-4000-8000-000000000002"}
REPLICATION = 'replication_token_file = "/run/credentials/sidecar-datacenter@dc2.service/replication-token"\n'
# Both datacenters know all of them, as Consul replicates tokens: web asks in dc1 for endpoints in dc2.
TOKENS = f"""
default_policy = "deny"

[[tokens]]
secret = "{MANAGEMENT}"
policy = "management"

[[tokens]]
secret = "{OF_SERVICE["web"]}"
[tokens.policy]
service_identities = ["web"]

[[tokens]]
secret = "{OF_SERVICE["db"]}"
[tokens.policy]
service_identities = ["db"]
"""


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Datacenters with ACLs and an intention; the services' tokens where the units look for them."""
    machine.write("/etc/connect-sidecar/datacenter-dc2.token", f"{MANAGEMENT}\n", mode=0o600)
    made = federation(machine, {"dc1": TOKENS, "dc2": REPLICATION + TOKENS})
    workloads(made, token=MANAGEMENT)
    for service, secret in OF_SERVICE.items():
        machine.write(f"/etc/connect-sidecar/{service}.token", f"{secret}\n", mode=0o600)
    allow = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    made.call("dc1", "PUT", "/v1/connect/intentions/exact?source=web&destination=db", allow, MANAGEMENT)
    return made


def test_a_request_flows_and_the_token_is_seen_by_its_sidecar_alone(mesh: Mesh) -> None:
    for name in ("db", "web"):
        mesh.machine.start(f"sidecar@{name}")
    assert mesh.get(UPSTREAM) == "hello from db\n"
    for name, secret in OF_SERVICE.items():
        process = f"/proc/{mesh.pid(name)}"
        assert secret not in mesh.machine.run("cat", f"{process}/environ", f"{process}/cmdline")
        assert secret not in mesh.machine.journal(f"sidecar@{name}")
        assert secret not in mesh.admin(name, "/status")[1]


def test_a_token_that_is_refused_is_waited_out_then_tried_again_and_a_good_one_is_taken(mesh: Mesh) -> None:
    machine = mesh.machine
    settings = 'sidecar_for = "web"\nhttp_addr = "127.0.1.1:8500"\nstart_timeout = 2\n'
    machine.write("/etc/connect-sidecar/thief.toml", settings)
    machine.write("/etc/connect-sidecar/thief.token", "0bad0bad-0000-4000-8000-000000000000\n", mode=0o600)
    machine.add_unit("sidecar@thief.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    machine.systemctl("start", "--no-block", "sidecar@thief")
    until(lambda: "403" in machine.show("sidecar@thief", "StatusText") or None, "the refusal in STATUS")
    until(lambda: int(machine.show("sidecar@thief", "NRestarts")) >= 1 or None, "a restart")
    assert "exit: code=69 reason=" in machine.journal("sidecar@thief")
    assert "0bad0bad" not in machine.journal("sidecar@thief")
    machine.start("sidecar@db")
    machine.systemctl("stop", "sidecar@web")  # its ports are the thief's
    machine.write("/etc/connect-sidecar/thief.token", f"{OF_SERVICE['web']}\n", mode=0o600)
    until(lambda: machine.show("sidecar@thief", "ActiveState") == "active" or None, "a started sidecar")
    assert mesh.get(UPSTREAM) == "hello from db\n"
    machine.systemctl("stop", "sidecar@thief")  # or web's next start waits for them
