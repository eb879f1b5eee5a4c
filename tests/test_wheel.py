"""The wheel has every package, marker and data file of the rooms, and a page that works on an index."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "certs", "upstreams", "datacenter")
UNITS = {".service", ".socket", ".target", ".toml", ".conf"}  # of `systemd`, which are in `agent/deployment`
DATA = {".py", ".typed", ".cnf", ".html", ".json"}  # README.md of a room is for readers of the source
SOURCE_URL = "https://git.example/mesh/connect-sidecar"
LINK = re.compile(r"\]\(([^)]*)\)")


def build(out: Path, source_url: str, *arguments: str) -> None:
    """Have `.ci/build` make what it makes."""
    subprocess.run(["env", f"SOURCE_URL={source_url}", ROOT / ".ci" / "build", out, *arguments], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one wheel for the tests that only read it."""
    out = tmp_path_factory.mktemp("dist")
    build(out, SOURCE_URL)
    assert len(list(out.glob("*.tar.gz"))) == 1
    (wheel,) = out.glob("*.whl")
    return wheel


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def test_every_file_of_the_rooms_is_in_the_wheel(wheel: Path) -> None:
    there = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in DATA
    } | {
        f"agent/deployment/systemd/{path.name}"
        for path in (ROOT / "systemd").iterdir()
        if path.suffix in UNITS
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == there
    assert {f"{room}/py.typed" for room in ROOMS} <= packed
    assert {Path(name).name for name in packed} >= {"openssl.cnf"}


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    asked = "import agent; from agent.__main__ import main; print(agent.__file__)"
    asked += "; main(['version']); main(['units'])"
    ended = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    version = Parser().parsestr(metadata(wheel))["Version"]
    assert ended.stdout.splitlines()[:2] == [str(tmp_path / "agent" / "__init__.py"), f"sidecar {version}"]
    assert "\nsidecar@.service " in ended.stdout


def test_the_index_page_links_to_the_repository(wheel: Path) -> None:
    page = metadata(wheel)
    links = LINK.findall(page)
    assert f"{SOURCE_URL}/blob/v{Parser().parsestr(page)['Version']}/docs/intentions.md" in links
    assert [link for link in links if not link.startswith("https://")] == []
    images = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert len(images) >= 2
    assert all(f"{SOURCE_URL}/raw/v" in image for image in images)
    assert f"Project-URL: Source, {SOURCE_URL}" in page


def test_without_an_address_of_the_repository_no_link_leads_nowhere(tmp_path: Path) -> None:
    build(tmp_path, "", "--sdist")
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert member is not None
        page = member.read().decode()
    assert [link for link in LINK.findall(page) if not link.startswith("https://")] == []
    assert "(`docs/intentions.md`)" in page
