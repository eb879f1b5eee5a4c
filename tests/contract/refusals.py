"""How a refusal is told: a case of wrong input, and what must come back for it."""

from __future__ import annotations

import re

from tests.contract.client import Api
from tests.contract.versions import answers

REGISTER = "/v1/agent/service/register"
EXACT = "/v1/connect/intentions/exact?source=a&destination=b"
AUTHORIZE = "/v1/agent/connect/authorize"
NO_QUERY = "11111111-2222-3333-4444-555555555555"

Case = tuple[str, str, object, int, str]  # method, path, body, status, text


def told(case: Case) -> str:
    """A name for the case."""
    return f"{case[0]}-{case[1]}-{case[4].split(' ', maxsplit=1)[0]}"


def told_once(text: str) -> str:
    """One mistake, as Consul lists them."""
    return f"1 error occurred:\n\t* {text}\n\n"


def expect(api: Api, case: Case) -> None:
    """Ask, and hold the answer to the case: status, bare text, and the headers even an error has.

    Of a newer Consul to what it answers instead: `versions`.
    """
    method, path, body, status, text = case
    answer = api.call(method, path, body)
    told = (answer.status, _as_recorded(answer.text))
    assert told in answers(api, status, text), f"{answer.status}: {answer.text}"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-consul-default-acl-policy"] == "allow"
    assert answer.headers["x-consul-translate-addresses"] == "true"


def _as_recorded(text: str) -> str:
    """The same mistake, whatever Go a Consul was built with: each names the way to a field differently.

    `.Port` of 1.10.12's is `.Alias.Port` of a newer Go, and `.Alias.Proxy.Alias.Config` a deeper one. The
    field itself, its type and every other word must be the same.
    """
    return re.sub(r"Go struct field [\w.]*\.(\w+) of", r"Go struct field .\1 of", text)
