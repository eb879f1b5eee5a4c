"""The filter language of the embedded datacenter: any expression is refused by name, or can be asked."""

from __future__ import annotations

from datacenter.http.filter import CATALOG_SERVICE_SHAPE, HEALTH_SHAPE, INTENTION_SHAPE, compile_filter
from datacenter.state.errors import ApiError
from tests.fuzz.target import Target
from tests.recorded import body

_INSTANCES = body("health-connect-near")
_SERVICES = body("catalog-connect")


def fuzz_one(data: bytes) -> None:
    """Compile it for each kind of document, and ask it of some."""
    text = data.decode("utf-8", "replace")
    for shape, documents in (
        (HEALTH_SHAPE, _INSTANCES),
        (CATALOG_SERVICE_SHAPE, _SERVICES),
        (INTENTION_SHAPE, [{"Meta": {"a": "b"}, "Precedence": 9}, {}]),
    ):
        try:
            test = compile_filter(text, shape)
        except ApiError as refused:
            assert refused.status in {400, 500}
            continue
        assert all(test(document) in {True, False} for document in documents)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b'Service.Meta.version == "1" and (not "v1" in Service.Tags or Checks.Status != critical)',
        b"Service.Meta is not empty",
        b'Service.Service matches "^w.b$"',
        b'"x" not in Service.Tags',
        b"Node.Meta[`a b`] contains x",
        b'Node.Node == "a\\"b"',
        b"(" * 1200 + b"Service.ID is empty" + b")" * 1200,
        b"not " * 1200 + b"Service.ID is empty",
        b'Service.ID matches "(a+)+$"',
        b"Service.ID == x and " * 300 + b"Service.ID == x",
    ),
    words=(
        *(b" and ", b" or ", b"not ", b" in ", b" == ", b" != ", b" is empty", b" matches ", b" contains "),
        *(
            b"(",
            b")",
            b'"',
            b"`",
            b"[",
            b"]",
            b"Service.Meta",
            b"Service.Tags",
            b"Checks.Status",
            b"Node.Node",
        ),
        *(b"Precedence", b"SourceName", b"ServiceName", b"\\"),
    ),
)
