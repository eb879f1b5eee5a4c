"""Each state of the page, light and dark, narrow and wide, as a browser shows it: axe finds no violation.

Nothing runs over the side, no script fails, and no page asks another host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diagnosis.mesh import Mesh, running
from tests.pictures.browser import CHROMIUM, Page, page
from tests.pictures.judge import AXE, Look, looks, wrong_with
from tests.pictures.states import STATES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        CHROMIUM is None or not AXE.exists(), reason="chromium or axe is not here (make pictures)"
    ),
]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as found:
        yield found


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("state", STATES)
def test_a_page_is_sound_in_each_state_and_look(state: str, mesh: Mesh, tab: Page) -> None:
    with STATES[state](mesh) as url:
        assert {str(look): found for look in looks() if (found := wrong_with(tab, url, look))} == {}


def test_what_is_wrong_with_a_page_is_found(tab: Page, tmp_path: Path) -> None:
    """The judge can fail: a page is too wide, its text faint, a picture without words, a script broken."""
    file = tmp_path / "wrong.html"
    file.write_text(
        "<!doctype html><html><body><p id=headline style='color:#ddd;background:#fff;width:900px'>faint</p>"
        "<img src='data:,'><script>const look = async () => {}; throw Error('x')</script></body></html>"
    )
    found = "\n".join(wrong_with(tab, file.as_uri(), Look(scheme="light", width=400)))
    for word in ("pixels wide", "color-contrast", "image-alt", "html-has-lang", "Uncaught"):
        assert word in found, found
