"""How a refusal is told: a case of wrong input, and what must come back for it."""

from __future__ import annotations

from tests.contract.client import Api

REGISTER = "/v1/agent/service/register"
EXACT = "/v1/connect/intentions/exact?source=a&destination=b"
AUTHORIZE = "/v1/agent/connect/authorize"
NO_QUERY = "11111111-2222-3333-4444-555555555555"

Case = tuple[str, str, object, int, str]  # method, path, body, status, text


def told(case: Case) -> str:
    """A name for the case."""
    return f"{case[0]}-{case[1]}-{case[4].split(' ', maxsplit=1)[0]}"


def expect(api: Api, case: Case) -> None:
    """Ask, and hold the answer to the case: status, bare text, and the headers even an error has."""
    method, path, body, status, text = case
    answer = api.call(method, path, body)
    assert (answer.status, _as_recorded(answer.text)) == (status, text), f"{answer.status}: {answer.text}"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-consul-default-acl-policy"] == "allow"
    assert answer.headers["x-consul-translate-addresses"] == "true"


def _as_recorded(text: str) -> str:
    """The same mistake in the words of the Go that Consul 1.10.12 was released with.

    Consul decodes a registration into a nameless struct around the embedded type `Alias`. Newer Go's
    encoding/json names the embedded type too when it tells of a field in it. No other word may differ.
    """
    return text.replace("Go struct field .Alias.Port of", "Go struct field .Port of")
