"""Cuts the offending bytes out of a parser's error text: they may be secret, and of any length."""

from __future__ import annotations

import re

_BYTES = re.compile(r":? (?:bytearray\()?b['\"].*", re.DOTALL)


def unquoted(error: Exception) -> str:
    """Return the text of an h11 error up to the first bytes it quotes."""
    return _BYTES.sub("", str(error))
