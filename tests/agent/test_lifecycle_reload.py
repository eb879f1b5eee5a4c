"""A hangup: the settings are read anew while the agent serves."""

from __future__ import annotations

import os
import signal
from functools import partial

import trio

from agent.base.exits import ExitCode
from agent.config.settings import resolve
from agent.observe.readiness import headline
from tests.support.agent_in_process import answers, free_port, live, public_life


async def test_a_hangup_reads_the_settings_anew(nursery: trio.Nursery) -> None:
    port = free_port()
    one = public_life(nursery)
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    one.bench.well()
    read = partial(
        resolve, {"sidecar-for": ["web"], "listen": ["127.0.0.1:0"], "admin-bind": ["127.0.0.1:0"]}
    )
    more = {"SIDECAR_UPSTREAM": f"db:{port}", "SIDECAR_NARROW": "web@dc1", "SIDECAR_WORKERS": "3"}
    one.cycle.read = lambda: read(more)

    async def act() -> None:
        generation, address = one.bench.snapshot.credentials.version, one.address()
        os.kill(os.getpid(), signal.SIGHUP)
        await one.until(lambda: answers(port))
        policy = one.bench.snapshot.policy.value
        assert policy is not None
        assert [str(narrowing) for narrowing in policy.narrowings] == ["web@dc1"]
        assert (one.bench.snapshot.credentials.version, one.address()) == (generation, address)
        line = headline(one.bench.agent)
        assert line.startswith("serving · settings that wait for a restart: workers · ")

    await live(one, act)
    assert one.code is ExitCode.CLEAN


async def test_wrong_settings_leave_those_in_force(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    wrong = {"SIDECAR_DRAIN_SECONDS": "soon", "SIDECAR_NARROW": "web@dc1"}
    one.cycle.read = lambda: resolve({"sidecar-for": ["web"]}, wrong)

    async def act() -> None:
        before = one.bench.control.settings
        os.kill(os.getpid(), signal.SIGHUP)
        await one.until(lambda: "settings.refused" in one.bench.events())
        assert one.bench.control.settings is before
        assert "the old ones in force: environment SIDECAR_DRAIN_SECONDS" in headline(one.bench.agent)
        one.cycle.read = lambda: resolve({"sidecar-for": ["web"]}, {})
        os.kill(os.getpid(), signal.SIGHUP)
        await one.until(lambda: "wrong" not in headline(one.bench.agent))

    await live(one, act)
