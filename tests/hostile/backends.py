"""Servers that people run behind a sidecar, each with an app that notes what it was asked for."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.address import TcpAddress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_SECONDS = 60.0  # a JVM compiles its app first
QUIET_SECONDS = 0.3  # the log does not grow any more: what was asked has been noted


class NotStarted(Exception):
    """A backend does not serve; the text says what it wrote."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the app was told of it. Headers: every value that the app can look up."""

    method: str
    path: str
    role: list[str]
    identity: list[str]
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """`programs` must be there. `command`: of a directory and a port of its own; `version`: tells it."""

    name: str
    programs: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    version: tuple[str, ...]
    prepare: Callable[[Path, int], None] = lambda _directory, _port: None

    def __str__(self) -> str:
        return self.name

    @property
    def missing(self) -> tuple[str, ...]:
        """The programs that are not there."""
        return tuple(program for program in self.programs if shutil.which(program) is None)

    def said_version(self) -> str:
        """What it says of itself."""
        done = subprocess.run(self.version, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]


def _rendered(name: str) -> Callable[[Path, int], None]:
    """Write that configuration with the directory, the log and the port in it."""

    def prepare(directory: Path, port: int) -> None:
        words = {"DIRECTORY": directory, "LOG": directory / "log", "APPS": directory / "apps", "PORT": port}
        text = (HERE / "apps" / name).read_text()
        for word, value in words.items():
            text = text.replace(word, str(value)) if word != "LOG" else text.replace(" LOG", f" {value}")
        (directory / name).write_text(text.replace('"LOG"', f'"{directory / "log"}"'))

    return prepare


def _compiled(directory: Path, _port: int) -> None:
    source, app = directory / "apps" / "main.go", directory / "app"
    subprocess.run(["env", "GO111MODULE=off", "go", "build", "-o", app, source], check=True)


PYTHON = sys.executable
BACKENDS = (
    Backend(
        name="http.server",
        programs=(),
        command=lambda _, port: [PYTHON, "-m", "tests.hostile.apps.stdlib", str(port)],
        version=(PYTHON, "--version"),
    ),
    Backend(
        name="wsgiref",
        programs=(),
        command=lambda _, port: [PYTHON, "-m", "tests.hostile.apps.wsgi", str(port)],
        version=(PYTHON, "--version"),
    ),
    Backend(
        name="gunicorn",
        programs=("gunicorn",),
        command=lambda _, port: [
            *("gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4"),
            *("--chdir", str(ROOT), "tests.hostile.apps.wsgi:application"),
        ],
        version=("gunicorn", "--version"),
    ),
    Backend(
        name="uvicorn",
        programs=("uvicorn",),
        command=lambda _, port: [
            *("uvicorn", "--port", str(port), "--log-level", "critical", "--app-dir", str(ROOT)),
            "tests.hostile.apps.asgi:application",
        ],
        version=("uvicorn", "--version"),
    ),
    Backend(
        name="node",
        programs=("node",),
        command=lambda directory, port: ["node", str(directory / "apps" / "app.js"), str(port)],
        version=("node", "--version"),
    ),
    Backend(
        name="Go net/http",
        programs=("go",),
        command=lambda directory, port: [str(directory / "app"), str(port)],
        version=("go", "version"),
        prepare=_compiled,
    ),
    Backend(
        name="php -S",
        programs=("php",),
        command=lambda directory, port: [
            "php",
            "-S",
            f"127.0.0.1:{port}",
            str(directory / "apps" / "index.php"),
        ],
        version=("php", "--version"),
    ),
    Backend(
        name="puma",
        programs=("puma",),
        command=lambda directory, port: [
            *("puma", "--quiet", "--threads", "4:4", "--bind", f"tcp://127.0.0.1:{port}"),
            str(directory / "apps" / "config.ru"),
        ],
        version=("puma", "--version"),
    ),
    Backend(
        name="JDK HttpServer",
        programs=("java", "javac"),
        command=lambda directory, port: ["java", str(directory / "apps" / "Echo.java"), str(port)],
        version=("java", "--version"),
    ),
    Backend(
        name="nginx",
        programs=("nginx",),
        command=lambda directory, _: ["nginx", "-c", str(directory / "nginx.conf")],
        version=("nginx", "-v"),
        prepare=_rendered("nginx.conf"),
    ),
    Backend(
        name="Apache, CGI",
        programs=("apache2",),
        command=lambda directory, _: ["apache2", "-DFOREGROUND", "-f", str(directory / "apache.conf")],
        version=("apache2", "-v"),
        prepare=_rendered("apache.conf"),
    ),
    Backend(
        name="lighttpd, CGI",
        programs=("lighttpd",),
        command=lambda directory, _: ["lighttpd", "-D", "-f", str(directory / "lighttpd.conf")],
        version=("lighttpd", "-v"),
        prepare=_rendered("lighttpd.conf"),
    ),
)


@dataclass(slots=True)
class Running:
    """A backend that serves. `seen` takes what it has noted since the last look."""

    address: TcpAddress
    process: subprocess.Popen[bytes]
    log: Path
    _place: int = field(default=0)

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        with contextlib.suppress(OSError), self.connect() as sock:
            sock.sendall(b"GET /alive HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n")
            return b" 200 " in sock.recv(4096).partition(b"\r\n")[0] + b" "
        return False

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection((self.address.host, self.address.port), timeout=5)

    def seen(self) -> list[Seen]:
        """Wait until nothing more is noted."""
        size = -1
        while size != (size := self.log.stat().st_size):
            time.sleep(QUIET_SECONDS)
        with self.log.open("rb") as log:
            log.seek(self._place)
            lines = log.read().decode("utf-8", "replace").splitlines()
            self._place = log.tell()
        return [Seen(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def serving(backend: Backend, directory: Path) -> Iterator[Running]:
    """Start it, and end it. `directory` is empty; everybody may look into it: Apache's user is another."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    shutil.copytree(HERE / "apps", directory / "apps", ignore=shutil.ignore_patterns("__pycache__"))
    log = directory / "log"
    log.touch()
    log.chmod(0o666)
    directory.chmod(0o755)
    backend.prepare(directory, port)
    environment = ("env", f"HOSTILE_LOG={log}", f"PYTHONPATH={ROOT}")
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [*environment, *backend.command(directory, port)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # Apache ends its whole group with itself
        )
    running = Running(TcpAddress("127.0.0.1", port), process, log)
    try:
        _wait(running, directory)
        running.seen()
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _wait(running: Running, directory: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not running.alive:
        if running.process.poll() is not None or time.monotonic() > until:
            errors = [path.read_text(errors="replace") for path in directory.glob("[oe]*") if path.is_file()]
            raise NotStarted("\n".join(errors)[-2000:])
        time.sleep(0.05)
