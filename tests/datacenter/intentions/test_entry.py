"""The service-intentions entry: normal form and validation, in Consul's words."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.intentions.entry import EntryRefused, has_permissions, normalised, precedence, validate


def entry(*sources: dict[str, Any], name: str = "db", **more: Any) -> dict[str, Any]:
    return normalised({"Name": name, "Sources": list(sources), **more})


def permission(http: dict[str, Any] | None = None, action: str = "allow") -> dict[str, Any]:
    """A source with one HTTP permission."""
    inner = {"Action": action} if http is None else {"Action": action, "HTTP": http}
    return {"Name": "web", "Permissions": [inner]}


WEB = {"Name": "web", "Action": "allow"}
HTTP = "Sources[0].Permissions[0].HTTP"


@pytest.mark.parametrize(
    ("source", "destination", "expected"), [("web", "db", 9), ("*", "db", 8), ("web", "*", 6), ("*", "*", 5)]
)
def test_precedence(source: str, destination: str, expected: int) -> None:
    assert precedence(source, destination) == expected


def test_sources_are_kept_by_precedence_and_otherwise_as_given() -> None:
    given = [{"Name": name, "Action": "allow"} for name in ("*", "zoo", "api")]
    assert [source["Name"] for source in entry(*given)["Sources"]] == ["zoo", "api", "*"]


def test_the_normal_form_leaves_out_what_is_empty() -> None:
    source = {**WEB, "Description": "", "Permissions": [], "LegacyMeta": {}, "Type": ""}
    assert entry(source, Meta={})["Sources"] == [
        {"Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul"}
    ]


def test_methods_are_written_in_capitals_and_empty_matches_dropped() -> None:
    http = {"PathExact": "", "Methods": ["get"], "Header": [{"Name": "x", "Present": True, "Invert": False}]}
    (source,) = entry(permission(http))["Sources"]
    assert source["Permissions"][0]["HTTP"] == {
        "Methods": ["GET"],
        "Header": [{"Name": "x", "Present": True}],
    }


def test_a_write_through_the_entry_drops_legacy_marks_but_not_legacy_meta() -> None:
    source = {**WEB, "LegacyID": "i", "LegacyCreateTime": "t", "LegacyUpdateTime": "t"}
    assert "LegacyID" not in entry(source)["Sources"][0]
    with pytest.raises(EntryRefused, match=r"Sources\[0\]\.LegacyMeta must be omitted"):
        validate(entry({**source, "LegacyMeta": {"k": "v"}}))


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (entry(WEB, name=""), "Name is required"),
        (entry(WEB, name="d*"), "Name: wildcard character '*' cannot be used with partial values"),
        (entry(), "At least one source is required"),
        (entry({"Action": "allow"}), "Sources[0].Name is required"),
        (entry(WEB, {**WEB, "Name": "w*"}), "Sources[1].Name: wildcard character '*' cannot be used with"),
        (entry({**WEB, "Description": "é" * 257}), "Sources[0].Description exceeds maximum length 512"),
        (entry({"Name": "web"}), "Sources[0].Action must be set to 'allow' or 'deny'"),
        (entry({**WEB, "Action": "maybe"}), "Sources[0].Action must be set to 'allow' or 'deny'"),
        (entry({**WEB, "Type": "k8s"}), "Sources[0].Type must be set to 'consul'"),
        (entry(WEB, WEB), 'Sources[1] defines "web" more than once'),
        (
            entry({**permission({"PathExact": "/"}), "Action": "deny"}),
            "Sources[0].Action must be omitted if Permissions are specified",
        ),
        (
            entry(permission({"PathExact": "/"}), name="*"),
            "Sources[0].Permissions cannot be specified on intentions with wildcarded destinations",
        ),
        (
            entry(permission({"PathExact": "/"}, action="")),
            "Sources[0].Permissions[0].Action must be set to 'allow' or 'deny'",
        ),
        (entry(permission()), f"{HTTP} is required"),
        (entry(permission({})), f"{HTTP} should not be empty"),
        (entry(permission({"PathExact": "x"})), f"{HTTP}.PathExact doesn't start with '/': \"x\""),
        (entry(permission({"PathPrefix": "x"})), f"{HTTP}.PathPrefix doesn't start with '/': \"x\""),
        (
            entry(permission({"PathExact": "/x", "PathRegex": "/x"})),
            f"{HTTP} should only contain at most one of PathExact, PathPrefix, or PathRegex",
        ),
        (entry(permission({"Header": [{"Exact": "x"}]})), f"{HTTP}.Header[0] missing required Name field"),
        (
            entry(permission({"Header": [{"Name": "x"}]})),
            f"{HTTP}.Header[0] should only contain one of Present, Exact, Prefix, Suffix, or Regex",
        ),
        (
            entry(permission({"Header": [{"Name": "x", "Exact": "1", "Prefix": "1"}]})),
            f"{HTTP}.Header[0] should only contain one of Present, Exact, Prefix, Suffix, or Regex",
        ),
        (entry(permission({"Methods": ["FETCH"]})), f'{HTTP}.Methods contains an invalid method "FETCH"'),
        (entry(permission({"Methods": ["GET", "get"]})), f'{HTTP}.Methods contains "GET" more than once'),
    ],
)
def test_what_cannot_be_is_refused(refused: dict[str, Any], text: str) -> None:
    with pytest.raises(EntryRefused) as caught:
        validate(refused)
    assert str(caught.value).startswith(text)


def test_legacy_writes_have_no_meta_on_the_entry_and_need_an_action() -> None:
    with pytest.raises(EntryRefused, match="Meta must be omitted for legacy intention writes"):
        validate(entry(WEB, Meta={"k": "v"}), legacy=True)
    with pytest.raises(EntryRefused, match="Action must be set"):
        validate(entry(permission({"PathExact": "/"})), legacy=True)


def test_what_is_right_is_accepted() -> None:
    full = {
        "PathPrefix": "/api",
        "Methods": ["GET", "HEAD"],
        "Header": [{"Name": "x-a", "Exact": "1"}, {"Name": "x-b", "Present": True, "Invert": True}],
    }
    accepted = entry(permission(full), {"Name": "*", "Action": "deny"}, Meta={"team": "x"})
    validate(accepted)
    assert has_permissions(accepted)
    assert accepted["Meta"] == {"team": "x"}
    assert not has_permissions(entry(WEB))
