"""/v1/coordinate and `?near=`: distances between nodes and datacenters.

No gossip measures round trips here: every node is at the origin, and the other datacenters follow our own in
the order of their names.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.state.errors import ApiError
from datacenter.state.inventory import NODES, Instance
from datacenter.state.store import Document

_ORIGIN = {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0.0, "Height": 0.00001}


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/v1/coordinate/datacenters", partial(_datacenters, dc)),
        Route("GET", "/v1/coordinate/nodes", partial(_nodes, dc)),
        Route("GET", "/v1/coordinate/node/{name:path}", partial(_node, dc)),
    ]


def sort_by_distance(dc: Datacenter, instances: list[Instance], near: str) -> list[Instance]:
    """Return the instances on the node `near` (`_agent`: our own) first; the others in their order."""
    node = dc.settings.node_name if near in {"_agent", "_ip"} else near
    return sorted(instances, key=lambda instance: bool(node) and instance.node.key != node)


async def _datacenters(dc: Datacenter, request: Request) -> Reply:  # noqa: ARG001  a handler takes a request
    names = dc.federation.datacenters()
    own = dc.settings.node_name
    return Reply(
        value=[
            {
                "Datacenter": name,
                "AreaID": "wan",
                "Coordinates": [_coordinate(own if name == dc.settings.name else f"server.{name}")],
            }
            for name in names
        ]
    )


async def _nodes(dc: Datacenter, request: Request) -> Reply:
    names = [row.key for row in dc.inventory.nodes.rows() if request.authorizer.node_read(row.key)]
    # Only agents have coordinates, which an external node has not.
    shown = [_coordinate(name) for name in names if name == dc.settings.node_name]
    return Reply(value=shown, topics=(NODES,), meta=QueryMeta.PLAIN)


async def _node(dc: Datacenter, request: Request) -> Reply:
    name = request.params["name"]
    if name != dc.settings.node_name or not request.authorizer.node_read(name):
        raise ApiError(404, "")
    return Reply(value=[_coordinate(name)], topics=(NODES,), meta=QueryMeta.PLAIN)


def _coordinate(node: str) -> Document:
    return {"Node": node, "Segment": "", "Coord": _ORIGIN}
