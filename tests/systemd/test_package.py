"""The Debian package on a bare Debian 12: installed by the page's own commands, upgraded, removed, purged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import command, environment
from tests.systemd.bare import boot_bare, make_root
from tests.systemd.boot import CHECKOUT, NEW_NAMESPACES, Machine, until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]

MOST_COMMANDS = 5
MINUTES = 180.0
REGISTRATION = {"Name": "web", "Port": 8080, "Connect": {"SidecarService": {"Port": 21000}}}
NEXT = "9.9.9"
VERIFIED = ("sidecar@web.service", "sidecar@web.socket", "sidecar-datacenter@x.service", "sidecar.target")
HOME = "/usr/lib/connect-sidecar"
UNCHECKED_HASH = b"\x01\x00\x00\x00"


@pytest.fixture(scope="module", autouse=True)
def byte_code() -> Iterator[None]:
    """Python writes byte code here, as it does for whoever installs, whatever calls these tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="module")
def package(byte_code: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    if sys.base_prefix != "/usr":
        pytest.skip(
            "the package takes the Python of the machine it is built on, and this one is not Debian's"
        )
    if shutil.which("dh") is None or shutil.which("dpkg-buildpackage") is None:
        pytest.skip("a Debian package needs debhelper and dpkg-dev")
    out = tmp_path_factory.mktemp("deb")
    built = subprocess.run(
        [CHECKOUT / ".ci" / "deb", out], capture_output=True, text=True, check=False, timeout=MINUTES
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (deb,) = out.glob("*.deb")
    return deb


@pytest.fixture(scope="module")
def bare(namespaces: None, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A bare Debian with the package in /root, and an embedded Consul agent that has the service `web`."""
    root = tmp_path_factory.mktemp("debian") / "root"
    reason = make_root(root)
    if reason is not None:
        pytest.skip(reason)
    with boot_bare(root) as machine:
        shutil.copy(package, machine.outside("/root"))
        words = command("datacenter", "-name", "dc1", "-data-dir", str(tmp_path_factory.mktemp("consul")))
        network = ["nsenter", f"--target={machine.pid}", "--net", "--"]
        assert "--net" in NEW_NAMESPACES
        agent = subprocess.Popen([*network, *words], env=environment(), cwd=CHECKOUT)
        try:
            register(network)
            yield machine
        finally:
            agent.terminate()
            agent.wait(timeout=30)
    shutil.rmtree(root)


def register(network: list[str]) -> None:
    """Register the service `web`, once the agent answers."""
    call = ["curl", "--silent", "--fail", "--request", "PUT", "--data", json.dumps(REGISTRATION)]
    words = [*network, *call, "http://127.0.0.1:8500/v1/agent/service/register"]
    until(lambda: subprocess.run(words, check=False).returncode == 0 or None, "a registered service")


def documented() -> list[str]:
    """The commands of the page, from the first block below its heading."""
    page = (CHECKOUT / "systemd" / "README.md").read_text()
    block = re.search(r"^## Install$.*?^```sh\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    return block.group(1).splitlines()


def sh(machine: Machine, line: str) -> str:
    """Run a line in the machine, with the real network for what fetches packages."""
    return machine.run("bash", "-c", f"cd /root && {line}", online="apt-get" in line, seconds=MINUTES)


@pytest.fixture(scope="module")
def installed(bare: Machine) -> Machine:
    """The machine after the page's commands; the last one prints the status."""
    commands = documented()
    assert len(commands) <= MOST_COMMANDS
    assert bare.run("which", "python3", "sidecar", check=False) == ""
    for line in commands[:-1]:
        sh(bare, line)
    assert sh(bare, commands[-1]).startswith("serving ")
    return bare


def test_at_most_five_commands_lead_from_a_bare_debian_to_serving(installed: Machine) -> None:
    assert installed.show("sidecar@web", "ActiveState") == "active"
    assert installed.show("sidecar@web", "UnitFileState") == "enabled"
    assert installed.systemctl("--failed", "--no-legend").strip() == ""
    installed.systemctl("reload", "sidecar@web")


def test_what_is_installed_works_and_names_no_place_of_its_building(installed: Machine) -> None:
    head = installed.run("head", "--lines=1", f"{HOME}/bin/sidecar")
    assert head == f"#!{HOME}/bin/python\n"
    assert (
        installed.run("grep", "-rlE", f"{CHECKOUT}/|/tmp/tmp|connect-sidecar/debian", HOME, check=False) == ""
    )
    assert "-http-addr" in installed.run("sidecar", "help", "run")
    extras = "import re2, hypercorn, starlette, rich, agent.policy.regex as one; print(one.__cached__)"
    assert "__pycache__" in installed.run(f"{HOME}/bin/python", "-c", extras)
    installed.run("systemd-analyze", "verify", "--man=no", *VERIFIED)


def test_byte_code_is_valid_whatever_the_times_of_its_sources(package: Path, tmp_path: Path) -> None:
    """Else the first who runs the program compiles it, into files that no package owns (PEP 552)."""
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    compiled = list(tmp_path.joinpath(HOME[1:]).rglob("*.pyc"))
    assert len(compiled) > 1000
    assert [str(path) for path in compiled if path.read_bytes()[4:8] != UNCHECKED_HASH] == []


def test_no_start_writes_byte_code(installed: Machine) -> None:
    # dpkg writes its state last, after an installation or an upgrade has compiled everything.
    written = f"find {HOME} -name '*.pyc' -newer /var/lib/dpkg/status"
    assert sh(installed, written) == ""


def test_an_upgrade_hands_over_to_the_new_program_and_keeps_changed_settings(
    installed: Machine, package: Path
) -> None:
    sh(installed, "echo '# mine' >> /etc/connect-sidecar/web.toml.example")
    before = installed.show("sidecar@web", "MainPID")
    renew = (
        f"sed -i 's/^Version: .*/Version: {NEXT}/' new/DEBIAN/control && dpkg-deb -Znone --build new new.deb"
    )
    sh(installed, f"dpkg-deb --raw-extract {package.name} new && {renew}")
    sh(installed, "dpkg --install new.deb")
    until(lambda: installed.show("sidecar@web", "MainPID") not in ("0", before) or None, "a new main process")
    assert installed.show("sidecar@web", "NRestarts") == "0"
    assert sh(installed, "dpkg-query --show --showformat='${Version}' connect-sidecar") == NEXT
    assert sh(installed, "tail --lines=1 /etc/connect-sidecar/web.toml.example") == "# mine\n"
    sh(installed, "sidecar wait web -timeout 20")


@pytest.mark.last_act
def test_remove_stops_and_leaves_settings_and_purge_leaves_what_is_the_operators(installed: Machine) -> None:
    sh(installed, "dpkg --remove connect-sidecar")
    assert installed.show("sidecar@web", "ActiveState") in ("inactive", "failed")
    left = (
        f"ls -d {HOME} /usr/bin/sidecar /lib/systemd/system/sidecar* /usr/share/man/man1/sidecar* 2>/dev/null"
    )
    assert installed.run("bash", "-c", left, check=False) == ""
    assert sh(installed, "ls /etc/connect-sidecar") == "sidecar.toml.example\nweb.toml\nweb.toml.example\n"
    sh(installed, "mkdir -p /var/lib/private/connect-sidecar/web && dpkg --purge connect-sidecar")
    assert sh(installed, "ls /etc/connect-sidecar") == "web.toml\n"
    assert sh(installed, "ls /var/lib/private") == ""


def test_lintian_finds_no_error(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    found = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=error", package],
        capture_output=True,
        text=True,
        check=False,
        timeout=MINUTES,
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_what_make_installs_it_takes_away_again(tmp_path: Path) -> None:
    settings = {"DESTDIR": str(tmp_path), "PREFIX": "/usr/local", "UNITDIR": ""}
    there = {**environment(), **settings}
    subprocess.run([CHECKOUT / ".ci" / "install"], env=there, check=True, timeout=MINUTES)
    unit = tmp_path / "usr/local/lib/systemd/system/sidecar@.service"
    assert "\nExecStart=/usr/local/lib/connect-sidecar/bin/sidecar run " in unit.read_text()
    assert (tmp_path / "usr/local/bin/sidecar").readlink() == Path(
        "/usr/local/lib/connect-sidecar/bin/sidecar"
    )
    (tmp_path / "etc/connect-sidecar/web.toml").write_text("mine")
    subprocess.run([CHECKOUT / ".ci" / "install", "uninstall"], env=there, check=True, timeout=MINUTES)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == ["etc/connect-sidecar/web.toml"]
