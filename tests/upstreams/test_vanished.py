"""Which instances are used although Consul offers none: by cases, and through any order of answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import Checks, Endpoint, EndpointSet, ExpectedIdentity, Status
from upstreams.vanished import Memory, remember

GRACE = 30.0


def instance(
    name: str = "db-1", node: str = "a", status: Status = Status.PASSING, checks: Checks = Checks.TOLD
) -> Endpoint:
    return replace(endpoint(name), service_id=name, node=node, status=status, checks=checks)


def failed(one: Endpoint) -> Endpoint:
    """The same, and a check has found it critical."""
    return replace(one, status=Status.CRITICAL, checks=Checks.TOLD)


def fresh(one: Endpoint) -> Endpoint:
    """The same, and no check of it has run."""
    return replace(one, status=Status.CRITICAL, checks=Checks.UNTOLD)


def maintained(one: Endpoint) -> Endpoint:
    """The same in maintenance, which is a check that no agent runs."""
    return replace(one, status=Status.CRITICAL, checks=Checks.OTHERS)


A1, A2 = instance("db-1", "a"), instance("db-2", "a")
B1 = instance("db-3", "b")


def after(*answers: tuple[Endpoint, ...], grace: float = GRACE) -> dict[str, Status]:
    """What may be dialled after these answers, one a second: status by service id."""
    memory: Memory | None = None
    for second, answer in enumerate(answers):
        memory = remember(memory, EndpointSet(endpoints=answer), now=float(second), grace=grace)
    assert memory is not None
    return {one.service_id: one.status for tier in memory.endpoints.tiers for one in tier.endpoints}


GONE, LOST = Status.VANISHED, Status.UNCHECKED


@pytest.mark.parametrize(
    ("answers", "used"),
    [
        # what vanished with its whole node, or with the whole list, is used
        (((A1,), ()), {"db-1": GONE}),
        (((A1, A2, B1), ()), {"db-1": GONE, "db-2": GONE, "db-3": GONE}),
        (((A1, B1), (failed(B1),)), {"db-1": GONE}),
        (((A1,), (), ()), {"db-1": GONE}),
        (((replace(A1, status=Status.WARNING),), ()), {"db-1": GONE}),
        # what comes back with checks that have not run is used on
        (((A1,), (), (fresh(A1),)), {"db-1": LOST}),
        (((A1,), (fresh(A1),)), {"db-1": LOST}),
        (((A1,), (fresh(A1),), ()), {"db-1": GONE}),
        (((A1, A2), (), (fresh(A1),)), {"db-1": LOST, "db-2": GONE}),
        (((A1,), (), (A1,)), {"db-1": Status.PASSING}),
        (((A1,), (), (fresh(A1),), (A1,)), {"db-1": Status.PASSING}),
        # what a check says, maintenance and a lone departure are obeyed at once
        (((A1,), (failed(A1),)), {}),
        (((A1,), (maintained(A1),)), {}),
        (((A1, A2), (failed(A2),)), {}),
        (((A1, A2), (fresh(A2),)), {"db-2": LOST}),
        (((A1,), (), (failed(A1),)), {}),
        (((A1,), (), (maintained(A1),)), {}),
        (((A1,), (), (failed(A1),), ()), {}),
        (((A1,), (failed(A1),), ()), {}),
        (((A1, A2), (fresh(A1), fresh(A2)), (fresh(A1),)), {"db-1": LOST}),
        # others that are offered
        (((A1, B1), (B1,)), {"db-3": Status.PASSING}),
        (((A1, B1), (fresh(A1), B1)), {"db-3": Status.PASSING}),
        (((A1, B1), (B1,), ()), {"db-3": GONE}),
        # what was never offered
        (((fresh(A1),),), {}),
        (((fresh(A1),), ()), {}),
        (((), (fresh(A1),)), {}),
        # a result that there never was is not lost: an agent that discards outputs
        (((replace(A1, checks=Checks.OTHERS),), (fresh(A1),)), {}),
        # another service under the same id
        (((A1,), (replace(fresh(A1), expected=ExpectedIdentity(datacenter="dc1", service="x")),)), {}),
    ],
)
def test_what_is_used_after_these_answers(
    answers: tuple[tuple[Endpoint, ...], ...], used: dict[str, Status]
) -> None:
    assert after(*answers) == used
    assert after(*answers, grace=0.0) == {name: status for name, status in used.items() if not status.kept}


def test_a_kept_instance_is_used_for_its_time_and_no_longer() -> None:
    memory = remember(None, EndpointSet(endpoints=(A1,)), now=0.0, grace=GRACE)
    memory = remember(memory, EndpointSet(endpoints=()), now=10.0, grace=GRACE)
    assert memory.ends == 40.0
    memory = remember(memory, EndpointSet(endpoints=()), now=20.0, grace=GRACE)
    assert memory.ends == 40.0  # the same loss, told again
    assert memory.without_the_late(39.9).endpoints.tiers
    late = memory.without_the_late(40.0)
    assert late.ends is None
    assert late.endpoints == late.answer
    assert remember(memory, EndpointSet(endpoints=()), now=41.0, grace=GRACE).endpoints.tiers == ()


def test_an_instance_that_is_back_has_its_time_anew_until_its_checks_have_run_and_only_once() -> None:
    memory = remember(None, EndpointSet(endpoints=(A1,)), now=0.0, grace=GRACE)
    memory = remember(memory, EndpointSet(endpoints=()), now=10.0, grace=GRACE)
    memory = remember(memory, EndpointSet(endpoints=(fresh(A1),)), now=35.0, grace=GRACE)
    assert memory.ends == 65.0
    for answer in ((fresh(A1),), (), (fresh(A1),)):  # an agent that restarts without end
        memory = remember(memory, EndpointSet(endpoints=answer), now=50.0, grace=GRACE)
        assert memory.ends == 65.0


def test_an_instance_whose_checks_were_lost_first_has_no_time_anew() -> None:
    memory = remember(None, EndpointSet(endpoints=(A1,)), now=0.0, grace=GRACE)
    for now, answer in ((10.0, (fresh(A1),)), (20.0, ()), (30.0, (fresh(A1),))):
        memory = remember(memory, EndpointSet(endpoints=answer), now=now, grace=GRACE)
        assert memory.ends == 40.0


def test_an_instance_that_comes_back_elsewhere_is_dialled_there() -> None:
    memory = remember(None, EndpointSet(endpoints=(A1,)), now=0.0, grace=GRACE)
    moved = replace(fresh(A1), service_address="10.9.9.9")
    memory = remember(memory, EndpointSet(endpoints=(moved,)), now=1.0, grace=GRACE)
    assert [one.service_address for one in memory.endpoints.endpoints] == ["10.9.9.9"]


def test_a_set_of_kept_instances_is_not_offered_by_consul() -> None:
    memory = remember(None, EndpointSet(endpoints=(A1,)), now=0.0, grace=GRACE)
    assert memory.endpoints.offered
    memory = remember(memory, EndpointSet(endpoints=()), now=1.0, grace=GRACE)
    assert not memory.endpoints.offered
    assert not EndpointSet(endpoints=()).offered


class Answers(RuleBasedStateMachine):
    """Any answers at any times, beside what is known of each instance in plain words."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.memory: Memory | None = None
        self.offered_at: dict[str, float] = {}  # when an answer last offered it
        self.obeyed: set[str] = set()  # found critical, or in maintenance, since
        self.any_offered = False
        self.lost_at = 0.0  # when an answer first offered none

    @rule(
        seconds=st.floats(0.1, 20),
        states=st.lists(
            st.sampled_from(["offered", "failed", "fresh", "maintained", "gone"]), min_size=3, max_size=3
        ),
    )
    def answer(self, seconds: float, states: list[str]) -> None:
        self.now += seconds
        makers = {"offered": lambda one: one, "failed": failed, "fresh": fresh, "maintained": maintained}
        rows = [(one, state) for one, state in zip((A1, A2, B1), states, strict=True)]
        listed = tuple(makers[state](one) for one, state in rows if state != "gone")
        if self.memory is not None:
            self.memory = self.memory.without_the_late(self.now)
        self.memory = remember(self.memory, EndpointSet(endpoints=listed), now=self.now, grace=GRACE)
        if self.any_offered or "offered" in states:
            self.lost_at = self.now
        self.any_offered = "offered" in states
        for one, state in rows:
            if state == "offered":
                self.offered_at[one.service_id] = self.now
                self.obeyed.discard(one.service_id)
            elif state in ("failed", "maintained"):
                self.obeyed.add(one.service_id)

    @precondition(lambda self: self.memory is not None)
    @rule(seconds=st.floats(0.1, 40))
    def wait(self, seconds: float) -> None:
        assert self.memory is not None
        self.now += seconds
        self.memory = self.memory.without_the_late(self.now)

    @invariant()
    def nothing_is_used_that_consul_objects_to(self) -> None:
        if self.memory is None:
            return
        used = [one for tier in self.memory.endpoints.tiers for one in tier.endpoints]
        kept = [one for one in used if one.status.kept]
        assert not (kept and self.any_offered)  # never beside one that is offered
        for one in kept:
            assert one.service_id in self.offered_at  # it was offered once
            assert one.service_id not in self.obeyed
        assert all(entry.until > self.now for entry in self.memory.kept)
        assert all(entry.until <= self.now + GRACE for entry in self.memory.kept)
        assert all(entry.until <= self.lost_at + 2 * GRACE for entry in self.memory.kept)
        keys = [one.key for one in self.memory.endpoints.endpoints]
        assert len(keys) == len(set(keys))
        listed = {one.key for one in self.memory.answer.endpoints}
        assert listed <= set(keys)  # nothing that Consul lists is hidden


TestAnswers = Answers.TestCase
