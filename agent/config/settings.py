"""Resolves the settings: flags over environment over file over defaults, with all mistakes at once.

    resolution = resolve(flags, environ, config_file)   # never raises for a wrong setting
    resolution.mistakes                                  # all of them, each naming its place
    resolution.settings                                  # when there are none

The service definition ranks between file and default. It is known only once Consul has answered, and
`agent.config.effective` adds it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from agent.base.address import Address, TcpAddress
from agent.config.collisions import ADMIN, CHECK, PUBLIC, without_collisions
from agent.config.flags import did_you_mean
from agent.config.options import BY_NAME, OPTIONS, LogClass, LogFormat, LogLevel, Option, ProxyProtocol
from agent.config.parsers import ConsulAddress, FileMissing
from agent.config.upstream_tables import line_of, read_tables
from agent.policy.narrowing import Narrowing
from upstreams.spec import TunnelMode, Upstream, WanMode, first_of_each_bind

_LISTENERS = {ADMIN: "admin_bind", PUBLIC: "listen"}  # the setting that gives their addresses
MAX_FILE = 1 << 20  # bytes; a settings file is a page


class Rank(IntEnum):
    """The sources of a value, the strongest last."""

    DEFAULT = 0
    DEFINITION = 1
    FILE = 2
    ENVIRONMENT = 3
    FLAG = 4


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of one value; `place` is the flag, the variable or the file, `line` the file's, if known."""

    rank: Rank
    place: str = ""
    line: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.rank.name.lower()} {self.place}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One wrong setting: where it was given, and what to do. `passing`: for want of a file that may come."""

    origin: Origin | None
    text: str
    passing: bool = False

    def __str__(self) -> str:
        if self.origin is None:
            return self.text
        line = f", line {self.origin.line}" if self.origin.line else ""
        return f"{self.origin}{line}: {self.text}"


class IdentityKind(StrEnum):
    """The three ways to name the sidecar's service; the values are the settings' names."""

    SIDECAR_FOR = "sidecar_for"
    PROXY_ID = "proxy_id"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings, read and checked. Durations are seconds; None means that a setting was not given."""

    identity: IdentityKind | None
    sidecar_for: str | None
    proxy_id: str | None
    service: str | None
    listen: TcpAddress | None
    service_addr: Address | None
    upstream: tuple[Upstream, ...] | None
    register: bool
    register_id: str | None
    http_addr: ConsulAddress
    token: str | None = field(repr=False)
    token_file: Path | None
    http_auth: str | None = field(repr=False)
    http_ssl: bool
    http_ssl_verify: bool
    ca_file: Path | None
    ca_path: Path | None
    client_cert: Path | None
    client_key: Path | None
    tls_server_name: str | None
    namespace: str | None
    partition: str | None
    consul_connections: int
    consul_connections_most: int
    state_max_age: float  # infinite: never too old; 0: the state is not used
    state_dir: Path | None
    state_key_file: Path | None
    start_timeout: float
    admin_bind: tuple[Address, ...]
    admin_hosts: tuple[str, ...] | None
    expose_from: tuple[str, ...]
    drain_seconds: float
    leave_seconds: float | None
    expired_peer_grace: float  # infinite: never
    vanished_grace: float
    wan_addresses: WanMode
    tunnel: TunnelMode
    max_connections: int
    max_handshakes: int
    workers: int
    landlock: bool
    log_level: LogLevel
    log_format: LogFormat
    log_silence: tuple[LogClass, ...] | None
    tracing_endpoint: str | None
    tracing_sample: float
    narrow: tuple[Narrowing, ...] | None
    deny_file: Path | None
    intentions_max_age: float  # infinite: never too old
    primary_datacenter: str | None
    replica_warn: float  # infinite: never
    judge_outbound: bool
    audit: bool
    strict: bool
    connection_log: bool
    proxy_protocol: ProxyProtocol
    origins: Mapping[str, Origin]

    def effective(self) -> list[tuple[str, str, Origin]]:
        """Return name, printed value and origin of every setting that has a value.

        Secrets are not printed.
        """
        rows = []
        for option in OPTIONS:
            value = getattr(self, option.name)
            if value is not None:
                rows.append((option.name, option.printed(value), self.origins[option.name]))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The settings, or the mistakes that prevent them; notes warn; other values as far as they were read."""

    settings: Settings | None
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...] = ()
    log_format: LogFormat = LogFormat.TEXT
    start_timeout: float = 0.0  # seconds; 0: no limit

    @property
    def awaits_files(self) -> bool:
        """Whether nothing is wrong but that files are missing."""
        return bool(self.mistakes) and all(mistake.passing for mistake in self.mistakes)


def resolve(
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    config: str | None = None,
    *,
    identity_required: bool = True,
) -> Resolution:
    """Combine the sources. `flags` are by flag name, as `parse_arguments` returns them."""
    mistakes: list[Mistake] = []
    given: dict[str, tuple[Origin, Sequence[str]]] = {}
    tables: list[Upstream] = []
    if config is not None:
        given |= _from_file(Path(config), mistakes, tables)
    given |= _from_environment(environ)
    given |= _from_flags(flags)
    values: dict[str, Any] = {option.name: option.default for option in OPTIONS}
    origins = dict.fromkeys(values, Origin(Rank.DEFAULT))
    for name, (origin, texts) in given.items():
        read = _read(BY_NAME[name], origin, texts, mistakes)
        values[name], origins[name] = read, origin
    if tables and origins["upstream"].rank <= Rank.FILE:
        values["upstream"] = (*(values["upstream"] or ()), *tables)
        origins["upstream"] = Origin(Rank.FILE, config or "")
    _settle_identity(values, origins, mistakes, required=identity_required)
    _check_together(values, origins, mistakes)
    if values["http_ssl"] and values["http_addr"] is not None:
        values["http_addr"] = values["http_addr"].over_tls()
    settings = None if mistakes else Settings(**values, origins=origins)
    return Resolution(
        settings=settings,
        mistakes=tuple(mistakes),
        notes=_notes(environ),
        log_format=values["log_format"],
        start_timeout=values["start_timeout"],
    )


def _from_file(
    path: Path, mistakes: list[Mistake], tables: list[Upstream]
) -> dict[str, tuple[Origin, Sequence[str]]]:
    """Return the settings' texts by name; put the upstreams, with their own settings, into `tables`."""
    import tomllib  # noqa: PLC0415 - many agents have no file

    origin = Origin(Rank.FILE, str(path))
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE).decode()
        table = tomllib.loads(text)
    except OSError as error:
        mistakes.append(Mistake(origin=origin, text=f"cannot be read: {error.strerror}"))
        return {}
    except ValueError as error:  # TOML, UTF-8, or a number with too many digits
        mistakes.append(Mistake(origin=origin, text=f"not TOML: {error}"))
        return {}
    given: dict[str, tuple[Origin, Sequence[str]]] = {}

    def wrong(key: str, said: str) -> None:
        mistakes.append(Mistake(origin=replace(origin, line=line_of(text, key)), text=said))

    if not text.strip():  # most likely while it is written; comments alone are the sample
        wrong("", "the file is empty")
    for key, value in table.items():
        if key == "upstreams":
            found, said = read_tables(value)
            tables += found
            for one in said:
                wrong(one, one)
            continue
        if key not in BY_NAME:
            hint = did_you_mean(key.replace("-", "_"), [*BY_NAME, "upstreams"])
            wrong(key, f"unknown key {key!r}{hint}")
            continue
        texts = BY_NAME[key].texts(value)
        if texts is None:
            kind = "a list of strings" if BY_NAME[key].repeatable else "a string, a number or a boolean"
            wrong(key, f"{key}: must be {kind}")
        else:
            given[key] = (replace(origin, line=line_of(text, key)), texts)
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Origin, Sequence[str]]]:
    """Return the texts from the environment; an empty variable counts as unset, as in Consul."""
    given: dict[str, tuple[Origin, Sequence[str]]] = {}
    for option in OPTIONS:
        text = environ.get(option.variable, "")
        if text:
            texts = text.split() if option.repeatable else [text]
            given[option.name] = (Origin(Rank.ENVIRONMENT, option.variable), texts)
    return given


