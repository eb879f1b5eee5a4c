"""Writes metrics in the text format of Prometheus, version 0.0.4.

prometheus_client is not used: it would keep 2.5 MB resident for a web server and mail headers that the agent
does not need. Tests hold this writer to that library's parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from agent.base.incremental import Incremental, Work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ENDING = ""  # no label has this name: the ending of a part of a histogram
_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


PIECE = 200  # samples that are written in one step


class Kind(StrEnum):
    """Whether a metric goes up and down, or only grows."""

    GAUGE = "gauge"
    COUNTER = "counter"  # its name ends in `_total`
    HISTOGRAM = "histogram"  # its samples have the endings `_bucket`, `_sum` and `_count`


class Family(msgspec.Struct):
    """One metric with all its label values. A worker sends its families to the control process unchanged."""

    name: str
    kind: Kind
    says: str
    samples: list[tuple[dict[str, str], float]] = []

    def add(self, value: float, **labels: str) -> Family:
        """Add a sample and return the family."""
        self.samples.append((labels, float(value)))
        return self

    def add_part(self, ending: str, value: float, **labels: str) -> None:
        """Add a sample whose name is that of the family with this ending."""
        self.samples.append(({_ENDING: ending, **labels}, float(value)))

    def sum_of(self, ending: str, **labels: str) -> float:
        """Return the sum of the samples that have this ending and these labels, among others."""
        wanted = {_ENDING: ending, **labels}.items()
        return sum(value for having, value in self.samples if wanted <= having.items())


def gauge(name: str, says: str) -> Family:
    """Return a family for a number that goes up and down."""
    return Family(name, Kind.GAUGE, says)


def counter(name: str, says: str) -> Family:
    """Return a family for a number that only grows."""
    return Family(name, Kind.COUNTER, says)


def text(families: Iterable[Family]) -> str:
    """Return the exposition page. A family without samples is left out."""
    return Incremental(written(families)).run_now()


def written(families: Iterable[Family]) -> Work[str]:
    """Write the same page in steps, since the samples of a thousand upstreams take a tenth of a second."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {family.says.translate(_HELP)}")
            lines.append(f"# TYPE {family.name} {family.kind.value}")
        for labels, value in family.samples:
            lines.append(f"{_named(family.name, labels)} {_number(value)}")
            if len(lines) % PIECE == 0:
                yield
    return "\n".join(lines) + "\n"


def _named(name: str, labels: Mapping[str, str]) -> str:
    if _ENDING not in labels:
        return f"{name}{_labels(labels)}"
    shown = {key: value for key, value in labels.items() if key != _ENDING}
    return f"{name}{labels[_ENDING]}{_labels(shown)}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_LABEL)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
