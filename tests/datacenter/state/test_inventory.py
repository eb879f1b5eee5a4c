"""Nodes, services and checks: which changes touch which topics, and alias checks."""

from __future__ import annotations

from typing import Any

from datacenter.services.registration import normal_service
from datacenter.state.inventory import CHECKS, MOST_ENDED, SERVICES, Inventory
from datacenter.state.store import Store

NODE = {"ID": "", "Node": "n1", "Address": "10.0.0.1", "TaggedAddresses": {}, "Meta": {}}


def inventory() -> Inventory:
    made = Inventory(Store(), "n1")
    made.put_node("n1", NODE)
    return made


def service(identifier: str, name: str = "", **more: Any) -> dict[str, Any]:
    return normal_service({"ID": identifier, "Service": name or identifier, "Port": 1, **more})


def proxy(identifier: str, destination: str) -> dict[str, Any]:
    return service(identifier, Kind="connect-proxy", Proxy={"DestinationServiceName": destination})


def check(identifier: str, status: str = "passing", service_id: str = "", output: str = "") -> dict[str, Any]:
    return {
        "CheckID": identifier,
        "Name": identifier,
        "Status": status,
        "Output": output,
        "ServiceID": service_id,
        "ServiceName": service_id,
        "ServiceTags": [],
    }


def alias(made: Inventory, identifier: str, of: str, owner: str = "", node: str = "") -> None:
    definition = {"CheckID": identifier, "Kind": "alias", "AliasService": of, "AliasNode": node}
    made.definitions.put(identifier, definition)
    made.put_check("n1", check(identifier, "critical", owner))


def touched(made: Inventory, *topics: str) -> dict[str, int]:
    return {topic: made.store.index_of((topic,)) for topic in topics}


def found(made: Inventory, identifier: str) -> tuple[str, str]:
    row = made.check("n1", identifier)
    assert row is not None
    return row.value["Status"], row.value["Output"]


def test_the_same_again_changes_nothing() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_check("n1", check("c", service_id="web"))
    before = made.store.index
    made.put_node("n1", NODE)
    made.put_service("n1", service("web"))
    made.put_check("n1", check("c", service_id="web"))
    assert made.store.index == before


def test_a_proxy_is_watched_under_its_own_name_and_its_destination_s() -> None:
    made = inventory()
    made.put_service("n1", proxy("web-proxy", "web"))
    index = made.store.index
    assert touched(made, "service:web-proxy", "connect:web", "service:web") == {
        "service:web-proxy": index,
        "connect:web": index,
        "service:web": 1,
    }


def test_a_native_service_is_its_own_proxy() -> None:
    made = inventory()
    made.put_service("n1", service("web", Connect={"Native": True}))
    assert [each.service.key for each in made.connect_instances("web")] == ["n1/web"]


def test_a_new_destination_wakes_the_old_one_s_watchers() -> None:
    made = inventory()
    made.put_service("n1", proxy("p", "web"))
    made.put_service("n1", proxy("p", "db"))
    assert touched(made, "connect:web") == {"connect:web": made.store.index}
    assert made.connect_instances("web") == []


def test_a_check_touches_its_service_and_no_other() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_service("n1", service("db"))
    db = made.store.index
    made.put_check("n1", check("c", "critical", "web"))
    assert touched(made, "service:web", "service:db") == {"service:web": made.store.index, "service:db": db}


def test_a_node_s_check_and_the_node_touch_every_service_on_it() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_check("n1", check("c", "critical"))
    assert touched(made, "service:web") == {"service:web": made.store.index}
    made.put_node("n1", {**NODE, "Address": "10.0.0.2"})
    assert touched(made, "service:web") == {"service:web": made.store.index}


def test_a_new_output_alone_is_kept_and_wakes_nobody() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_check("n1", check("c", "passing", "web", "one"))
    before = touched(made, "service:web", CHECKS)
    made.put_check("n1", check("c", "passing", "web", "two"))
    assert touched(made, "service:web", CHECKS) == before
    assert found(made, "c") == ("passing", "two")


def test_removing_a_service_takes_its_checks_along() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_check("n1", check("c", service_id="web"))
    made.put_check("n1", check("of the node"))
    made.definitions.put("c", {"CheckID": "c", "Kind": "ttl"})
    assert made.remove_service("n1", "web")
    assert [row.value["CheckID"] for row in made.checks.rows()] == ["of the node"]
    assert made.definitions.rows() == []
    assert touched(made, "service:web") == {"service:web": made.store.index}
    assert not made.remove_service("n1", "web")
    assert not made.remove_check("n1", "c")


def test_removing_a_node_takes_everything_along() -> None:
    made = inventory()
    made.put_node("n2", {**NODE, "Node": "n2"})
    made.put_service("n2", service("web"))
    made.put_check("n2", check("c"))
    assert made.remove_node("n2")
    assert made.node_services("n2") == made.node_checks("n2") == []
    assert not made.remove_node("n2")


def test_a_name_nobody_ever_had_is_watched_through_all() -> None:
    made = inventory()
    assert made.instance_topics("connect", "web") == (SERVICES,)
    made.put_service("n1", proxy("p", "web"))
    assert made.instance_topics("connect", "web") == ("connect:web",)
    made.remove_service("n1", "p")
    assert made.instance_topics("connect", "web") == ("connect:web",), "or its watchers' index would go back"


