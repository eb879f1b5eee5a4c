"""The path is shown whole; the first red station is the cause, and decides about the exit code."""

from __future__ import annotations

from agent.base.exits import ExitCode
from agent.overview.stations import Light, Name, Station, complete, exit_code, first_red, picture, row

GREEN = Station(name=Name.APP, light=Light.GREEN, text="web", seconds=0.0012)
LONG = Station(
    name=Name.ADDRESS,
    light=Light.RED,
    text="2 instances, 0 passing or warning, and a text that is longer than the column in which it stands",
    remedy="register a sidecar for it there",
    code=ExitCode.FAR_SIDE,
)
LATER = Station(name=Name.TLS, light=Light.RED, text="x", code=ExitCode.PERMISSION)


def test_what_is_not_given_is_not_reached() -> None:
    shown = complete([LONG, GREEN])
    assert [station.name for station in shown] == list(Name)
    assert {station.light for station in shown[4:]} == {Light.DARK}


def test_the_first_red_one_is_the_cause() -> None:
    assert first_red([LATER, GREEN, LONG]) is LONG
    assert exit_code([LATER, LONG]) is ExitCode.FAR_SIDE
    assert exit_code([GREEN]) is ExitCode.CLEAN


def test_the_picture_fits_eighty_columns() -> None:
    text = picture("web@dc1 to db@dc2", [GREEN, LONG, LATER])
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[2] == f"  ok    app        {'web':51}   1.2 ms"
    assert "\n  -     tcp        not reached\n" in text
    assert text.endswith("\n  remedy: register a sidecar for it there")


def test_colours_do_not_shift_the_columns() -> None:
    text = picture("x", [GREEN], lambda text, light: f"<{light.value}{text}>")
    assert f"  <okok  >  app        {'web':51}   1.2 ms" in text


def test_a_row_has_no_empty_fields() -> None:
    assert row(GREEN) == {"name": "app", "state": "ok", "text": "web", "seconds": 0.0012}
    assert row(complete([])[0]) == {"name": "app", "state": "not_reached", "text": "not reached"}
    assert row(LONG)["remedy"] == "register a sidecar for it there"
