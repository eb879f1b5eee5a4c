"""All exceptions that msgspec raises for bytes or values that do not fit."""

from __future__ import annotations

import msgspec

UNDECODABLE = (
    msgspec.DecodeError,  # not the format, or not the schema; its text names the place
    UnicodeDecodeError,  # a text that is not UTF-8
    RecursionError,  # nested deeper than Python's recursion limit, also in fields that the schema leaves out
)

# What readers of decoded values may raise beside their own errors: numbers, texts and dates out of range.
UNREADABLE = (*UNDECODABLE, ValueError, OverflowError)