def test_instances_come_with_their_node_s_checks_first() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_service("n1", service("db"))
    made.put_check("n1", check("a", service_id="web"))
    made.put_check("n1", check("b", service_id="db"))
    made.put_check("n1", check("z"))
    instance = made.instances("web")[0]
    assert [row.value["CheckID"] for row in instance.checks] == ["z", "a"]


def test_checks_follow_their_service_s_new_name() -> None:
    made = inventory()
    made.put_service("n1", service("w", "web"))
    made.put_check("n1", check("c", service_id="w"))
    made.put_service("n1", service("w", "site", Tags=["t"]))
    row = made.check("n1", "c")
    assert row is not None
    assert (row.value["ServiceName"], row.value["ServiceTags"]) == ("site", ["t"])


def test_an_alias_of_a_service_without_checks_passes() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    alias(made, "a", "web")
    assert found(made, "a") == ("passing", "No checks found.")


def test_an_alias_here_does_not_ask_whether_its_own_node_lives() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    alias(made, "a", "web")
    for status in ("passing", "critical"):
        made.put_check("n1", check("serfHealth", status, output="of the cluster"))
        assert found(made, "a") == ("passing", "No checks found.")


def test_an_alias_follows_what_it_stands_for_at_once() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_service("n1", proxy("p", "web"))
    alias(made, "a", "web", "p")
    made.put_check("n1", check("c", "critical", "web", "why"))
    assert found(made, "a") == ("critical", 'Aliased check "c" failing: why')
    assert touched(made, "connect:web") == {"connect:web": made.store.index}
    made.put_check("n1", check("c", "passing", "web"))
    assert found(made, "a") == ("passing", "All checks passing.")


def test_the_worst_check_decides_an_alias() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    alias(made, "z", "web")
    made.put_check("n1", check("a", "warning", "web", "hot"))
    made.put_check("n1", check("b", "passing", "web"))
    assert found(made, "z") == ("warning", 'Aliased check "a" failing: hot')
    made.put_check("n1", check("c", "critical", "web", "dead"))
    assert found(made, "z") == ("critical", 'Aliased check "c" failing: dead')


def test_an_alias_of_an_alias() -> None:
    made = inventory()
    for name in ("one", "two", "three"):
        made.put_service("n1", service(name))
    alias(made, "a", "two", "three")  # settled before what it depends on
    alias(made, "b", "one", "two")
    made.put_check("n1", check("c", "critical", "one"))
    assert (found(made, "b")[0], found(made, "a")[0]) == ("critical", "critical")
    made.remove_check("n1", "c")
    assert (found(made, "b")[0], found(made, "a")[0]) == ("passing", "passing")


def test_aliases_in_a_ring_settle() -> None:
    made = inventory()
    made.put_service("n1", service("one"))
    made.put_service("n1", service("two"))
    alias(made, "a", "two", "one")
    alias(made, "b", "one", "two")
    assert {found(made, "a")[0], found(made, "b")[0]} <= {"passing", "critical"}


def test_an_alias_of_nothing_is_critical() -> None:
    made = inventory()
    alias(made, "a", "gone")
    assert found(made, "a") == ("critical", "Service gone could not be found on node n1")


def test_an_alias_of_another_node_s_service() -> None:
    made = inventory()
    made.put_node("n2", {**NODE, "Node": "n2"})
    made.put_service("n2", service("web"))
    made.put_check("n2", check("c", "critical", "web", "x"))
    alias(made, "a", "web", node="n2")
    assert found(made, "a") == ("critical", 'Aliased check "c" failing: x')


def test_an_alias_that_stays_as_it_is_wakes_nobody() -> None:
    made = inventory()
    made.put_service("n1", service("web"))
    made.put_service("n1", proxy("p", "web"))
    made.put_check("n1", check("c", "critical", "web", "one"))
    alias(made, "a", "web", "p")
    before = touched(made, "connect:web")
    made.put_check("n1", check("c", "critical", "web", "two"))
    assert touched(made, "connect:web") == before
    assert found(made, "a") == ("critical", 'Aliased check "c" failing: two')


def test_the_server_is_no_service_of_the_agent() -> None:
    made = inventory()
    made.put_service("n1", service("consul"))
    made.put_check("n1", check("serfHealth"))
    assert made.agent_services() == made.agent_checks() == []


def test_names_that_come_and_go_do_not_grow_the_table_of_topics_without_end() -> None:
    made = inventory()
    made.put_service("n1", service("stays"))

    def index_of(name: str) -> int:
        return made.store.index_of(made.instance_topics("service", name))

    stays, most, before = index_of("stays"), 0, 0
    for number in range(2 * MOST_ENDED):
        name = f"s{number}"
        made.put_service("n1", service(name))
        before = index_of(name)
        made.remove_service("n1", name)
        assert index_of(name) > before
        most = max(most, made.store.topic_count)
    assert most < 1.2 * MOST_ENDED
    assert index_of("s0") >= before  # an index never goes backwards
    assert index_of("stays") == stays
