"""Metrics as Prometheus reads them: the text format, version 0.0.4.

Our own, because the client library keeps two and a half megabytes for a web server and mail headers that the
agent has no use for. Tests hold this to the library's parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Kind(StrEnum):
    """What a number means over time."""

    GAUGE = "gauge"
    COUNTER = "counter"  # its name ends in `_total`


class Family(msgspec.Struct):
    """One metric with all its label values; a worker's crosses to the control process as it is."""

    name: str
    kind: Kind
    says: str
    samples: list[tuple[dict[str, str], float]] = []

    def add(self, value: float, **labels: str) -> Family:
        """One more sample; returns the family."""
        self.samples.append((labels, float(value)))
        return self


def gauge(name: str, says: str) -> Family:
    """A number that goes up and down."""
    return Family(name, Kind.GAUGE, says)


def counter(name: str, says: str) -> Family:
    """A number that only grows."""
    return Family(name, Kind.COUNTER, says)


def text(families: Iterable[Family]) -> str:
    """The page. A family without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {family.says.translate(_HELP)}")
            lines.append(f"# TYPE {family.name} {family.kind.value}")
            lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_LABEL)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
