"""`/ui/`: one static page about this datacenter, which asks the API with the rights of the anonymous token.

Members, roots, intentions, services of every datacenter and prepared queries; it only reads. Its policy
allows the browser its own style and script, and questions to this address.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial

import trio

from datacenter.http.context import Datacenter, Reply, Request, Route

PATH = "/ui/"
HTML = "text/html; charset=utf-8"
_PAGE = trio.Path(__file__).with_name("page.html")
_INLINE = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


def routes(dc: Datacenter) -> list[Route]:
    """The route of this module."""
    return [Route("GET", PATH, partial(_page, dc), forwards=False)]


async def _page(_dc: Datacenter, _request: Request) -> Reply:
    html = await _PAGE.read_bytes()
    headers = {"Content-Security-Policy": policy(html), "X-Frame-Options": "DENY"}
    return Reply(value=html, content_type=HTML, headers=headers)


def policy(html: bytes) -> str:
    """Return the Content-Security-Policy (CSP Level 3) of a page with inline style and script."""
    rules = ["default-src 'none'"]
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        rules.append(f"{kind.decode()}-src 'sha256-{digest}'")
    rules += [
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return "; ".join(rules)
