"""Every flag of `connect proxy` and `connect envoy`, and command lines as units of others have them.

The flags are those of the oldest and of the newest Consul that was tried.
`flags_of_consul.json` has them, as `-h` of the two commands lists them; of a newer version it has what
was added.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from agent.cli.consul_flags import translate
from agent.config.load import read_settings
from tests.contract.federation import consul_binary, consul_version

FLAGS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("flags_of_consul.json").read_text())
VERSIONS = ("1.10.12", "1.18-dev")
# Values that a flag can have; any other one is refused by `run` for its value, not for its name.
VALUES = {
    "-bind-address": "a=127.0.0.1:8443",
    "-http-addr": "127.0.0.1:8500",
    "-log-level": "TRACE",
    "-upstream": "db.service:9191",
    "-register-id": "2",
    **dict.fromkeys(("-admin-bind", "-listen", "-service-addr", "-grpc-addr", "-address"), "127.0.0.1:9000"),
}
REFUSED = {"-gateway", "-mesh-gateway", "-expose-servers", "-bootstrap", "-node-name"}
OVERLOOKED = {"-listen", "-service-addr", "-upstream", "-datacenter"}  # beside a registration
FILES = {"-ca-file", "-ca-path", "-client-cert", "-client-key", "-token-file", "-tls-server-name"}


def known(command: str, version: str) -> dict[str, str]:
    """The flags of a command, each with whether it takes a value."""
    later = VERSIONS[: VERSIONS.index(version) + 1]
    return dict(FLAGS["both"]) | {
        name: kind for one in later for name, kind in FLAGS[f"{command} {one}"].items()
    }


def listed(text: str) -> set[str]:
    """The flags that a `-h` lists."""
    return set(re.findall(r"^  (-[a-z-]+)(?:=|\s*$)", text, re.MULTILINE))


EVERY = [
    pytest.param(command, name, kind, id=f"{command}{name}")
    for command in ("proxy", "envoy")
    for name, kind in known(command, VERSIONS[-1]).items()
]


@pytest.mark.parametrize(("command", "name", "kind"), EVERY)
def test_a_flag_is_taken_ignored_in_one_line_or_refused_in_one(command: str, name: str, kind: str) -> None:
    words = [name] if kind == "switch" else [name, VALUES.get(name, "x")]
    identity = [] if name in ("-sidecar-for", "-proxy-id") else ["-sidecar-for=web"]
    done = translate(command, (*identity, *words), {})
    if name in REFUSED or (command, name) == ("envoy", "-register"):
        (mistake,) = done.mistakes
        assert mistake.startswith(f"{name}: ")
        return
    assert done.mistakes == ()
    assert len(done.notes) <= 1, done.notes
    resolution = read_settings(done.words, {})
    assert resolution is not None
    complaints = [str(one) for one in resolution.mistakes]
    # A file that is not there, and a switch that needs another flag, are complaints of their own.
    assert all("unknown" not in one for one in complaints)
    assert complaints == [] or name in FILES | {"-register", "-register-id", "-namespace", "-partition"}
    taken = any(word.startswith(f"{name}=") for word in done.words)
    noted = any(note.startswith(f"{name} ") for note in done.notes)
    assert taken or noted or name == "-log-json"


@pytest.mark.parametrize("name", sorted(OVERLOOKED))
def test_a_flag_that_needs_a_service_is_ignored_beside_a_registration(name: str) -> None:
    done = translate("proxy", ("-sidecar-for=web", name, VALUES.get(name, "dc2")), {})
    assert [note.partition(" is ignored: ")[0] for note in done.notes] == [name]


@pytest.mark.consul
@pytest.mark.parametrize("command", ["proxy", "envoy"])
def test_a_real_consul_lists_no_other_flag(command: str) -> None:
    binary = consul_binary()
    if binary is None:
        pytest.skip("no real Consul")
    said = subprocess.run(
        [binary, "connect", command, "-h"], capture_output=True, text=True, check=False, timeout=30
    )
    found = listed(said.stdout + said.stderr)
    oldest = consul_version(binary) == (1, 10)
    expected = set(known(command, VERSIONS[0] if oldest else VERSIONS[-1]))
    assert found >= set(known(command, VERSIONS[0]))
    assert found <= expected


@pytest.mark.parametrize(
    ("kind", "line", "notes"),
    [
        # as Nomad's documentation starts the built-in proxy in a task
        (
            "proxy",
            (
                "-http-addr 10.0.0.7:8500 -service api -service-addr 10.0.0.7:23456 -listen 10.0.0.7:24567"
                " -register -register-id 4a8b -log-level TRACE -upstream count.service:9001"
            ),
            1,
        ),
        # as Nomad's own sidecar task is replaced, by the proxy's id
        (
            "envoy",
            (
                "-grpc-addr unix:///alloc/tmp/consul_grpc.sock -http-addr 127.0.0.1:8500"
                " -admin-bind 127.0.0.2:19001 -address 127.0.0.1:19101"
                " -proxy-id _nomad-task-7d3-group-api-count-api-9001-sidecar-proxy"
            ),
            2,
        ),
        # the built-in proxy with every flag that a unit gives it
        (
            "proxy",
            (
                "-sidecar-for=dashboard-1 -log-level=TRACE -log-json -pprof-addr=127.0.0.1:6060 -stale"
                " -http-addr=https://127.0.0.1:8501 -ca-path={ca} -token=secret -datacenter=dc1"
            ),
            4,
        ),
        # without a registration: each upstream by its type
        (
            "proxy",
            "-service web -upstream db.service:9191 -upstream=cache.query:127.0.0.2:9192 -datacenter dc2",
            0,
        ),
        # as units of HashiCups with a quoted value and a log of Envoy's own do
        (
            "envoy",
            (
                '-sidecar-for frontend-1 -admin-bind="127.0.0.1:19001" -- --log-level trace'
                " --log-path /var/log/envoy/frontend.log --component-log-level upstream:trace,http:trace"
            ),
            2,
        ),
        # as a container's entrypoint does
        (
            "envoy",
            (
                "-sidecar-for api -admin-bind 127.0.0.1:19000 -envoy-ready-bind-address 127.0.0.1"
                " -envoy-ready-bind-port 19100 -grpc-addr 10.0.0.7:8502 -http-addr 10.0.0.7:8500"
            ),
            3,
        ),
        # as a unit by templates (%i), and a unit with a token in its line do
        ("envoy", "-sidecar-for=web -ignore-envoy-compatibility", 1),
        ("envoy", "-sidecar-for=api-v2 -token=api_service_token", 0),
        # the built-in proxy, as a program that starts it by itself does
        ("proxy", "-log-level err -sidecar-for 7d3", 0),
        # as Carbonio's units do
        (
            "envoy",
            "-token-file {ca}/token -admin-bind localhost:0 -sidecar-for carbonio-files",
            0,
        ),
        ("envoy", "-token=secret -admin-bind localhost:0 -sidecar-for carbonio-files", 0),
        # as HashiCups' units do
        (
            "envoy",
            (
                "-sidecar-for frontend-1 -grpc-addr=https://127.0.0.1:8503 -envoy-binary /usr/bin/envoy"
                " -- -l debug"
            ),
            2,
        ),
    ],
)
def test_units_of_others_need_another_program_s_name_only(
    kind: str, line: str, notes: int, tmp_path: Path
) -> None:
    (tmp_path / "agent-ca.pem").write_text("-----BEGIN")  # a plain name; its content is read at the start
    (tmp_path / "token").write_text("secret")
    translation = translate(kind, shlex.split(line.format(ca=tmp_path)), {})
    assert translation.mistakes == ()
    resolution = read_settings(translation.words, {})
    assert resolution is not None
    assert resolution.settings is not None, resolution.mistakes
    assert len(translation.notes) == notes, translation.notes
