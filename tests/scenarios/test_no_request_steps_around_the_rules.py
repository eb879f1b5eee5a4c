"""The bypass suite: the crafted requests of `attempts.py` against a real inbound half.

`status` is what the caller gets, one for each request it wrote; `reached` what the app got, to the letter.
Beside that, whatever reached the app is read as a careless app might read it (`careless`), and no such
reading may be a forbidden one.
"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
import trio

from agent.http1.request import fold
from tests.scenarios.attempts import (
    AGAINST_ALLOWANCES,
    AGAINST_DENIALS,
    ALLOWS,
    DENIES,
    SMUGGLING,
    UNDERSCORED,
    Attempt,
    get,
)
from tests.scenarios.http_app import Reached
from tests.scenarios.http_front import Rule, allow, front


def careless(target: str) -> set[str]:
    """The paths an app might take a target for."""
    found = {target.partition("?")[0]}
    for change in (
        unquote,
        lambda text: text.replace("\\", "/"),
        lambda text: "/".join(part.partition(";")[0] for part in text.split("/")),
        lambda text: "/" + posixpath.normpath(text).lstrip("/"),
        str.lower,
        unquote,
        lambda text: "/" + posixpath.normpath(text).lstrip("/"),
    ):
        found |= {change(text) for text in found}
    return found


def forbidden_by_denials(reached: Reached) -> bool:
    first = [path.strip("/").split("/")[0] for path in careless(reached.target)]
    roles = [value for name, value in reached.headers + reached.trailers if fold(name) == "x-role"]
    return "admin" in first or reached.method.upper() == "DELETE" or "root" in roles


def forbidden_by_allowances(reached: Reached) -> bool:
    return not any(path.startswith(("/public/", "/user", "/ws")) for path in careless(reached.target)) or any(
        path.startswith("/admin") for path in careless(reached.target)
    )


async def attempt(
    case: Attempt, rules: list[Rule], *, default_allow: bool, underscores: bool = False
) -> list[Reached]:
    async with (
        front(*rules, default_allow=default_allow, underscores=underscores) as f,
        f.caller() as caller,
    ):
        await caller.send(case.raw)
        statuses: list[int] = []
        with trio.fail_after(10):
            for _ in case.status:
                reply = await caller.reply("HEAD" if case.raw.startswith(b"HEAD") else "GET")
                assert reply is not None, f"{statuses}, then nothing"
                statuses.append(reply.status)
            if case.status[-1] not in {200, 403}:
                assert await caller.ended()  # what cannot be trusted is not read any further
        assert tuple(statuses) == case.status
        assert tuple(r.target for r in f.app.reached) == case.reached
        return f.app.reached


def named(cases: list[Attempt]) -> list[str]:
    assert len({case.note for case in cases}) == len(cases)
    return [case.note for case in cases]


@pytest.mark.parametrize("case", AGAINST_DENIALS, ids=named(AGAINST_DENIALS))
async def test_against_denials(case: Attempt) -> None:
    reached = await attempt(case, DENIES, default_allow=True)
    assert not any(map(forbidden_by_denials, reached))


@pytest.mark.parametrize("case", UNDERSCORED, ids=named(UNDERSCORED))
async def test_where_underscores_are_let_through(case: Attempt) -> None:
    reached = await attempt(case, DENIES, default_allow=True, underscores=True)
    assert not any(map(forbidden_by_denials, reached))


@pytest.mark.parametrize("case", SMUGGLING, ids=named(SMUGGLING))
async def test_smuggling(case: Attempt) -> None:
    reached = await attempt(case, DENIES, default_allow=True)
    assert not any(map(forbidden_by_denials, reached))


@pytest.mark.parametrize("case", AGAINST_ALLOWANCES, ids=named(AGAINST_ALLOWANCES))
async def test_against_allowances(case: Attempt) -> None:
    reached = await attempt(case, ALLOWS, default_allow=False)
    assert not any(map(forbidden_by_allowances, reached))


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Client-Cert: URI=spiffe://evil",
        "x-forwarded-client-cert: URI=spiffe://evil",
        "X_FORWARDED_CLIENT_CERT: URI=spiffe://evil",
        "X-Forwarded_Client-Cert: URI=spiffe://evil",
    ],
)
async def test_nobody_else_says_who_calls(header: str) -> None:
    async with front(allow(PathPrefix="/"), underscores="_" in header) as f:
        assert await f.ask(get("/x", header, header))
        (reached,) = f.app.reached
        said = [v for n, v in reached.headers if n.lower().replace("_", "-") == "x-forwarded-client-cert"]
        assert len(said) == 1
        assert "evil" not in said[0]


def test_there_are_enough_of_them() -> None:
    assert len(AGAINST_DENIALS) + len(SMUGGLING) + len(AGAINST_ALLOWANCES) >= 150
