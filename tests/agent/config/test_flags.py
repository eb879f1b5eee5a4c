"""Command-line words, read as Consul reads them."""

from __future__ import annotations

import pytest

from agent.config.flags import Arguments, Flag, did_you_mean, parse_arguments

FLAGS = (
    Flag(name="sidecar-for"),
    Flag(name="register", switch=True),
    Flag(name="upstream", repeatable=True),
    Flag(name="token"),
)


def parse(*words: str) -> Arguments:
    return parse_arguments(words, FLAGS)


@pytest.mark.parametrize(
    "words",
    [
        ("-sidecar-for", "web"),
        ("--sidecar-for", "web"),
        ("-sidecar-for=web",),
        ("--sidecar-for=web",),
    ],
)
def test_one_dash_or_two_with_or_without_an_equals_sign(words: tuple[str, ...]) -> None:
    assert parse(*words).values == {"sidecar-for": ("web",)}


def test_a_switch_takes_no_word_and_may_be_switched_off() -> None:
    assert parse("-register", "word").values == {"register": ("true",)}
    assert parse("-register", "word").words == ("word",)
    assert parse("-register=false").values == {"register": ("false",)}


def test_a_repeatable_flag_keeps_its_order() -> None:
    assert parse("-upstream", "a:1", "-upstream=b:2").values == {"upstream": ("a:1", "b:2")}


def test_a_value_may_contain_equals_signs_and_begin_with_a_dash() -> None:
    assert parse("-token=a=b").values == {"token": ("a=b",)}
    assert parse("-token", "-5").values == {"token": ("-5",)}


def test_an_empty_value_is_a_value() -> None:
    assert parse("-token=").values == {"token": ("",)}


def test_two_dashes_alone_end_the_flags() -> None:
    assert parse("--", "-register").words == ("-register",)
    assert parse("-").words == ("-",)


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_help_wins_over_mistakes(word: str) -> None:
    arguments = parse("-nonsense", word)
    assert arguments.help_wanted
    assert not arguments.mistakes


def test_every_mistake_is_reported() -> None:
    arguments = parse("-sidecar-fro", "web", "-token", "-sidecar-for", "a", "-sidecar-for", "b", "-upstream")
    assert arguments.mistakes == (
        "unknown flag -sidecar-fro; did you mean -sidecar-for?",
        "-token needs a value",
        "-upstream needs a value",
        "-sidecar-for is given 2 times; once is enough",
    )


def test_the_word_after_an_unknown_flag_is_not_shown_as_a_word_of_its_own() -> None:
    """It may well be a secret."""
    assert parse("-tokne", "s3cret").words == ()
    assert "s3cret" not in str(parse("-tokne", "s3cret").mistakes)
    assert parse("-tokne=x", "word").words == ("word",)


def test_a_guess_keeps_the_spelling_of_what_is_known() -> None:
    assert did_you_mean("sidecar_token", ["SIDECAR_TOKEN"]) == "; did you mean SIDECAR_TOKEN?"
    assert did_you_mean("zzz", ["SIDECAR_TOKEN"]) == ""
