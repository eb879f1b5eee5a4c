"""What msgspec raises for bytes or values that are not what is wanted. Its own error is not all of it."""

from __future__ import annotations

import msgspec

UNDECODABLE = (
    msgspec.DecodeError,  # not the format, or not the schema; names the place
    UnicodeDecodeError,  # a text that is not UTF-8
    RecursionError,  # nested deeper than Python's own recursion goes, fields that nothing asks for included
)

# What readers of what was decoded may raise beside their own errors: numbers, texts and dates out of range.
UNREADABLE = (*UNDECODABLE, ValueError, OverflowError)