def _from_flags(flags: Mapping[str, Sequence[str]]) -> dict[str, tuple[Origin, Sequence[str]]]:
    return {
        option.name: (Origin(Rank.FLAG, f"-{option.flag_name}"), flags[option.flag_name])
        for option in OPTIONS
        if option.flag_name in flags
    }


def _read(option: Option, origin: Origin, texts: Sequence[str], mistakes: list[Mistake]) -> object:
    found: list[object] = []
    for text in texts:
        try:
            found.append(option.read(text))
        except ValueError as error:
            prefix = f"{option.name}: " if origin.rank is Rank.FILE else ""
            passing = isinstance(error, FileMissing)
            mistakes.append(Mistake(origin=origin, text=f"{prefix}{error}", passing=passing))
    if option.repeatable:
        return tuple(found)
    return found[-1] if found else option.default


def _settle_identity(
    values: dict[str, Any], origins: dict[str, Origin], mistakes: list[Mistake], *, required: bool
) -> None:
    """Keep the identity with the strongest origin; two of the same origin are a mistake."""
    given = [kind for kind in IdentityKind if origins[kind.value].rank > Rank.DEFAULT]
    strongest = max((origins[kind.value].rank for kind in given), default=Rank.DEFAULT)
    chosen = [kind for kind in given if origins[kind.value].rank is strongest]
    if len(chosen) > 1:
        names = " and ".join(f"-{BY_NAME[kind.value].flag_name}" for kind in chosen)
        origin = None if strongest is Rank.FLAG else origins[chosen[0].value]
        mistakes.append(Mistake(origin=origin, text=f"{names} exclude each other; give one of them"))
    elif not chosen and required:
        text = "say whom to run beside: -sidecar-for ID, -proxy-id ID or -service NAME"
        mistakes.append(Mistake(origin=None, text=text))
    values["identity"] = chosen[0] if chosen else None
    for kind in given:
        if kind not in chosen:
            values[kind.value], origins[kind.value] = None, Origin(Rank.DEFAULT)


