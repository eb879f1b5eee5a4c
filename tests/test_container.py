"""`docs/Containerfile`, built on a bare Debian that is made here, and run: a sidecar and a datacenter in it.

It takes some four minutes, and fetches packages. `make test` does not install the builder; CI does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.bare import make_root
from tests.systemd.boot import CHECKOUT

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

SECONDS = 900
CERTS = Path("/etc/ssl/certs")  # this machine's way to a package index may have a CA of its own
BASE, IMAGE = "localhost/sidecar-test-base", "localhost/sidecar-test"
SERVES = """
cd /tmp
sidecar datacenter --name dc1 --http-addr 127.0.71.1:8500 --data-dir dc1 > dc1.log 2>&1 &
sidecar run -service web -listen 127.0.71.1:21000 -service-addr 127.0.71.1:8080 -http-addr 127.0.71.1:8500 \
  -admin-bind unix:/tmp/admin.sock -leave-seconds 0 > web.log 2>&1 &
for try in $(seq 100); do sidecar wait -admin-bind unix:/tmp/admin.sock 2> /dev/null && break; sleep 0.2; done
sidecar status -admin-bind unix:/tmp/admin.sock || cat *.log
kill $(jobs -p); wait
"""


def buildah(*words: str) -> str:
    """Run buildah, which must succeed; return what it says."""
    environ = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}  # noqa: TID251 - buildah's own
    done = subprocess.run(
        ["buildah", *words], env=environ, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of what is committed."""
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("an image needs root and buildah")
    root = tmp_path_factory.mktemp("container") / "root"
    reason = make_root(root)
    if reason is not None:
        pytest.skip(reason)
    source = root.with_name("source")
    subprocess.run(["git", "clone", "--quiet", CHECKOUT, source], check=True, timeout=60)
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, str(root), "/")
    buildah("config", "--env", "PIP_CERT=/host-certs/ca-certificates.crt", base)
    buildah("commit", "--quiet", base, BASE)
    built = ("--build-arg", f"BASE={BASE}", "--file", str(source / "docs" / "Containerfile"), "--tag", IMAGE)
    buildah(
        *("build", "--network", "host", "--pull-never", "--volume", f"{CERTS}:/host-certs:ro"),
        *(*built, str(source)),
    )
    running = buildah("from", IMAGE)
    yield running
    buildah("rm", base, running)
    buildah("rmi", "--force", IMAGE, BASE)


def test_it_runs_as_a_user_without_rights_and_has_no_pip(image: str) -> None:
    assert buildah("run", image, "--", "id", "-u") == "65532"
    assert buildah("run", image, "--", "/bin/sh", "-c", "command -v pip pip3 gcc; true") == ""


def test_a_sidecar_in_it_serves(image: str) -> None:
    said = buildah("run", "--network", "host", image, "--", "/bin/bash", "-c", SERVES)
    assert said.startswith("serving")
