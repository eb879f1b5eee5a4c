"""HTTP by request: what the intentions let through reaches the app, what they do not never does."""

from __future__ import annotations

from agent.connections.reauthorize import rejudge
from certs.spiffe import ServiceId
from tests.scenarios.http_front import allow, deny, front, policy, request
from tests.support.two_sidecars import Side, now


async def test_a_request_that_is_allowed_reaches_the_app_and_its_answer_comes_back() -> None:
    async with front(allow(PathPrefix="/api")) as f:
        reply = await f.ask(request("GET /api/x?q=1"))
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"ok")
        (reached,) = f.app.reached
        assert (reached.method, reached.target) == ("GET", "/api/x?q=1")
        assert f.mesh.db.ledger.requests() == {"permission_allow": 1}


async def test_the_app_is_told_that_its_own_sidecar_vouches_and_who_calls() -> None:
    async with front(allow(PathPrefix="/")) as f:
        await f.ask(request("GET /"))
        (identity,) = f.app.reached[0].header("x-forwarded-client-cert")
        parts = dict(part.split("=", 1) for part in identity.split(";"))
        assert parts == {"By": str(own(f.mesh.db)), "URI": str(own(f.mesh.web))}


def own(side: Side) -> ServiceId:
    assert side.contexts.value is not None
    return side.contexts.value.credentials.leaf.id


async def test_a_request_that_is_denied_gets_words_and_the_connection_goes_on() -> None:
    async with front(deny(PathExact="/admin"), allow(PathPrefix="/")) as f, f.caller() as caller:
        await caller.send(request("GET /admin") + request("GET /fine"))
        reply = await caller.reply()
        assert reply is not None
        assert reply.status == 403
        assert reply.text == "403 Forbidden: web may not make this request (permission_deny)\n"
        after = await caller.reply()
        assert after is not None
        assert after.status == 200
        assert [r.target for r in f.app.reached] == ["/fine"]
        (refused,) = f.mesh.db.events.refused_requests
        assert (refused.method, refused.target, refused.status) == ("GET", "/admin", 403)
        assert "permission 1: deny any method /admin" in refused.rule


async def test_a_request_that_is_over_is_not_judged_again() -> None:
    """Between two requests a connection is judged by its caller alone, whatever the last request was."""
    async with front(allow(PathPrefix="/")) as f, f.caller() as caller:
        await caller.send(request("GET /once"))
        assert (await caller.reply()) is not None
        (connection,) = f.mesh.db.ledger.live()
        assert connection.request is None
        contexts = f.mesh.db.contexts.value
        later = policy(deny(PathExact="/once"), allow(PathPrefix="/"))
        assert rejudge(f.mesh.db.ledger, later, contexts, now(), too_old_since=None).closed == 0
        await caller.send(request("GET /other"))
        assert (await caller.reply()) is not None
