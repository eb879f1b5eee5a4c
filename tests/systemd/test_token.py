"""ACLs on in both datacenters: the token reaches the sidecar as a credential, and no other process."""

from __future__ import annotations

import pytest

from tests.systemd.boot import Machine
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


def test_a_token_that_is_refused_ends_with_77_and_is_not_tried_again(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write("/etc/connect-sidecar/thief.toml", 'sidecar_for = "web"\nhttp_addr = "127.0.1.1:8500"\n')
    machine.write("/etc/connect-sidecar/thief.token", "0bad0bad-0000-4000-8000-000000000000\n", mode=0o600)
    machine.systemctl("start", "sidecar@thief", check=False)
    shown = [machine.show("sidecar@thief", name) for name in ("ExecMainStatus", "ActiveState", "NRestarts")]
    assert shown == ["77", "failed", "0"]
    assert "0bad0bad" not in machine.journal("sidecar@thief")
