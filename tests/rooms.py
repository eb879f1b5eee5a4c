"""The tables that `test_house.py` holds: rooms, arrows, reserved modules, and tests of files."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agent", "certs", "upstreams", "datacenter")
MOST_LINES = 350
MOST_FUNCTION_LINES = 50

# What a room may import of ours, beside itself. The sidecar and its double share the SPIFFE type, the stream
# they log to and their care of memory, no more: had they shared parsers, one mistake would hide in both.
MAY_IMPORT = {
    "certs": (),
    "upstreams": ("certs.spiffe",),
    "agent": ("certs", "upstreams"),
    "datacenter": ("certs.spiffe", "agent.process.memory", "agent.process.sink"),
}

# The rooms of the agent and what each may import of the agent, beside itself; `base` is open to all. A room
# imports only rooms that stand before it, so there is no cycle.
AGENT_ROOMS: dict[str, tuple[str, ...]] = {
    "base": (),
    "process": (),
    "h2": (),
    "relay": (),
    "tunnel": ("h2", "relay"),
    "http1": (),
    "policy": ("http1",),
    "net": ("relay",),
    "config": ("policy",),
    "sandbox": ("config",),
    "consul": ("config",),
    "connections": ("relay", "http1", "policy"),
    "inbound": ("relay", "h2", "tunnel", "net", "http1", "policy", "connections"),
    "snapshot": ("config", "policy"),
    "outbound": ("h2", "relay", "tunnel", "net", "policy", "connections", "snapshot"),
    "intentions": ("config", "consul", "policy", "snapshot"),
    "control": ("config", "consul", "policy", "snapshot", "intentions"),
    "proxy": ("inbound", "outbound", "connections", "net", "relay", "config", "policy", "snapshot"),
    "overview": (),
    "log": ("process", "relay", "net", "config", "consul", "connections", "outbound"),
    "tracing": ("config", "relay", "http1", "connections", "log"),
    "observe": (
        *("process", "relay", "http1", "policy", "net", "config", "consul", "connections", "inbound"),
        *("snapshot", "outbound", "intentions", "control", "proxy", "overview", "log"),
    ),
    "page": ("relay", "proxy", "observe"),
    "workers": (
        *("proxy", "log", "observe", "snapshot", "config", "policy", "net", "connections", "relay"),
        *("process", "tracing"),
    ),
    "path": ("relay", "h2", "tunnel", "net", "policy", "outbound", "overview"),
    "handover": ("process", "net", "config", "policy", "intentions", "control", "proxy", "workers"),
    "cli": (
        *("process", "relay", "http1", "policy", "net", "config", "consul", "connections", "inbound"),
        *("snapshot", "outbound", "intentions", "control", "proxy", "overview", "observe", "path"),
        "sandbox",
    ),
    "migration": ("config", "consul", "control", "policy", "cli"),
    "deployment": ("config", "cli", "migration"),
}
MOST_FILES = 13  # of a room

# No socket, no clock, no file, no process in the quiet rooms; randomness is handed in as a `random.Random`.
EFFECTS = frozenset(
    {
        "asyncio",
        "concurrent",
        "http",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
    }
    | {"signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "time", "trio", "urllib.request"}
)
QUIET = {
    "certs": EFFECTS,
    "upstreams": EFFECTS | {"OpenSSL", "cryptography"},
    "agent/h2": EFFECTS | {"OpenSSL", "cryptography"},
}

# No thread of our own; one poll beside trio's, for the bytes. The pump is the relay's other half.
# Web frameworks and databases stay out of the agent's memory, and certificates are read in one room.
# What is read from another process can be nothing but what a schema describes: no pickle, nor what pickles.
RESERVED: dict[str, tuple[str, ...]] = {
    "threading": (),
    "_thread": (),
    "selectors": (),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "multiprocessing": (),
    "select": ("agent.relay.relay", "agent.relay.pump"),
    "sqlite3": ("datacenter.state.store", "datacenter.state.database"),
    "starlette": ("datacenter",),
    "hypercorn": ("datacenter",),
    "httpcore2": ("datacenter",),
    "rich": ("datacenter.demo",),
    "h11": ("agent",),
    "hpack": ("agent.h2.header_blocks",),
    "opentelemetry": ("agent.tracing",),
    "OpenSSL": ("agent", "certs"),
    "cryptography": ("certs", "datacenter"),
}

# Wall time enters here, and goes on as a function handed in.
CLOCKS = ("agent.base.clock", "datacenter.__main__")

# Modules that import nothing of ours: values and mechanisms that every room may use.
STAND_ALONE = (
    "certs.spiffe",
    "agent.base.latest",
    "agent.relay.splice",
    "agent.net.shortage",
    "certs.error_queue",
    "agent.config.flags",
    "agent.process.sink",
)

# Modules nobody beside the named may import: whoever imports them knows everybody.
ONLY_FOR = {
    "agent.__main__": (),
    "datacenter.__main__": (),
    "certs.contexts": ("agent",),
    "agent.relay.relay": ("agent",),
}

# Tables and shapes that have no behaviour of their own, and the test of what reads them.
TESTED_BY = {
    "agent/tunnel/leg.py": "agent/tunnel/test_tunnel.py",
    "agent/tunnel/carry.py": "agent/tunnel/test_tunnel.py",
    "agent/tunnel/carrier.py": "agent/tunnel/test_tunnel.py",
    "agent/outbound/at_once.py": "scenarios/test_tunnels_at_once.py",
    "agent/outbound/reasons.py": "agent/outbound/test_outbound.py",
    "agent/tunnel/ends.py": "agent/tunnel/test_tunnel.py",
    "agent/tunnel/byte_stream.py": "scenarios/test_tunnelled_requests.py",
    "agent/inbound/tunnel.py": "scenarios/test_tunnels.py",
    "agent/relay/shared_wait.py": "agent/relay/test_streams.py",
    "agent/inbound/by_request.py": "agent/inbound/test_http_connection.py",
    "agent/inbound/http_service.py": "agent/inbound/test_http_connection.py",
    "agent/inbound/verdict.py": "agent/inbound/test_inbound.py",
    "agent/h2/calls.py": "agent/h2/test_connection.py",
    "agent/h2/faults.py": "agent/h2/test_control.py",
    "agent/h2/stream.py": "agent/h2/test_connection.py",
    "agent/base/clock.py": "agent/test_run.py",
    "agent/base/watch_status.py": "agent/consul/test_watch.py",
    "agent/base/phase.py": "agent/observe/test_readiness.py",
    "agent/cli/commands.py": "agent/test_main.py",
    "agent/connections/connection.py": "agent/connections/test_ledger.py",
    "agent/connections/tracing.py": "agent/tracing/test_tracer.py",
    "agent/consul/answers.py": "agent/consul/test_api.py",
    "agent/deployment/flags.py": "agent/deployment/test_manual.py",
    "agent/consul/token.py": "agent/consul/test_connect.py",
    "agent/observe/agent.py": "agent/observe/test_status.py",
    "agent/http1/request.py": "agent/policy/test_http_match.py",
    "agent/policy/http_mode.py": "agent/config/test_registration.py",
    "agent/proxy/report.py": "agent/observe/test_status.py",
    "agent/workers/supervisor.py": "agent/workers/test_pool.py",
    "datacenter/http/context.py": "datacenter/http/test_frame.py",
    "datacenter/services/check_definitions.py": "datacenter/services/test_agent_checks.py",
    "datacenter/services/definitions.py": "datacenter/services/test_registration.py",
    "datacenter/demo/looking.py": "datacenter/demo/test_story.py",
    "datacenter/state/errors.py": "datacenter/http/test_frame.py",
    "datacenter/state/settings.py": "datacenter/config/test_options.py",
    "datacenter/services/views.py": "datacenter/test_recorded_discovery.py",
}

# Folders whose `__init__` is more than a list of files.
UNLISTED = {Path("agent"), Path("datacenter"), Path("datacenter/demo")}

PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:\\n|\s)+[A-Za-z0-9+/=]{40}")
NOT_OURS = {
    ".git",
    ".venv",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "mutants",
}
