"""The CA configuration of one datacenter: its validation and its meaning. No effects.

See docs/consul-api.md#ca-configuration.

There are two differences from Consul, both for safety: a private key that was PUT is never shown again, and
so a configuration without a key never rotates (Consul would return to a generated root). `PUT
/v1/connect/ca/rotate` rotates on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from datacenter.ca.keys import DEFAULT_KIND, KeyKind
from datacenter.http.decode import DURATION, Fields
from datacenter.http.weak_decode import WeaklyMalformed, decode_weakly
from datacenter.state.durations import format_duration

PROVIDER = "consul"
SHORTEST_LEAF = timedelta(hours=1)
LONGEST_LEAF = timedelta(days=365)
DEFAULT_LEAF = timedelta(hours=72)
DEFAULT_CSR_PER_SECOND = 50.0
DEFAULT_INTERMEDIATE = timedelta(hours=8760)
_LONGEST = 2**63 / 1e9  # seconds; Go counts nanoseconds in 64 bits

_SECRET = "PrivateKey"  # noqa: S105  the name of a field
_SHAPE = Fields(
    "ConsulCAProviderConfig",
    {
        _SECRET: str,
        "RootCert": str,
        "LeafCertTTL": DURATION,
        "IntermediateCertTTL": DURATION,
        "PrivateKeyType": str,
        "PrivateKeyBits": int,
        "SkipValidate": bool,
        "CSRMaxPerSecond": float,
    },
)


class ConfigRefused(Exception):
    """Consul answers this configuration with 500; the text is the answer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaConfig:
    """A valid configuration. `shown` is `Config` as it was PUT, without the private key."""

    shown: Mapping[str, Any]
    leaf_ttl: timedelta = DEFAULT_LEAF
    intermediate_ttl: timedelta = DEFAULT_INTERMEDIATE
    kind: KeyKind = DEFAULT_KIND
    csr_per_second: float = DEFAULT_CSR_PER_SECOND  # 0: no limit
    force_without_cross_signing: bool = False

    def document(self) -> dict[str, Any]:
        """Return the answer to GET, without its indexes."""
        return {
            "Provider": PROVIDER,
            "Config": dict(self.shown),
            "State": None,
            "ForceWithoutCrossSigning": self.force_without_cross_signing,
        }


def starting_config(leaf_ttl: timedelta) -> CaConfig:
    """Return the initial configuration.

    A life outside Consul's bounds is shown with the flag that allows it.
    """
    shown: dict[str, Any] = {"IntermediateCertTTL": "8760h", "LeafCertTTL": _hours(leaf_ttl)}
    if not SHORTEST_LEAF <= leaf_ttl <= LONGEST_LEAF:
        shown["SkipValidate"] = True
    return CaConfig(shown=shown, leaf_ttl=leaf_ttl)


def parse_config(document: Mapping[str, Any]) -> CaConfig:
    """Read a decoded PUT body, or a stored `CaConfig.document()`. Raises ConfigRefused."""
    provider = document.get("Provider", "")
    if provider in {"vault", "aws-pca"}:
        text = f"CA provider {provider!r} needs a real Consul; an embedded datacenter has only {PROVIDER!r}"
        raise ConfigRefused(f"could not initialize provider: {text}")
    if provider != PROVIDER:
        raise ConfigRefused(f'could not initialize provider: unknown CA provider "{provider}"')
    shown = _canonical(document.get("Config") or {})
    try:
        given = _decoded(shown)
        config = CaConfig(
            shown={key: value for key, value in shown.items() if key != _SECRET},
            leaf_ttl=_duration(given, "LeafCertTTL", DEFAULT_LEAF),
            intermediate_ttl=_duration(given, "IntermediateCertTTL", DEFAULT_INTERMEDIATE),
            kind=_kind(given),
            csr_per_second=_rate(given),
            force_without_cross_signing=document.get("ForceWithoutCrossSigning") is True,
        )
        if not given.get("SkipValidate"):
            _check_lifetimes(config)
    except ValueError as error:
        raise ConfigRefused(f"error configuring provider: {error}") from error
    return config


