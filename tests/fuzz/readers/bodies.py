"""Bodies of requests to the embedded datacenter: any bytes, held to one of its shapes, chosen by the first.

Refused in Consul's words, or read into a document that JSON can say again.
"""

from __future__ import annotations

import json
from random import Random

from datacenter.http.decode import DURATION, Fields, Mapped, decode
from datacenter.intentions import config_entries
from datacenter.intentions import endpoints as intentions
from datacenter.queries import definitions as query
from datacenter.services import agent_services, catalog, definitions
from datacenter.state.errors import ApiError
from tests.fuzz.answered import words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Plain, Target

_MODULES = (agent_services, catalog, config_entries, definitions, intentions, query)
SHAPES = [
    shape for module in _MODULES for name, shape in sorted(vars(module).items()) if isinstance(shape, Fields)
]


def fuzz_one(data: bytes) -> None:
    """Decode it."""
    if not data:
        return
    try:
        document = decode(data[1:], SHAPES[data[0] % len(SHAPES)])
    except ApiError as refused:
        assert refused.status == 400
        return
    assert isinstance(json.loads(json.dumps(document)), dict)


_EXAMPLES: dict[object, object] = {str: "10s", int: 3, float: 1.5, bool: True, DURATION: "10s"}


def _every_key(shape: Fields) -> bytes:
    return json.dumps({name: _example(inner) for name, inner in shape.shapes.items()}).encode()


def _example(shape: object) -> object:
    if isinstance(shape, Fields):
        return {name: _example(inner) for name, inner in shape.shapes.items()}
    if isinstance(shape, list):
        return [_example(shape[0])]
    return {"a": _example(shape.of)} if isinstance(shape, Mapped) else _EXAMPLES.get(shape, {"a": "10s"})


_DOCUMENTS = [_every_key(shape) for shape in SHAPES]
_CHANGE = json_with(words_of(*_DOCUMENTS))


def _mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    return data[:1] + _CHANGE(data[1:], most - 1, rng, plain)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *(bytes([number]) + document for number, document in enumerate(_DOCUMENTS)),
        b"\0" + b"[" * 1200,
        b"\0" + b'{"Meta":' * 1200,
        b"\0" + b"9" * 5000,
        b"\0{} and what follows",
        b'\0{"name": "\xff", "NA_ME": "x"}',
        b"\0null",
    ),
    mutate=_mutate,
    longest=8192,
)
