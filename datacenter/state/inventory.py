"""Nodes, services and checks of one datacenter, in the store, with the topics that a change touches.

Beside the tables there are the topics `service:NAME` for the instances of a service by name, and
`connect:NAME` for those that can be reached as NAME through the mesh (its proxies, and itself if native),
NAME in lower case. A change of an instance, of one of its checks, or of its node touches them. The catalog
ignores the case of service and node names, as in Consul; the agent's own services are known by their exact
IDs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from datacenter.state.store import Document, Row, Store
from datacenter.state.validation import PROXY_KIND

NODES, SERVICES, CHECKS, DEFINITIONS = "nodes", "services", "checks", "check_definitions"
MOST_ENDED = 1024  # names whose last instance has gone, and whose index is still known
SERF_HEALTH = "serfHealth"
_FINE = ("service:", "connect:")
_MOST_TURNS = 3  # how often one change may update the same alias
SERVER_SERVICE = "consul"  # every server registers itself under this name; no agent lists it


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One service instance with its node and all checks that decide about its health."""

    node: Row
    service: Row
    checks: tuple[Row, ...]  # the node's, then the service's


class Inventory:
    """The catalog's tables and the agent's check definitions; every write is one transaction."""

    def __init__(self, store: Store, own_node: str) -> None:
        self.store = store
        self.own_node = own_node
        self.nodes = store.table(NODES)
        self.services = store.table(SERVICES)
        self.checks = store.table(CHECKS)
        self.definitions = store.table(DEFINITIONS)
        self._services_by_node = self.services.grouped(lambda service: (service["Node"],))
        self._nodes_by_name = self.nodes.grouped(lambda node: (node["Node"].lower(),))
        self._services_by_destination = self.services.grouped(_destinations)
        self._services_by_topic = self.services.grouped(_topics)
        self._checks_by_owner = self.checks.grouped(
            lambda check: (_owner(check["Node"], check["ServiceID"]),)
        )
        self._checks_by_node = self.checks.grouped(lambda check: (check["Node"],))
        self._aliases = self.definitions.grouped(self._aliased_owners)

    def put_node(self, name: str, node: Document) -> None:
        """Register or change a node."""
        before = self.nodes.get(name)
        if before is None or before.value != node:
            with self.store.transaction():
                self.nodes.put(name, node)
                self._touch_node(name)

    def put_service(self, node: str, service: Document) -> None:
        """Register or change an instance; the same again changes nothing, not even an index."""
        key, value = f"{node}/{service['ID']}", {**service, "Node": node}
        before = self.services.get(key)
        if before is not None and before.value == value:
            return
        with self.store.transaction():
            self.services.put(key, value)
            self.store.touch(*_topics(value), *(_topics(before.value) if before else ()))
            self._rename_checks(node, value)
            self._settle_after(node, value["ID"])

    def remove_service(self, node: str, identifier: str) -> bool:
        """Deregister an instance, its checks and their definitions. Return False if there is none."""
        row = self.services.get(f"{node}/{identifier}")
        if row is None:
            return False
        with self.store.transaction():
            for check in self._service_checks(node, identifier):
                self.remove_check(node, check.value["CheckID"])
            self.services.delete(row.key)
            self.store.touch(*_topics(row.value))
            self._settle_after(node, identifier)
        self._drop_topics()
        return True

    def _drop_topics(self) -> None:
        """Forget names under which nothing is registered any more, the longest ones gone first."""
        if self.store.topic_count - len(self._services_by_topic) <= MOST_ENDED:
            return
        fine = [topic for topic in self.store.topics() if topic.startswith(_FINE)]
        ended = [topic for topic in fine if not self._services_by_topic.rows(topic)]
        self.store.drop_topics(*ended[: max(0, len(ended) - MOST_ENDED // 2)])

    def put_check(self, node: str, check: Document) -> None:
        """Register or change a check. A new output alone wakes no watcher, as in Consul's agents."""
        key, value = f"{node}/{check['CheckID']}", {**check, "Node": node}
        before = self.checks.get(key)
        if before is not None and before.value == value:
            return
        with self.store.transaction():
            quiet = before is not None and {**before.value, "Output": value["Output"]} == value
            self.checks.put(key, value, quiet=quiet)
            if not quiet:
                self._touch_check(node, value["ServiceID"])
            self._settle_after(node, value["ServiceID"])
            if node == self.own_node:
                self.settle_alias(value["CheckID"])

    def remove_check(self, node: str, identifier: str) -> bool:
        """Deregister a check and, on our own node, its definition. Return False if there is none."""
        row = self.checks.get(f"{node}/{identifier}")
        if row is None:
            return False
        with self.store.transaction():
            self.checks.delete(row.key)
            if node == self.own_node:
                self.definitions.delete(identifier)
            self._touch_check(node, row.value["ServiceID"])
            self._settle_after(node, row.value["ServiceID"])
        return True

    def remove_node(self, name: str) -> bool:
        """Deregister a node with everything on it. Return False if there is none."""
        if self.nodes.get(name) is None:
            return False
        with self.store.transaction():
            for service in self.node_services(name):
                self.remove_service(name, service.value["ID"])
            for check in self.node_checks(name):
                self.remove_check(name, check.value["CheckID"])
            self.nodes.delete(name)
        return True

    def node(self, name: str) -> Row | None:
        """Return the node of that name, in any case."""
        return next(iter(self._nodes_by_name.rows(name.lower())), None)

    def service(self, node: str, identifier: str) -> Row | None:
        """Return one instance."""
        return self.services.get(f"{node}/{identifier}")

    def check(self, node: str, identifier: str) -> Row | None:
        """Return one check."""
        return self.checks.get(f"{node}/{identifier}")

    def node_services(self, node: str) -> list[Row]:
        """Return the instances on a node."""
        return self._services_by_node.rows(node)

    def agent_services(self) -> list[Row]:
        """Return the instances registered with this agent."""
        return [row for row in self.node_services(self.own_node) if row.value["ID"] != SERVER_SERVICE]

    def agent_proxies_of(self, identifier: str) -> list[Row]:
        """Return the proxies registered with this agent whose destination is the service of this ID."""
        return self._services_by_destination.rows(_owner(self.own_node, identifier))

    def node_checks(self, node: str) -> list[Row]:
        """Return the checks on a node, those of the node itself first."""
        return sorted(self._checks_by_node.rows(node), key=_node_first)

    def agent_checks(self) -> list[Row]:
        """Return the checks registered with this agent."""
        return [row for row in self.node_checks(self.own_node) if row.value["CheckID"] != SERF_HEALTH]

    def instances(self, name: str) -> list[Instance]:
        """Return the instances of a service, by its name."""
        return [self._instance(row) for row in self._services_by_topic.rows(_topic("service", name))]

    def connect_instances(self, name: str) -> list[Instance]:
        """Return the instances that serve as a service in the mesh."""
        return [self._instance(row) for row in self._services_by_topic.rows(_topic("connect", name))]

    def instance_topics(self, kind: str, name: str) -> tuple[str, ...]:
        """Return the topics that a watcher of `service` or `connect` instances of this name waits for.

        A name that was never registered is watched by all registrations, one of which will be its first.
        """
        topic = _topic(kind, name)
        return (topic,) if self.store.known(topic) else (SERVICES,)

    def settle_alias(self, identifier: str) -> None:
        """Update a check if it is an alias, then the aliases that depend on it."""
        definition = self.definitions.get(identifier)
        if definition is not None and definition.value["Kind"] == "alias":
            owner = self._settle(definition.value)
            if owner is not None:
                self._settle_after(self.own_node, owner)

    def _settle_after(self, node: str, service: str) -> None:
        """Update the aliases of a service whose checks have changed ("": the node's), and theirs."""
        changed = [(node, service)]
        settled: Counter[str] = Counter()
        while changed:
            for alias in self._aliases.rows(_owner(*changed.pop())):
                if settled[alias.key] == _MOST_TURNS:
                    continue  # aliases that form a ring would go on for ever
                owner = self._settle(alias.value)
                if owner is not None:
                    settled[alias.key] += 1
                    changed.append((self.own_node, owner))

    def _aliased_owners(self, definition: Document) -> Iterator[str]:
        """Yield the owners whose checks an alias stands for: a service, and its node."""
        if definition["Kind"] == "alias":
            node = definition["AliasNode"] or self.own_node
            yield from {_owner(node, ""), _owner(node, definition["AliasService"])}

    def _settle(self, definition: Document) -> str | None:
        """Update an alias; return the service whose checks that changes, "" for the node's, None if none."""
        row = self.check(self.own_node, definition["CheckID"])
        if row is None:
            return None
        node = definition["AliasNode"] or self.own_node
        status, output = self._aliased(row.key, node, definition["AliasService"])
        if (row.value["Status"], row.value["Output"]) == (status, output):
            return None
        quiet = row.value["Status"] == status
        self.checks.put(row.key, {**row.value, "Status": status, "Output": output}, quiet=quiet)
        owner: str = row.value["ServiceID"]
        if not quiet:
            self._touch_check(self.own_node, owner)
        return owner

    def _aliased(self, own_key: str, node: str, service: str) -> tuple[str, str]:
        status, output = "passing", "No checks found."
        for check in [*self._service_checks(node, ""), *self._service_checks(node, service)]:
            # An alias that belongs to the node would otherwise keep itself critical; and an agent does not
            # ask the cluster about its own node.
            if check.key in {own_key, f"{self.own_node}/{SERF_HEALTH}"}:
                continue
            if check.value["Status"] == "passing":
                output = output if status != "passing" else "All checks passing."
                continue
            status = check.value["Status"]
            output = f'Aliased check "{check.value["Name"]}" failing: {check.value["Output"]}'
            if status == "critical":
                break
        if service and self.service(node, service) is None:
            return "critical", f"Service {service} could not be found on node {node}"
        return status, output

    def _instance(self, service: Row) -> Instance:
        name = service.value["Node"]
        node = self.nodes.get(name)
        assert node is not None, "a service is only ever written with its node"
        checks = (*self._service_checks(name, ""), *self._service_checks(name, service.value["ID"]))
        return Instance(node=node, service=service, checks=checks)

    def _service_checks(self, node: str, service: str) -> list[Row]:
        return self._checks_by_owner.rows(_owner(node, service))

    def _rename_checks(self, node: str, service: Document) -> None:
        """Copy the name and tags of a service into its checks."""
        named = {"ServiceName": service["Service"], "ServiceTags": service["Tags"]}
        for row in self._service_checks(node, service["ID"]):
            if {**row.value, **named} != row.value:
                self.checks.put(row.key, {**row.value, **named})

    def _touch_check(self, node: str, service_id: str) -> None:
        if not service_id:
            self._touch_node(node)
        elif (service := self.service(node, service_id)) is not None:
            self.store.touch(*_topics(service.value))

    def _touch_node(self, node: str) -> None:
        for service in self.node_services(node):
            self.store.touch(*_topics(service.value))


def _owner(node: str, service: str) -> str:
    """Return the owner of a check: a service on a node, or with "" the node."""
    return f"{node}/{service}"


def _destinations(service: Document) -> tuple[str, ...]:
    identifier = service["Proxy"].get("DestinationServiceID") if service["Kind"] == PROXY_KIND else None
    return (_owner(service["Node"], identifier),) if identifier else ()


def _node_first(check: Row) -> tuple[bool, str]:
    return check.value["ServiceID"] != "", check.key


def _topics(service: Document) -> tuple[str, ...]:
    return tuple(_topic_names(service))


def _topic_names(service: Document) -> Iterator[str]:
    yield _topic("service", service["Service"])
    if service["Native"]:
        yield _topic("connect", service["Service"])
    if service["Kind"] == PROXY_KIND:
        yield _topic("connect", service["Proxy"].get("DestinationServiceName", ""))


def _topic(kind: str, name: str) -> str:
    return f"{kind}:{name.lower()}"
