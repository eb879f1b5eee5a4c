"""Whether the suite holds a real Consul to its cases, or the embedded datacenters alone."""

from __future__ import annotations

import subprocess

import pytest

from tests.contract.federation import consul_binary


@pytest.mark.consul
def test_there_is_a_real_consul_to_compare_with() -> None:
    binary = consul_binary()
    if binary is None:
        pytest.skip("no real Consul, neither CONSUL_BIN nor `consul` on PATH: only the embedded half ran")
    said = subprocess.run([binary, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.startswith("Consul v")
