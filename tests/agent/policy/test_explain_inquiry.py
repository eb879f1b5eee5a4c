"""The texts of a question, read."""

from __future__ import annotations

import pytest

from agent.policy.explain import Inquiry, InvalidInquiry, question_of


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("web", "spiffe://x.consul/ns/default/dc/dc1/svc/web"),
        ("web@dc2", "spiffe://x.consul/ns/default/dc/dc2/svc/web"),
        ("spiffe://y.consul/ns/a/dc/b/svc/c", "spiffe://y.consul/ns/a/dc/b/svc/c"),
    ],
)
def test_sources(text: str, printed: str) -> None:
    assert str(question_of(Inquiry(source=text), "x.consul", "dc1").source) == printed


def test_a_request() -> None:
    inquiry = Inquiry(source="web", path="/a//b?x", headers=("X-A: 1", "x_a:2"))
    request = question_of(inquiry, "", "dc1").request
    assert request is not None
    assert (request.method, request.headers) == ("GET", {"x-a": ("1", "2")})
    assert question_of(Inquiry(source="web"), "", "dc1").request is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"source": ""}, "-source SERVICE"),
        ({"source": "a/b"}, "write SERVICE, SERVICE@DC or a SPIFFE ID"),
        ({"source": "spiffe://x.consul"}, "not the identity of a service"),
        ({"source": "web", "serial": "xyz"}, "not hexadecimal"),
        ({"source": "web", "headers": ("novalue",)}, "write 'Name: value'"),
        ({"source": "web", "method": "G T"}, "one word"),
        ({"source": "web", "path": "/a b"}, "visible ASCII"),
        ({"source": "web", "path": "/a#b"}, "refused whatever the rules say"),
    ],
)
def test_what_is_no_question(told: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInquiry, match=said):
        question_of(Inquiry(**told), "x.consul", "dc1")  # type: ignore[arg-type]  # a table
