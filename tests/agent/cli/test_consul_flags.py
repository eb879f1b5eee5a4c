"""The command lines of Consul's own `connect` commands, in the words of `run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.consul_flags import DIALECTS, Translation, translate
from agent.config.load import read_settings
from agent.config.options import LogFormat, LogLevel
from agent.config.settings import IdentityKind, Settings


def proxy(*words: str, environ: dict[str, str] | None = None) -> Translation:
    return translate("proxy", words, environ or {})


def envoy(*words: str) -> Translation:
    return translate("envoy", words, {})


def settings(translation: Translation) -> Settings:
    """What `run` makes of the words; there are no mistakes."""
    assert translation.mistakes == ()
    resolution = read_settings(translation.words, {})
    assert resolution is not None
    assert resolution.settings is not None, resolution.mistakes
    return resolution.settings


def test_flags_that_mean_the_same_are_handed_on() -> None:
    ours = settings(proxy("-sidecar-for", "web", "--http-addr=127.0.0.1:8501", "-token=secret"))
    assert (ours.identity, ours.sidecar_for) == (IdentityKind.SIDECAR_FOR, "web")
    assert (ours.http_addr.port, ours.token) == (8501, "secret")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("TRACE", LogLevel.DEBUG),
        ("trace", LogLevel.DEBUG),
        ("Debug", LogLevel.DEBUG),
        ("INFO", LogLevel.INFO),
        ("warn", LogLevel.WARN),
        ("ERR", LogLevel.ERROR),
        ("Error", LogLevel.ERROR),
    ],
)
def test_a_log_level_in_any_case(text: str, level: LogLevel) -> None:
    assert settings(proxy("-sidecar-for=web", "-log-level", text)).log_level is level


def test_a_level_finer_than_ours_is_noted() -> None:
    assert proxy("-sidecar-for=web", "-log-level=TRACE").notes == ("-log-level TRACE means debug here",)
    assert proxy("-sidecar-for=web", "-log-level=DEBUG").notes == ()


def test_a_level_that_consul_does_not_know() -> None:
    translation = proxy("-sidecar-for=web", "-log-level=loud")
    resolution = read_settings(translation.words, {})
    assert resolution is not None
    assert [str(mistake) for mistake in resolution.mistakes] == [
        "flag -log-level: 'loud' is not one of debug, info, warn, error"
    ]


def test_log_json() -> None:
    assert settings(proxy("-sidecar-for=web", "-log-json")).log_format is LogFormat.JSON
    assert settings(proxy("-sidecar-for=web", "-log-json=false")).log_format is LogFormat.TEXT


@pytest.mark.parametrize(
    ("spec", "upstream"),
    [
        ("db:9191", "db on 127.0.0.1:9191"),
        ("db.:9191", "db on 127.0.0.1:9191"),
        ("db::9191", "db on 127.0.0.1:9191"),
        ("db.service:9191", "db on 127.0.0.1:9191"),
        ("db.query:127.0.0.2:9191", "prepared_query:db on 127.0.0.2:9191"),
        ("db@dc2:9191", "db@dc2 on 127.0.0.1:9191"),  # ours
        ("prepared_query:my.db:9191", "prepared_query:my.db on 127.0.0.1:9191"),  # ours
    ],
)
def test_an_upstream_with_its_type(spec: str, upstream: str) -> None:
    upstreams = settings(proxy("-service=web", "-upstream", spec)).upstream
    assert [str(one) for one in upstreams or ()] == [upstream]


def test_an_upstream_of_an_unknown_type_is_a_mistake() -> None:
    assert proxy("-service=web", "-upstream=db.host:9191").mistakes == (
        "-upstream 'db.host:9191': the type after the dot is service or query",
    )


def test_the_datacenter_is_that_of_upstreams_that_name_none() -> None:
    upstreams = settings(
        proxy(
            "-service=web",
            "-datacenter=dc2",
            "-upstream=db:1",
            "-upstream=a@dc3:2",
            "-upstream=q.query:3",
            "-upstream=prepared_query:r:4",
        )
    ).upstream
    assert [str(one.destination) for one in upstreams or ()] == [
        "db@dc2",
        "a@dc3",
        "prepared_query:q@dc2",
        "prepared_query:r@dc2",
    ]


@pytest.mark.parametrize("identity", ["-sidecar-for=web", "-proxy-id=web-sidecar-proxy"])
def test_beside_a_registration_flags_that_consul_overlooks_are_ignored(identity: str) -> None:
    words = ("-listen=:1", "-service-addr=:2", "-upstream=db:3", "-datacenter=dc2")
    translation = proxy(identity, *words)
    assert len(translation.notes) == len(words)
    for word, note in zip(words, translation.notes, strict=True):
        assert note.startswith(f"{word.partition('=')[0]} is ignored: ")
    ours = settings(translation)
    assert (ours.listen, ours.service_addr, ours.upstream) == (None, None, None)


def test_the_proxy_id_wins_over_the_others() -> None:
    translation = proxy("-service=web", "-sidecar-for=web", "-proxy-id=web-sidecar-proxy")
    assert settings(translation).proxy_id == "web-sidecar-proxy"
    assert translation.notes == (
        "-sidecar-for is ignored: -proxy-id wins",
        "-service is ignored: -proxy-id wins",
    )


def test_of_a_flag_given_twice_the_last_counts() -> None:
    assert settings(proxy("-sidecar-for=a", "-sidecar-for", "b")).sidecar_for == "b"


def test_an_empty_value_counts_as_not_given() -> None:
    assert settings(proxy("-sidecar-for=web", "-token=", "-proxy-id=")).token is None


def test_the_register_id_is_a_suffix() -> None:
    words = ("-service=web", "-listen=:8443", "-service-addr=127.0.0.1:80", "-register")
    assert settings(proxy(*words, "-register-id=2")).register_id == "web-proxy-2"
    assert settings(proxy(*words)).register_id is None


def test_a_service_address_without_a_listener_is_ignored() -> None:
    translation = proxy("-service=web", "-service-addr=127.0.0.1:80", "-upstream=db:9191")
    assert settings(translation).service_addr is None
    assert translation.notes == ("-service-addr is ignored: there is no -listen",)


@pytest.mark.parametrize(
    "words",
    [
        ("-pprof-addr", ":6060"),
        ("-stale",),
    ],
)
def test_flags_of_the_proxy_that_mean_nothing_here(words: tuple[str, ...]) -> None:
    translation = proxy("-sidecar-for=web", *words)
    assert settings(translation).sidecar_for == "web"
    assert [note.partition(" is ignored: ")[0] for note in translation.notes] == [words[0]]


def test_the_proxy_s_admin_endpoint_meets_no_other_s() -> None:
    assert [str(one) for one in settings(proxy("-sidecar-for=web")).admin_bind] == ["127.0.0.1:0"]
    chosen = proxy("-sidecar-for=web", "-admin-bind=127.0.0.1:19005")
    assert [str(one) for one in settings(chosen).admin_bind] == ["127.0.0.1:19005"]
    for name in ("SIDECAR_ADMIN_BIND", "SIDECAR_CONFIG"):
        assert proxy("-sidecar-for=web", environ={name: "x"}).words == ("-sidecar-for=web",)


@pytest.mark.parametrize(
    "words",
    [
        ("-envoy-binary", "/usr/bin/envoy"),
        ("-envoy-version=1.27.0",),
        ("-grpc-addr", "https://127.0.0.1:8503"),
        ("-grpc-ca-file=ca.pem",),
        ("-grpc-ca-path=ca",),
        ("-admin-access-log-path=/dev/null",),
        ("-no-central-config",),
        ("-omit-deprecated-tags",),
        ("-ignore-envoy-compatibility",),
        ("-enable-config-gen-logging",),
        ("-prometheus-backend-port=20100",),
        ("-prometheus-scrape-path=/metrics",),
        ("-prometheus-ca-file=a",),
        ("-prometheus-ca-path=a",),
        ("-prometheus-cert-file=a",),
        ("-prometheus-key-file=a",),
        ("-service=web",),
        ("-address=127.0.0.1:8443",),
        ("-wan-address=127.0.0.1:8443",),
        ("-bind-address=a=127.0.0.1:8443",),
        ("-deregister-after-critical=6h",),
        ("-envoy-ready-bind-address=127.0.0.1",),
        ("-envoy-ready-bind-port=8443",),
    ],
)
def test_flags_of_envoy_that_mean_nothing_here(words: tuple[str, ...]) -> None:
    translation = envoy("-sidecar-for=web", *words)
    assert settings(translation).identity is IdentityKind.SIDECAR_FOR
    name = words[0].partition("=")[0]
    assert [note.partition(" is ignored: ")[0] for note in translation.notes] == [name]


@pytest.mark.parametrize(
    "word",
    ["-gateway=mesh", "-mesh-gateway", "-register", "-expose-servers", "-bootstrap", "-node-name=far"],
)
def test_flags_of_envoy_that_ask_for_what_the_sidecar_is_not(word: str) -> None:
    (mistake,) = envoy("-proxy-id=web-sidecar-proxy", word).mistakes
    assert mistake.startswith(f"{word.partition('=')[0]}: ")


def test_a_switch_that_is_off_asks_for_nothing() -> None:
    translation = envoy("-sidecar-for=web", "-bootstrap=false", "-no-central-config=false")
    assert settings(translation).sidecar_for == "web"
    assert translation.notes == ()


@pytest.mark.parametrize(
    "words", [("-l", "trace"), ("--log-level", "debug"), ("-l=debug",), ("--log-level=debug",)]
)
def test_envoy_s_own_log_level(words: tuple[str, ...]) -> None:
    assert settings(envoy("-sidecar-for=web", "--", *words)).log_level is LogLevel.DEBUG


@pytest.mark.parametrize(
    ("text", "level"),
    [("warning", LogLevel.WARN), ("critical", LogLevel.ERROR), ("off", LogLevel.ERROR)],
)
def test_levels_that_only_envoy_has(text: str, level: LogLevel) -> None:
    assert settings(envoy("-sidecar-for=web", "--", "-l", text)).log_level is level


def test_other_words_for_envoy_are_ignored_in_one_line() -> None:
    translation = envoy("-sidecar-for=web", "--", "--concurrency", "2", "-l", "info", "--base-id=3")
    assert settings(translation).log_level is LogLevel.INFO
    assert translation.notes == ("ignored, for Envoy alone: --concurrency 2 --base-id=3",)


def test_words_that_no_command_takes() -> None:
    assert proxy("-sidecar-for=web", "word").mistakes == ("what is 'word' for? flags start with a dash",)
    assert proxy("-sidecar-fro=web").mistakes == ("unknown flag -sidecar-fro; did you mean -sidecar-for?",)


def test_our_own_flags_are_taken_too() -> None:
    assert settings(envoy("-sidecar-for=web", "-drain-seconds=5s")).drain_seconds == 5


def test_help() -> None:
    assert proxy("-help").help_wanted


def test_the_page_says_what_each_flag_does() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "migrating.md").read_text()
    for dialect in DIALECTS.values():
        for name in (*dialect.ignored, *dialect.refused, *dialect.honoured):
            assert f"`-{name}`" in page, name
