"""Finds the running agents of this machine by the admin sockets that the units give them, and asks them.

`sidecar@NAME` has its admin socket at /run/connect-sidecar/NAME/admin.sock (systemd/README.md). The directory
is its user's and root's, so another user sees the name and no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from agent.base.address import ANY_ADDRESS, ANY_ADDRESS_6, Address, UnixAddress
from agent.base.exits import Exit, ExitCode
from agent.base.undecodable import UNDECODABLE
from agent.config.flags import Flag
from agent.config.load import read_settings
from agent.config.options import ADMIN_ADDRESS, BY_NAME
from agent.config.settings import IdentityKind, Rank, Resolution, Settings
from agent.consul.http import Client, Dial, Request, RequestFailed
from agent.net.shortage import FILES_RUN_OUT
from upstreams.spec import Bind, InvalidUpstream, LocalBind, parse_upstream_flag

RUNTIME = Path("/run/connect-sidecar")
SETTINGS = Path("/etc/connect-sidecar")
SOCKET = "admin.sock"
CALL_SECONDS = 10.0

_WHOM = (*IdentityKind, "listen", "service_addr", "register", "register_id", "wan_addresses")
_CONSUL = (
    *("http_addr", "http_ssl_verify", "ca_file", "ca_path", "tls_server_name", "namespace", "partition"),
    "primary_datacenter",
)
_SECRETS = ("token", "token_file", "http_auth", "client_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The `/status` of the running agent, with the addresses it holds; empty when no agent answers."""

    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """The agent, named for a person."""
        return f"the running agent (pid {self.document['pid']})"

    def holds(self, place: Bind) -> bool:
        """Return whether the agent listens there, or at that port of every address."""
        openings = [self._public, *(one["listener"] for one in self.document.get("upstreams", ()))]
        spellings = {str(place)}
        if isinstance(place, LocalBind):
            spellings |= {
                str(LocalBind(everywhere, place.port)) for everywhere in (ANY_ADDRESS, ANY_ADDRESS_6)
            }
        return any(spellings & set(opening["addresses"]) for opening in openings if opening)

    def instead_of(self, place: Bind) -> str:
        """Return where the agent listens instead; empty if it listens there, or nowhere.

        A socket of systemd replaces the address of the registration.
        """
        rows = [one["listener"] for one in self.document.get("upstreams", ()) if one["bind"] == str(place)]
        if (self.document.get("placement") or {}).get("public_bind") == str(place):
            rows.append(self._public)
        found = [address for row in rows if row for address in row["addresses"]]
        return "" if self.holds(place) else ", ".join(found)

    def crowd(self, place: Bind) -> str:
        """Return how many connections the listener there has, if that is its limit; else empty."""
        row = self._listener(place)
        limit = row.get("limit") if row else None
        if row is None or limit is None or row["live"] < limit:
            return ""
        return f"{row['live']} of {limit} connections, {row['overflow']} callers turned away"

    def pressure(self, place: Bind) -> str:
        """Return which callers of the listener there have their share of its handshakes; empty if none."""
        row = self._listener(place)
        return str(row.get("pressure", "")) if row else ""  # an older agent does not say it

    def _listener(self, place: Bind) -> Mapping[str, Any] | None:
        rows = [one["listener"] for one in self.document.get("upstreams", ()) if one["bind"] == str(place)]
        return next(iter(rows), self._public) if self.holds(place) else None

    @property
    def hindered(self) -> str:
        """The complaint that open files run out; empty if they do not."""
        said = self.document.get("complaints", ())
        return next((one for one in said if one.startswith(FILES_RUN_OUT)), "")

    @property
    def _public(self) -> Mapping[str, Any] | None:
        return self.document.get("public")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The directory of one instance. `problem`: why this user cannot talk to its agent; empty if they can."""

    name: str
    path: Path
    problem: str = ""

    @property
    def address(self) -> UnixAddress:
        """Return where its admin endpoint listens. Raises Exit where this user may not go."""
        if self.problem:
            raise Exit(ExitCode.PERMISSION, self.problem)
        return UnixAddress(str(self.path))


def instances() -> list[Instance]:
    """Return the instances that have an admin socket, or may have one that this user cannot see, by name."""
    try:
        found = sorted(RUNTIME.iterdir())
    except OSError:
        return []
    return [instance for instance in map(_look, found) if instance is not None]


def _look(directory: Path) -> Instance | None:
    path = directory / SOCKET
    try:
        path.stat()
    except PermissionError:
        return _closed(directory.name, directory)
    except OSError:
        return None
    if os.access(path, os.W_OK, effective_ids=True):
        return Instance(name=directory.name, path=path)
    return _closed(directory.name, path)


def _closed(name: str, place: Path) -> Instance:
    problem = (
        f"{place} is not open to this user: run the command as root, or as a member of the operators' group"
    )
    return Instance(name=name, path=place, problem=problem)


def named(name: str) -> Instance:
    """Return the instance of this name. Raises Exit, with the names that there are."""
    present = instances()
    for instance in present:
        if instance.name == name:
            return instance
    there = f"there is {_names(present)}" if present else "there is no instance at all"
    raise Exit(ExitCode.UNAVAILABLE, f"no instance {name!r} below {RUNTIME}; {there}")


def only(present: Sequence[Instance]) -> Address:
    """Return the address of the one instance, or the default of `admin_bind` where there is none.

    Raises Exit, with all names, where there are several.
    """
    if not present:
        return ADMIN_ADDRESS
    if len(present) > 1:
        raise Exit(ExitCode.USAGE, f"several instances run here, say which: {_names(present)}")
    return present[0].address


def beside(settings: Settings) -> Address:
    """Return where the agent of these settings has its admin endpoint. Raises Exit.

    The unit says it in a variable, which a command of the operator's does not have: where the settings come
    from /etc/connect-sidecar/NAME.toml, and say nothing of it, it is that of the instance NAME.
    """
    if settings.origins["admin_bind"].rank is not Rank.DEFAULT:
        return settings.admin_bind[0]
    files = {Path(origin.place) for origin in settings.origins.values() if origin.rank is Rank.FILE}
    names = {file.stem for file in files if file.parent == SETTINGS}
    return only([instance for instance in instances() if not names or instance.name in names])


def unix_or_tcp(address: Address) -> Dial:
    """Return the function that connects to an admin endpoint."""

    async def dial() -> trio.abc.Stream:
        if isinstance(address, UnixAddress):
            return await trio.open_unix_socket(address.path)
        return await trio.open_tcp_stream(address.host, address.port)

    return dial


async def status_of(address: Address) -> Mapping[str, Any]:
    """Return the `/status` of one agent. Raises Exit."""
    client = Client(unix_or_tcp(address), host="localhost")
    try:
        response = await client.exchange(Request(method="GET", target="/status"), CALL_SECONDS)
    except RequestFailed as error:
        raise Exit(ExitCode.UNAVAILABLE, f"no agent answers at {address} ({error})") from error
    finally:
        await client.aclose()
    if response.status != 200:
        text = response.body.decode("utf-8", "replace").strip()
        code = ExitCode.PERMISSION if response.status == 403 else ExitCode.FAILED
        raise Exit(code, f"the agent answered {response.status}: {text}")
    try:
        document: Mapping[str, Any] = json.loads(response.body)
    except UNDECODABLE as error:
        raise Exit(ExitCode.FAILED, f"what answers at {address} is no agent: {error}") from error
    return document


def read_beside(
    words: Sequence[str], environ: Mapping[str, str], flags: Collection[Flag], *, identity_required: bool
) -> Resolution | None:
    """Read the settings of a command; where no service is named, as the agent has them that runs beside it.

    Return None when help is asked for. Raises Exit if that agent does not answer.

    The agent is that of -admin-bind, else the one instance of this machine.
    """
    given = read_settings(words, environ, flags=flags, identity_required=False)
    settings = None if given is None else given.settings
    if settings is None or settings.identity is not None:
        address = None
    else:
        address = _agent_of(settings, identity_required=identity_required)
    if settings is None or address is None:
        return read_settings(words, environ, flags=flags, identity_required=identity_required)
    document = trio.run(status_of, address)
    try:
        taken = [f"-{BY_NAME[name].flag_name}={text}" for name, text in _taken(settings, document)]
        withheld = _withheld(settings, document)
    except (KeyError, TypeError, AttributeError) as error:
        raise Exit(ExitCode.FAILED, f"what answers at {address} is no agent of this version") from error
    found = read_settings([*words, *taken], environ, flags=flags, identity_required=identity_required)
    if found is None or not withheld:
        return found
    return replace(found, notes=(*found.notes, withheld))


def _agent_of(settings: Settings, *, identity_required: bool) -> Address | None:
    if settings.origins["admin_bind"].rank is not Rank.DEFAULT:
        return settings.admin_bind[0]
    present = instances()
    if not present or (len(present) > 1 and not identity_required):
        return None
    return only(present)


def _taken(settings: Settings, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each setting to take from the agent: what the command has not been given.

    Never a file of secrets: it would have root read, and send, what the agent's user names. For the same
    reason a secret of the command's goes to no Consul that the agent names.
    """
    rows = document["settings"]
    names = (*_WHOM, *(() if _own_consul(settings) else _CONSUL))
    for name in names:
        row = rows.get(name)
        if row is not None and _given(row) and settings.origins[name].rank is Rank.DEFAULT:
            yield name, row["value"]
    if settings.origins["upstream"].rank is Rank.DEFAULT and _given(row := rows.get("upstream")):
        yield from (("upstream", spec) for spec in _specs(row["value"]))
    if settings.narrow is None:
        yield from (("narrow", text) for text in document["policy"]["narrow"])
    if settings.deny_file is None and document["policy"]["deny_file"] is not None:
        yield "deny_file", document["policy"]["deny_file"]