def lingering(
    before: CaConfig | None, older_leaves: Mapping[str, Any], after: CaConfig, at: datetime
) -> dict[str, Any]:
    """Return what to keep beside `after`: until when longer-lived leaves, issued before, may be valid.

    `older_leaves` is what was kept beside `before`; empty if nothing was.
    """
    life = timedelta(0) if before is None else longest_life(before, older_leaves, at)
    if life <= after.leaf_ttl:
        return {}
    return {"Seconds": life.total_seconds(), "Until": (at + life).isoformat()}


def longest_life(config: CaConfig, older_leaves: Mapping[str, Any], at: datetime) -> timedelta:
    """Return the longest life of a leaf that may still be valid."""
    if not older_leaves or at >= datetime.fromisoformat(older_leaves["Until"]):
        return config.leaf_ttl
    return max(config.leaf_ttl, timedelta(seconds=older_leaves["Seconds"]))


def handed_in(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return `PrivateKey` and `RootCert` of a decoded PUT body, each "" if absent. Raises ConfigRefused."""
    try:
        given = _decoded(_canonical(document.get("Config") or {}))
    except ValueError as error:
        raise ConfigRefused(f"error configuring provider: {error}") from error
    return given.get(_SECRET, ""), given.get("RootCert", "")


def _decoded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known keys by their types. An empty text is as good as absent, in a stored document too."""
    given = {key: value for key, value in config.items() if value != ""}
    if given.get(_SECRET):
        given[_SECRET] = str(given[_SECRET])  # of a value that is no text the decoder would quote it
    try:
        return decode_weakly(given, _SHAPE, known=False)
    except WeaklyMalformed as error:
        raise ValueError(f"error decoding config: {error}") from error


def _check_lifetimes(config: CaConfig) -> None:
    if config.leaf_ttl < SHORTEST_LEAF:
        least = format_duration(SHORTEST_LEAF.total_seconds())
        raise ValueError(f"leaf cert TTL must be greater or equal than {least}")
    if config.leaf_ttl > LONGEST_LEAF:
        raise ValueError(f"leaf cert TTL must be less than {format_duration(LONGEST_LEAF.total_seconds())}")
    least_intermediate = 3 * config.leaf_ttl
    if config.intermediate_ttl < least_intermediate:
        least = format_duration(least_intermediate.total_seconds())
        raise ValueError(f"Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>={least}).")


def _kind(given: Mapping[str, Any]) -> KeyKind:
    named, bits = given.get("PrivateKeyType", ""), given.get("PrivateKeyBits", 0)
    if not named and not bits:
        return DEFAULT_KIND
    return KeyKind(named or DEFAULT_KIND.type, bits or DEFAULT_KIND.bits)


def _rate(given: Mapping[str, Any]) -> float:
    value = float(given.get("CSRMaxPerSecond", DEFAULT_CSR_PER_SECOND))
    if value < 0:
        raise ValueError("CSRMaxPerSecond must be a number, 0 for no limit")
    return value


def _duration(given: Mapping[str, Any], key: str, default: timedelta) -> timedelta:
    if key not in given:
        return default
    seconds = given[key] / 1e9
    if not 0 < seconds < _LONGEST:
        raise ValueError(f"{key} must be greater than 0, and less than 292 years")
    return timedelta(seconds=seconds)


def _canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return known keys in their usual spelling, whatever their case.

    Others unchanged, as Consul keeps them.
    """
    return {_SHAPE.canonical(key) or key: value for key, value in given.items()}


def _hours(duration: timedelta) -> str:
    hours, rest = divmod(duration, timedelta(hours=1))
    return format_duration(duration.total_seconds()) if rest else f"{hours}h"
