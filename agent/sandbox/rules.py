"""Decides which files an agent of these settings needs: what it reads, and where it writes.

Sockets are left out: a registration can name a new unix socket at any moment. So are ports, for those of the
mesh are anywhere. A place is a directory, for a file that is replaced is another file to the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config.settings import Rank, Settings

# Libraries, time zones, names of hosts, trusted CAs, what systemd-resolved writes, the kernel's own files.
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/run/systemd/resolve", "/proc", "/sys", "/dev")
GIVEN_TO_READ = ("CREDENTIALS_DIRECTORY",)  # systemd.exec(5)
GIVEN_TO_WRITE = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY")
CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # of OpenSSL


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Directories, each with all that is below it. What is in neither can be neither read nor written."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]

    def __str__(self) -> str:
        def listed(places: tuple[Path, ...]) -> str:
            return ", ".join(map(str, places)) or "nothing"

        return f"reads below {listed(self.readable)}; writes below {listed(self.writable)}"


def rules(settings: Settings, environ: Mapping[str, str], programs: tuple[str, ...]) -> Rules:
    """Return the rules for these settings. `programs`: the prefixes of the program and of its Python."""
    named = [settings.token_file, settings.deny_file, settings.ca_file, settings.ca_path]
    named += [settings.client_cert, settings.client_key, settings.state_key_file]
    named += [Path(origin.place) for origin in settings.origins.values() if origin.rank is Rank.FILE]
    named += [Path(place) for name in CA_VARIABLES for place in _listed(environ, name)]
    readable = {Path(place) for place in (*SYSTEM, *programs)}
    readable |= {Path(place) for name in GIVEN_TO_READ for place in _listed(environ, name)}
    for path in filter(None, named):
        readable |= {path.absolute().parent, path.resolve().parent}
    writable = {Path(place) for name in GIVEN_TO_WRITE for place in _listed(environ, name)}
    writable |= {settings.state_dir} if settings.state_dir is not None else set()
    return Rules(readable=_outermost(readable), writable=_outermost(writable))


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    return [place for place in environ.get(name, "").split(":") if place]


def _outermost(places: set[Path]) -> tuple[Path, ...]:
    """Return the places without those that lie below another, in order."""
    return tuple(sorted(place for place in places if not places & set(place.parents)))
