"""Translates the command lines of `consul connect proxy` and `consul connect envoy` into words for `run`.

A flag means what it means in Consul's CLI (docs/migrating.md). One that means nothing here is ignored with a
note that names it; one that asks for what the sidecar is not is a mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agent.config.flags import Flag, parse_arguments
from agent.config.load import RUN_FLAGS

_Values = dict[str, tuple[str, ...]]

_QUERY = "prepared_query:"
_KINDS = {"": "", "service": "", "query": _QUERY}  # what follows the dot in -upstream NAME.TYPE:PORT
_LEVELS = {
    "trace": "debug",
    "warning": "warn",
    "err": "error",
    "critical": "error",
    "off": "error",
}
_SWITCHES = frozenset(
    {"log-json", "stale", "bootstrap", "mesh-gateway", "expose-servers", "no-central-config"}
    | {"omit-deprecated-tags", "ignore-envoy-compatibility", "enable-config-gen-logging", "register"}
)
_REGISTERED = "the registration decides; `run` takes the flag"
_GATEWAY = "only gateways have it"
_PROMETHEUS = "the admin endpoint serves the metrics at /metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The flags that one of Consul's commands has beside ours.

    `ignored` and `refused` give the reason of each; `honoured` are translated.
    """

    ignored: Mapping[str, str]
    refused: Mapping[str, str]
    honoured: tuple[str, ...] = ()

    @property
    def flags(self) -> Collection[Flag]:
        """Return every flag that may be given. Each may be repeated: in Consul's CLI the last one counts."""
        names = {flag.name: flag.switch for flag in RUN_FLAGS}
        names |= {name: name in _SWITCHES for name in (*self.ignored, *self.refused, *self.honoured)}
        return [Flag(name=name, switch=switch, repeatable=True) for name, switch in names.items()]


