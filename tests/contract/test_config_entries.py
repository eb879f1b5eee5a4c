"""Config entries of the kinds a sidecar's settings come from, and how they reach a registration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.client import Api
from tests.contract.conftest import Register
from tests.contract.federation import Federation
from tests.contract.services import sidecar
from tests.contract.versions import answers

CONFIG = "/v1/config"


@pytest.fixture
def central(dc1: Api) -> Iterator[Api]:
    """The primary, whose proxy-defaults are gone afterwards: they reach every other test's registrations."""
    yield dc1
    dc1.delete(f"{CONFIG}/proxy-defaults/global")


def test_an_entry_is_written_listed_and_deleted(federation: Federation, name: str) -> None:
    dc1 = federation.dc1
    entry = {"Kind": "service-defaults", "Name": name, "Protocol": "http"}
    assert dc1.put(CONFIG, entry).text == "true"
    for api in federation:
        api.until(f"{CONFIG}/service-defaults", lambda found: name in {item["Name"] for item in found})
        answer = api.get(f"{CONFIG}/service-defaults/{name}")
        body = answer.json
        assert answer.index >= 1
        assert body.pop("CreateIndex") == body.pop("ModifyIndex")
        assert body == {**entry, "TransparentProxy": {}, "MeshGateway": {}, "Expose": {}}
    for _ in range(2):
        assert dc1.delete(f"{CONFIG}/service-defaults/{name}").text == "{}"
    assert dc1.get(f"{CONFIG}/service-defaults/{name}").status == 404
    assert name not in {item["Name"] for item in dc1.get(f"{CONFIG}/service-defaults").json}


def test_an_entry_written_in_the_secondary_is_kept_in_the_primary(federation: Federation, name: str) -> None:
    entry = {"Kind": "service-defaults", "Name": name, "Protocol": "grpc"}
    assert federation.dc2.put(CONFIG, entry).text == "true"
    assert federation.dc1.get(f"{CONFIG}/service-defaults/{name}").json["Protocol"] == "grpc"


def test_a_watched_entry_wakes_its_watcher(dc1: Api, name: str) -> None:
    entry = {"Kind": "service-defaults", "Name": name, "Protocol": "http"}
    dc1.put(CONFIG, entry)
    known = dc1.get(f"{CONFIG}/service-defaults/{name}").index
    pending = dc1.hold(f"{CONFIG}/service-defaults/{name}?index={known}&wait=30s")
    dc1.put(CONFIG, entry | {"Protocol": "http2"})
    answer = pending.result()
    assert answer.json["Protocol"] == "http2"
    assert answer.seconds < 5


def test_writing_can_be_conditional(dc1: Api, name: str) -> None:
    entry = {"Kind": "service-defaults", "Name": name, "Protocol": "http"}
    assert dc1.put(f"{CONFIG}?cas=0", entry).text == "true"
    assert dc1.put(f"{CONFIG}?cas=0", entry | {"Protocol": "http2"}).text == "false"
    index = dc1.get(f"{CONFIG}/service-defaults/{name}").json["ModifyIndex"]
    assert dc1.put(f"{CONFIG}?cas={index}", entry | {"Protocol": "http2"}).text == "true"


def test_proxy_defaults_have_one_name(central: Api) -> None:
    entry = {"Kind": "proxy-defaults", "Name": "another", "Config": {"protocol": "tcp"}}
    answer = central.put(CONFIG, entry)
    told = (answer.status, answer.text)
    assert told in answers(central, 200, "true", path=f"{CONFIG} proxy-defaults")
    if answer.status == 200:
        assert central.get(f"{CONFIG}/proxy-defaults/global").json["Name"] == "global"


def test_central_settings_reach_the_registration_and_local_ones_win(
    central: Api, register: Register, name: str
) -> None:
    upstream = {"DestinationName": f"{name}-db", "LocalBindPort": 9191}
    register(central, sidecar(name, {"Upstreams": [upstream], "Config": {"mine": 1, "both": "local"}}))
    path = f"/v1/agent/service/{name}-sidecar-proxy"
    known = central.get(path).json["ContentHash"]
    pending = central.hold(f"{path}?hash={known}&wait=30s")
    config = {"theirs": 2, "both": "central"}
    central.put(CONFIG, {"Kind": "proxy-defaults", "Name": "global", "Config": config})
    answer = pending.result()
    assert answer.seconds < 5
    assert answer.json["Proxy"]["Config"] == {"mine": 1, "theirs": 2, "both": "local"}
    central.put(CONFIG, {"Kind": "service-defaults", "Name": name, "Protocol": "http"})
    woken = central.get(f"{path}?hash={answer.json['ContentHash']}&wait=30s")
    assert woken.json["Proxy"]["Config"]["protocol"] == "http"


def test_the_protocol_of_an_upstream_reaches_the_upstream(dc1: Api, register: Register, name: str) -> None:
    upstream = {"DestinationName": f"{name}-db", "LocalBindPort": 9191}
    dc1.put(CONFIG, {"Kind": "service-defaults", "Name": f"{name}-db", "Protocol": "http2"})
    register(dc1, sidecar(name, {"Upstreams": [upstream]}))
    known = ""
    for _ in range(3):  # the agent merges when it hears of the entry: not always at once
        body = dc1.get(f"/v1/agent/service/{name}-sidecar-proxy?hash={known}&wait=3s").json
        if found := body["Proxy"]["Upstreams"][0].get("Config"):
            break
        known = body["ContentHash"]
    else:
        found = None
    assert found == {"protocol": "http2"}
