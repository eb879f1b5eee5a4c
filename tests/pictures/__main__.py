"""`python -m tests.pictures`: write docs/pages anew, each state in light and dark, narrow and wide.

Each page is judged by axe as well, and nothing may run over the side or ask elsewhere; exit 1 if one does.
All looks are judged. Kept are light and wide, dark and narrow; of two states the other two as well.
`--only STATE` draws one state, `--into DIRECTORY` writes there, all looks, as PNG.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.diagnosis.mesh import running
from tests.pictures.browser import CHROMIUM, page
from tests.pictures.judge import AXE, Look, looks, wrong_with
from tests.pictures.states import STATES

USUAL = (Look(scheme="light", width=1600), Look(scheme="dark", width=400))
BOTH = ("healthy", "datacenter")
PAGES = Path(__file__).parents[2] / "docs" / "pages"


def main() -> int:
    """Draw and judge every state; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--only", choices=STATES, action="append")
    parser.add_argument("--into", type=Path, metavar="DIRECTORY")
    args = parser.parse_args()
    if CHROMIUM is None or not AXE.exists():
        print("pictures: chromium and axe are needed: `make pictures` brings axe", file=sys.stderr)
        return 1
    wrong = 0
    with TemporaryDirectory() as directory, running(Path(directory)) as mesh, page(Path(directory)) as tab:
        for name in args.only or STATES:
            with STATES[name](mesh) as url:
                for look in looks():
                    found = wrong_with(tab, url, look)
                    if args.into is not None:
                        (args.into / f"{name}-{look}.png").write_bytes(tab.picture("png"))
                    elif look in USUAL or name in BOTH:
                        (PAGES / f"{name}-{look}.webp").write_bytes(tab.picture("webp"))
                    wrong += len(found)
                    print(f"{name} {look}: {'; '.join(found) or 'sound'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
