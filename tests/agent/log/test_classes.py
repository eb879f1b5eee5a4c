"""Each event has a class."""

from __future__ import annotations

import pytest

from agent.config.options import LogClass
from agent.log.classes import class_of
from tests.reference import events


@pytest.mark.parametrize(
    ("event", "fields", "found"),
    [
        ("connection.refused", {"direction": "inbound"}, LogClass.INBOUND),
        ("connection.refused", {"direction": "outbound"}, LogClass.OUTBOUND),
        ("tunnel.ended", {"direction": "outbound"}, LogClass.OUTBOUND),
        ("request.refused", {}, LogClass.INBOUND),
        ("exposed.refused", {}, LogClass.INBOUND),
        ("attempt.failed", {"upstream": "db"}, LogClass.UPSTREAMS),
        ("watch.failed", {}, LogClass.CONSUL),
        ("rejudged", {}, LogClass.POLICY),
        ("ready", {}, LogClass.PROCESS),
    ],
)
def test_the_class_of_an_event(event: str, fields: dict[str, object], found: LogClass) -> None:
    assert class_of(event, fields) is found


def test_every_class_has_an_event() -> None:
    directions: list[dict[str, object]] = [{"direction": "inbound"}, {"direction": "outbound"}]
    assert {class_of(event.name, fields) for event in events() for fields in directions} == set(LogClass)
