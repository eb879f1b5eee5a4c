"""Ids are no names: one that holds what has a meaning in a URL is found in paths and filters all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode

import pytest

from tests.contract.client import Api
from tests.contract.services import sidecar


@contextmanager
def registered(api: Api, name: str, service_id: str) -> Iterator[None]:
    """A service of that id and its sidecar."""
    answer = api.put("/v1/agent/service/register", sidecar(name, ID=service_id))
    assert (answer.status, answer.text) == (200, "")
    try:
        yield
    finally:
        deregistered = api.put(f"/v1/agent/service/deregister/{quote(service_id, safe='')}")
        assert deregistered.status == 200


@pytest.mark.parametrize("odd", ["a/b", "a b", "a#b", "a?b", "100%", "a%2Fb", "a&b=c+d", 'a"b', "grün"])
def test_a_sidecar_is_found_by_an_odd_id(dc1: Api, name: str, odd: str) -> None:
    service_id = f"{name}-{odd}"
    proxy_id = f"{service_id}-sidecar-proxy"
    with registered(dc1, name, service_id):
        answer = dc1.get(f"/v1/agent/service/{quote(proxy_id, safe='')}").json
        assert answer["ID"] == proxy_id
        mark = "`" if '"' in odd else '"'
        kind = f"Kind == {mark}connect-proxy{mark}"
        beside = urlencode({"filter": f"{kind} and Proxy.DestinationServiceID == {mark}{service_id}{mark}"})
        assert list(dc1.get(f"/v1/agent/services?{beside}").json) == [proxy_id]
    assert dc1.get(f"/v1/agent/service/{quote(proxy_id, safe='')}").status == 404
