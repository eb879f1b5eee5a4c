"""Each state of the page, light and dark, narrow and wide, as a browser shows it.

Nothing runs over the side, no script fails, and no page asks another host. Where axe is here, it finds no
violation.
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
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
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


WITHOUT_AXE, BY_AXE = ("pixels wide", "Uncaught"), ("color-contrast", "image-alt", "html-has-lang")


def found_wrong(tab: Page, directory: Path) -> str:
    """What is said of a page that is too wide, with faint text, a wordless picture, a broken script."""
    file = directory / "wrong.html"
    file.write_text(
        "<!doctype html><html><body><p id=headline style='color:#ddd;background:#fff;width:900px'>faint</p>"
        "<img src='data:,'><script>const look = async () => {}; throw Error('x')</script></body></html>"
    )
    return "\n".join(wrong_with(tab, file.as_uri(), Look(scheme="light", width=400)))


def test_what_is_wrong_with_a_page_is_found(tab: Page, tmp_path: Path) -> None:
    found = found_wrong(tab, tmp_path)
    assert [word for word in WITHOUT_AXE if word not in found] == [], found


def test_axe_is_here_and_finds_violations(tab: Page, tmp_path: Path) -> None:
    if not AXE.exists():
        pytest.skip("axe is not here, so no page was judged by it: make build/axe/.ready")
    found = found_wrong(tab, tmp_path)
    assert [word for word in BY_AXE if word not in found] == [], found
