"""The page of a datacenter asks this datacenter alone, by a policy that its browser enforces."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from datacenter.http.page import PATH, policy
from tests.datacenter.world import world_a

PAGE = (Path(__file__).parents[3] / "datacenter" / "http" / "page.html").read_text()


async def test_the_page_is_served_under_its_policy(autojump_clock: object) -> None:
    answer = await world_a().dc1.call("GET", PATH)
    assert answer.status == 200
    headers = {name.lower(): value for name, value in answer.headers.items()}
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in headers["content-security-policy"]
    assert headers["content-security-policy"] == policy(PAGE.encode())


def test_the_page_names_no_other_host_and_writes_no_markup() -> None:
    assert not re.search(r"https?://|\sstyle=|\son\w+=|innerHTML|eval\(", PAGE)
    assert set(re.findall(r"method: *[\"'](\w+)", PAGE)) == set()