DIALECTS = {
    "proxy": Dialect(
        honoured=("log-json", "datacenter"),
        ignored={
            "pprof-addr": "there is no profiler",
            "stale": "Consul's own proxy does nothing with the flag either",
        },
        refused={},
    ),
    "envoy": Dialect(
        ignored={
            "envoy-binary": "no Envoy is started",
            "envoy-version": "no Envoy is started",
            "ignore-envoy-compatibility": "no Envoy is started",
            "grpc-addr": "Consul is asked over HTTP, at -http-addr",
            "grpc-ca-file": "Consul is asked over HTTP, with -ca-file",
            "grpc-ca-path": "Consul is asked over HTTP, with -ca-path",
            "admin-access-log-path": "the admin endpoint has no access log",
            "no-central-config": "there is no bootstrap configuration",
            "enable-config-gen-logging": "there is no bootstrap configuration",
            "omit-deprecated-tags": "the metrics are the sidecar's own",
            "prometheus-backend-port": _PROMETHEUS,
            "prometheus-scrape-path": _PROMETHEUS,
            "prometheus-ca-file": _PROMETHEUS,
            "prometheus-ca-path": _PROMETHEUS,
            "prometheus-cert-file": _PROMETHEUS,
            "prometheus-key-file": _PROMETHEUS,
            "envoy-ready-bind-address": "the admin endpoint serves /ready",
            "envoy-ready-bind-port": "the admin endpoint serves /ready",
            "service": _GATEWAY,
            "address": _GATEWAY,
            "wan-address": _GATEWAY,
            "bind-address": _GATEWAY,
            "deregister-after-critical": _GATEWAY,
        },
        refused={
            "gateway": "the sidecar is no gateway; keep Envoy for that",
            "mesh-gateway": "the sidecar is no gateway; keep Envoy for that",
            "expose-servers": "the sidecar is no gateway; keep Envoy for that",
            "register": "registers gateways only, and the sidecar is none",
            "bootstrap": "no Envoy is configured; start the sidecar in Envoy's place, without the flag",
            "node-name": "the proxy must be registered with the agent that -http-addr names",
        },
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The words for `run`; a note for each flag that has no or another effect; the mistakes."""

    words: tuple[str, ...]
    notes: tuple[str, ...]
    mistakes: tuple[str, ...]
    help_wanted: bool = False


def translate(command: str, words: Sequence[str], environ: Mapping[str, str]) -> Translation:
    """Return what `run` is to do for the words after `connect proxy` or `connect envoy`."""
    dialect = DIALECTS[command]
    arguments = parse_arguments(words, dialect.flags)
    values = _counting(arguments.values, dialect)
    mistakes = [*arguments.mistakes, *_taken_out(values, dialect.refused, "-{}: {}")]
    notes = _taken_out(values, dialect.ignored, "-{} is ignored: {}")
    if command == "envoy":
        notes += _for_envoy(arguments.words, values)
    else:
        mistakes += [f"what is {word!r} for? flags start with a dash" for word in arguments.words]
    notes += _settle_identity(values)
    if command == "proxy":
        notes += _as_the_proxy(values, mistakes)
        _keep_admin_apart(values, environ)
    notes += _settle_log(values)
    return Translation(
        words=tuple(f"-{name}={value}" for name, given in values.items() for value in given),
        notes=tuple(notes),
        mistakes=tuple(mistakes),
        help_wanted=arguments.help_wanted,
    )


def _counting(given: Mapping[str, tuple[str, ...]], dialect: Dialect) -> _Values:
    """Return the values that count: the last of a flag, no empty one, and no switch that is off."""
    every = {flag.name for flag in RUN_FLAGS if flag.repeatable} - {*dialect.ignored, *dialect.refused}
    last = {name: texts if name in every else texts[-1:] for name, texts in given.items()}
    return {
        name: texts for name, texts in last.items() if texts != ("",) and not _switched_off(name, texts[-1])
    }


def _switched_off(name: str, text: str) -> bool:
    return name in _SWITCHES and text.lower() in ("false", "f", "0")


def _taken_out(values: _Values, table: Mapping[str, str], form: str) -> list[str]:
    """Remove the flags of the table from the values; return a line for each that was there."""
    present = [name for name in table if name in values]
    for name in present:
        del values[name]
    return [form.format(name, table[name]) for name in present]


def _settle_identity(values: _Values) -> list[str]:
    """Keep the identity that wins in Consul's CLI."""
    given = [name for name in ("proxy-id", "sidecar-for", "service") if name in values]
    losers: dict[str, str] = dict.fromkeys(given[1:], f"-{given[0]} wins") if given else {}
    return _taken_out(values, losers, "-{} is ignored: {}")


def _as_the_proxy(values: _Values, mistakes: list[str]) -> list[str]:
    """Translate what only Consul's own proxy has; return the notes."""
    if "service" not in values:
        overlooked = ("listen", "service-addr", "upstream", "datacenter")
        return _taken_out(values, dict.fromkeys(overlooked, _REGISTERED), "-{} is ignored: {}")
    (service,) = values["service"]
    if "register-id" in values:
        values["register-id"] = (f"{service}-proxy-{values['register-id'][0]}",)
    (datacenter,) = values.pop("datacenter", ("",))
    if "upstream" in values:
        values["upstream"] = tuple(_upstream(spec, datacenter, mistakes) for spec in values["upstream"])
    if "listen" in values:
        return []
    return _taken_out(values, {"service-addr": "there is no -listen"}, "-{} is ignored: {}")


def _upstream(spec: str, datacenter: str, mistakes: list[str]) -> str:
    """Return Consul's `NAME[.TYPE]:[ADDR:]PORT` in our form; our own form stays."""
    ours = spec.startswith(_QUERY)
    target, colon, bind = spec.removeprefix(_QUERY).partition(":")
    name, kind = (target, "query") if ours else _name_and_type(target)
    if kind not in _KINDS:
        mistakes.append(f"-upstream {spec!r}: the type after the dot is service or query")
        return spec
    at = f"@{datacenter}" if datacenter and "@" not in name else ""
    return f"{_KINDS[kind]}{name}{at}{colon}{bind.removeprefix(':')}"


def _name_and_type(target: str) -> tuple[str, str]:
    name, _, kind = target.partition(".")
    return name, kind


def _keep_admin_apart(values: _Values, environ: Mapping[str, str]) -> None:
    """Let the kernel choose the admin port: Consul's own proxy has none, and many of them share a host."""
    chosen = {"admin-bind", "config"} & values.keys()
    if not chosen and not any(environ.get(name) for name in ("SIDECAR_ADMIN_BIND", "SIDECAR_CONFIG")):
        values["admin-bind"] = ("127.0.0.1:0",)


def _for_envoy(words: Sequence[str], values: _Values) -> list[str]:
    """Take Envoy's log level from the words for Envoy; return a note of the others."""
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        if name not in ("-l", "--log-level"):
            others.append(word)
        elif equals or rest:
            values.setdefault("log-level", (text if equals else rest.pop(0),))
    return [f"ignored, for Envoy alone: {' '.join(others)}"] if others else []


def _settle_log(values: _Values) -> list[str]:
    """Translate format and level of the log."""
    if values.pop("log-json", None):
        values["log-format"] = ("json",)
    (text,) = values.get("log-level", ("",))
    if not text:
        return []
    level = text.lower()
    values["log-level"] = (_LEVELS.get(level, level),)
    finer_or_coarser = level in ("trace", "critical", "off")
    return [f"-log-level {text} means {_LEVELS[level]} here"] if finer_or_coarser else []