def _specs(printed: str) -> Iterator[str]:
    """Yield the printed upstreams as -upstream takes them, but for those that a flag cannot say."""
    for text in printed.split(", "):
        destination, _, bind = text.rpartition(" on ")
        if set(destination) & set("[] "):  # a filter, or `near`
            continue
        with suppress(InvalidUpstream):
            if str(parse_upstream_flag(spec := f"{destination}:{bind}")) == text:
                yield spec


def _given(row: Mapping[str, str] | None) -> bool:
    """Return whether the agent was given this setting: the definition is read from Consul again."""
    return row is not None and row["origin"].partition(" ")[0] in ("file", "environment", "flag")


def _own_consul(settings: Settings) -> bool:
    """Return whether the command was told which Consul to ask, or has a secret for it."""
    return any(settings.origins[name].rank is not Rank.DEFAULT for name in ("http_addr", *_SECRETS))


def _withheld(settings: Settings, document: Mapping[str, Any]) -> str:
    """Return that the agent's Consul is not asked, where only a secret of the command's is the cause."""
    theirs, ours = document["settings"]["http_addr"]["value"], str(settings.http_addr)
    if settings.origins["http_addr"].rank is not Rank.DEFAULT or theirs == ours or not _own_consul(settings):
        return ""
    return f"{ours} is asked, not {theirs} as by the agent: a token or key goes there only with -http-addr"


def _names(present: Sequence[Instance]) -> str:
    return ", ".join(instance.name for instance in present)
