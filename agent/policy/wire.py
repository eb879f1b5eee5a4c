"""One intention as Consul answers it, and what of it is not understood (docs/consul-api.md#intentions).

The struct has every field of an intention up to Consul 1.22. An unknown field may hold a condition, or say
which sources are meant; a known field may hold a value with a meaning that is new. Of such an intention no
more is read than which sources it may mean, and why it is not understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from certs.spiffe import DEFAULT

WILDCARD = "*"

_MOST_NAMED = 5  # unknown fields named in a text
_MOST_SHOWN = 64  # characters quoted of a value
_DEFAULTS = frozenset({"", DEFAULT})
_ANY_OR_DEFAULT = frozenset({"", DEFAULT, WILDCARD})
_ACTIONS = frozenset({"", "allow", "deny"})
_TYPES = frozenset({"", "consul"})
_ABSENT = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is not understood. `anyone`: it may mean any source, whatever the source's name is."""

    text: str
    anyone: bool = False


class IntentionAnswer(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The fields that decide, then those that only describe."""

    source_name: str
    destination_name: str
    source_ns: str = msgspec.field(name="SourceNS", default=DEFAULT)
    destination_ns: str = msgspec.field(name="DestinationNS", default=DEFAULT)
    source_partition: str = ""
    destination_partition: str = ""
    source_peer: str = ""
    source_sameness_group: str = ""
    source_type: str = ""
    action: str = ""
    permissions: list[object] | None = None
    meta: dict[str, object] | None = None
    jwt: object = msgspec.field(name="JWT", default=None)
    precedence: int = 0

    id: msgspec.Raw = msgspec.field(name="ID", default=_ABSENT)
    description: msgspec.Raw = _ABSENT
    default_addr: msgspec.Raw = _ABSENT  # never used by Consul, like the next one
    default_port: msgspec.Raw = _ABSENT
    hash: msgspec.Raw = _ABSENT
    created_at: msgspec.Raw = _ABSENT
    updated_at: msgspec.Raw = _ABSENT
    create_index: msgspec.Raw = _ABSENT
    modify_index: msgspec.Raw = _ABSENT


class UnreadAnswer(IntentionAnswer, frozen=True, kw_only=True):
    """An intention that does not fit the struct, read as far as possible; only `read_item` makes it."""

    doubt_text: str
    anyone: bool


_decoder = msgspec.json.Decoder(IntentionAnswer)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(IntentionAnswer)}
_SIMPLE = frozenset({str, int})  # types of fields that are read separately when the whole cannot be


def read_item(raw: object) -> IntentionAnswer:
    """Read one, as JSON (msgspec.Raw) or decoded.

    Raises msgspec.DecodeError if it does not name both services.
    """
    item = raw if isinstance(raw, msgspec.Raw) else msgspec.json.encode(raw)
    try:
        return _decoder.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _read_one_by_one(item, error)


def doubt_of(item: IntentionAnswer, destination: str) -> Doubt | None:
    """Return what is not understood of an intention that Consul answers for that destination.

    None if nothing.

    Consul files intentions under the destination in lower case, and answers them for any case of the name.
    """
    if isinstance(item, UnreadAnswer):
        return Doubt(item.doubt_text, item.anyone)
    if item.source_type not in _TYPES:
        return Doubt(f"SourceType {_shown(item.source_type)}", anyone=True)
    if item.source_sameness_group:
        return Doubt(f"SourceSamenessGroup {_shown(item.source_sameness_group)}")
    if item.source_peer:
        return Doubt(f"SourcePeer {_shown(item.source_peer)}")
    if item.action not in _ACTIONS:
        return Doubt(f"Action {_shown(item.action)}")
    if not item.source_name:
        return Doubt("SourceName is empty", anyone=True)
    return _doubt_of_destination(item, destination)


def id_of(item: IntentionAnswer) -> str:
    """Return the ID, for a person; empty where there is none, as in a config entry, or an odd one."""
    try:
        return msgspec.json.decode(item.id, type=str)[:_MOST_SHOWN] if item.id else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _doubt_of_destination(item: IntentionAnswer, destination: str) -> Doubt | None:
    name = item.destination_name
    if name not in {destination, WILDCARD} and name.lower() != destination.lower():
        return Doubt(f"DestinationName {_shown(name)}")
    if item.destination_ns not in _ANY_OR_DEFAULT:
        return Doubt(f"DestinationNS {_shown(item.destination_ns)}")
    if item.destination_partition not in _DEFAULTS:
        return Doubt(f"DestinationPartition {_shown(item.destination_partition)}")
    return None


def _read_one_by_one(item: msgspec.Raw | bytes, error: Exception) -> UnreadAnswer:
    try:
        found = _fields_decoder.decode(item)
    except (UnicodeDecodeError, RecursionError) as cause:
        raise msgspec.DecodeError(str(cause)) from cause
    known = {name: _simple(found[name], field.type) for name, field in _FIELDS.items() if name in found}
    values = {name: value for name, value in known.items() if value is not None}
    if not {"SourceName", "DestinationName"} <= values.keys():
        raise msgspec.DecodeError(str(error)) from error
    doubt = _doubt_of_fields(found, values, str(error))
    return msgspec.convert({**values, "DoubtText": doubt.text, "Anyone": doubt.anyone}, UnreadAnswer)


def _simple(value: msgspec.Raw, kind: object) -> str | int | None:
    if kind not in _SIMPLE:
        return None
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _doubt_of_fields(found: Iterable[str], values: Mapping[str, object], error: str) -> Doubt:
    unknown = sorted(set(found) - _FIELDS.keys())
    text = f"unknown fields {', '.join(map(_shown, unknown[:_MOST_NAMED]))}" if unknown else error
    about_source = any(name.startswith("Source") for name in unknown) or "`$.Source" in error
    unusual = not values["SourceName"] or values.get("SourceType", "") not in _TYPES
    return Doubt(text, anyone=about_source or unusual)


def _shown(text: str) -> str:
    return repr(text[:_MOST_SHOWN])
