"""What a parser says is wrong, without the bytes it shows: they may be secret, and of any length."""

from __future__ import annotations

import re

_BYTES = re.compile(r":? (?:bytearray\()?b['\"].*", re.DOTALL)


def unquoted(error: Exception) -> str:
    """The text of an error of h11's up to the first bytes in it."""
    return _BYTES.sub("", str(error))
