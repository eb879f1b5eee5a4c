"""Makes docs/faults.md from the faults: `make reference` writes it, `test_faults.py` holds it."""

from __future__ import annotations

from pathlib import Path

from tests.diagnosis import faults_of_consul, faults_of_the_path
from tests.diagnosis.fault import Fault

FAULTS = (*faults_of_consul.FAULTS, *faults_of_the_path.FAULTS)
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_HEAD = """# Faults, and what names each

Each row is made in a mesh of processes (two datacenters with ACLs, three sidecars) by
`tests/diagnosis/test_faults.py`. The test sees that the first cause of `sidecar doctor`, the red station of
`sidecar ping`, the head of the page (the headline, which is that of `sidecar status` too, and the complaints)
and the alert each name the fault. Then it applies the remedy that doctor names, and sees that doctor has no
complaint any more and that no alert fires. A healthy mesh has no warning, no failure and no alert.

The sidecar of `web` calls `db`. Rows that begin with *our own* are about the sidecar of `db`. `…` stands for
what differs from run to run. The page is made from the table of the test (`make reference`).

| fault | cause that `doctor` names | its remedy | station of `ping` | headline or complaint | alert |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the text of the page."""
    return _HEAD + "".join(map(_row, sorted(FAULTS, key=lambda one: one.name)))


def _row(fault: Fault) -> str:
    station = fault.ping[1] if fault.ping else ""
    cells = (
        fault.name,
        f"`{fault.doctor.strip()} …`",
        f"`… {fault.remedy} …`",
        station or ("not walked: the settings are wrong" if fault.ping else ""),
        f"`{fault.page}`" if fault.page else "no agent runs",
        f"`{fault.alert}`",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