def _check_together(values: dict[str, Any], origins: dict[str, Origin], mistakes: list[Mistake]) -> None:
    def wrong(name: str, text: str) -> None:
        mistakes.append(Mistake(origin=origins[name], text=text))

    if values["identity"] is IdentityKind.SERVICE:
        for name, other in (("listen", "service_addr"), ("service_addr", "listen")):
            if values[name] is not None and values[other] is None:
                wrong(name, f"with -service it needs -{other.replace('_', '-')} as well")
    elif values["register"]:
        wrong("register", "only with -service; the other forms are registered already")
    if values["register"] and values["listen"] is None:
        wrong("register", "needs -listen and -service-addr: there is nothing to register without them")
    if values["audit"] and values["strict"]:
        wrong("audit", "excludes strict: in production what is denied is not let through")
    if values["register_id"] is not None and not values["register"]:
        wrong("register_id", "only with -register")
    for name, other in (("client_cert", "client_key"), ("client_key", "client_cert")):
        if origins[name].rank > Rank.DEFAULT and origins[other].rank is Rank.DEFAULT:
            wrong(name, f"it needs -{other.replace('_', '-')} as well")
    _check_binds(values, wrong)


def _check_binds(values: dict[str, Any], wrong: Callable[[str, str], None]) -> None:
    """Check binds as far as the settings say: the registration may add some, and names are not looked up."""
    upstreams, late = first_of_each_bind(values["upstream"] or ())
    for upstream in late:
        wrong("upstream", f"{upstream.bind} is taken by another upstream")
    found = without_collisions(
        public=values["listen"], app=values["service_addr"], upstreams=upstreams, admin=values["admin_bind"]
    )
    for problem in found.problems:
        who = problem.where.partition(" on ")[0]
        if who != CHECK:  # a collision there only prevents Consul's check of the public port
            wrong(_LISTENERS.get(who, "upstream"), str(problem))


def _notes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note for each variable that resembles ours; no mistake, for others set variables too."""
    ours = {option.variable for option in OPTIONS} | {"SIDECAR_CONFIG"}
    return tuple(
        f"environment {name} is not one of our variables{did_you_mean(name, ours)}"
        for name in sorted(environ)
        if name.startswith("SIDECAR_") and name not in ours
    )
