"""A client of Consul out of settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.base.exits import Exit, ExitCode
from agent.consul.connect import consul_of
from agent.consul.token import TokenSource
from tests.support.agent_parts import settings


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8500", "https://consul.example:8501", "unix:///run/consul.sock"]
)
def test_every_form_of_address(address: str) -> None:
    consul_of(settings(http_addr=address, namespace="team"), TokenSource(None, None))


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nonsense")
    with pytest.raises(Exit, match="the TLS files for https://consul:8501 cannot be used") as raised:
        consul_of(settings(http_addr="https://consul:8501", ca_file=str(file)), TokenSource(None, None))
    assert raised.value.code is ExitCode.CONFIGURATION
