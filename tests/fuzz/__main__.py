"""Searches for what no reader may do.

    python -m tests.fuzz [--seconds N] [--runs N] [--seed N] [--keep] [TARGET...]

Each target is searched for so many seconds, or inputs, one after the other. What was new in an input is kept
for the next run under `.fuzz/`; with --keep the shortest inputs that reached something new join the target's
corpus, which the tests replay. Exit code 1: something was found, and is told with its input.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.engine import seed_files
from tests.fuzz.findings import Finding, judged, smallest
from tests.fuzz.target import CORPUS, Target, kept, load, names

WORK = Path(".fuzz")
UNIT_SECONDS = 20  # for one input; more ends the search, and is a finding
MEMORY = 2048  # megabytes of one target's process
MOST_KEPT, LONGEST_KEPT = 40, 1024  # entries of a corpus, bytes of an entry
_DONE = re.compile(r"number_of_executed_units: (\d+)")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(slots=True)
class Outcome:
    """How the search of one target went."""

    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[Finding] = field(default_factory=list)
    ended: str = ""  # why before its time


def main() -> int:
    """Search the targets named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *names()], help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="make what was reached the corpus of the tests")
    parser.add_argument(
        "--runs", type=int, default=-1, help="inputs for each target at most; any number by default"
    )
    parser.add_argument("--seed", type=int, help="makes the same inputs in each run, as CI wants it")
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(f"NOT FUZZED: there is no atheris here (Python {platform.python_version()}, {sys.platform}).")
        print("Its wheels are for CPython 3.11 to 3.13 on Linux x86-64; the tests replay the corpus without.")
        return 0
    print(
        f"{'target':16} {'executions':>11} {'a second':>9} {'edges':>6} {'features':>9} {'corpus':>7}"
        "  findings"
    )
    outcomes = {
        name: searched(name, asked.seconds, asked.seed, asked.runs) for name in asked.targets or names()
    }
    if asked.keep:
        for name in outcomes:
            keep(name)
    return 1 if any(outcome.findings or outcome.ended for outcome in outcomes.values()) else 0


def searched(name: str, seconds: int, seed: int | None, runs: int) -> Outcome:
    """Search one target, and tell how it went."""
    target = load(name)
    began = time.monotonic()
    outcome = run(name, target, seconds, seed, runs)
    speed = round(outcome.executions / (time.monotonic() - began))
    print(
        f"{name:16} {outcome.executions:11} {speed:9} {outcome.edges:6} {outcome.features:9}"
        f" {outcome.corpus:7}  {len(outcome.findings) or 'none'}",
        flush=True,
    )
    if outcome.ended:
        print(f"ENDED {name}: {outcome.ended}")
    for found in outcome.findings:
        print(f"FOUND {name}: {found.kind}\n  {found.data[:2000]!r}\n{found.text}", flush=True)
    return outcome


def run(name: str, target: Target, seconds: int, seed: int | None = None, runs: int = -1) -> Outcome:
    """The search itself, in a process of its own."""
    folders = {part: WORK / name / part for part in ("corpus", "seeds", "findings", "broken")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for old in folders["findings"].iterdir():
        old.unlink()
    seed_files(target, kept(name), folders["seeds"])
    flags = [f"-max_total_time={seconds}", f"-max_len={target.longest}", "-print_final_stats=1"]
    flags += [f"-timeout={UNIT_SECONDS}", f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={folders['broken']}/"]
    # Entropic scheduling weighs an entry by the time it takes, which is another one in each run.
    flags += [f"-runs={runs}"] + ([] if seed is None else [f"-seed={seed}", "-entropic=0"])
    flags += _dictionary(target, WORK / name / "words")
    flags += [str(folders["corpus"]), str(folders["seeds"])]
    done = subprocess.run(
        [
            "env",
            "PYTHONHASHSEED=0",
            sys.executable,
            "-m",
            "tests.fuzz.engine",
            name,
            str(folders["findings"]),
            *flags,
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return _outcome(done, target, folders["findings"])


def keep(name: str) -> None:
    """Add the shortest of the inputs that reached something new to the corpus of the tests.

    libFuzzer's own way to choose among them (-merge) starts the program anew, which it cannot with Python's.
    """
    target, before = load(name), kept(name)
    files = (WORK / name / "corpus").iterdir()
    found = sorted((path.read_bytes() for path in files), key=lambda entry: (len(entry), entry))
    new = [entry for entry in found if entry not in target.seeds and entry not in before]
    small = [entry for entry in new if len(entry) <= LONGEST_KEPT and judged(target.fuzz_one, entry) is None]
    with (CORPUS / f"{name}.txt").open("a") as corpus:
        corpus.writelines(f"{entry!r}\n" for entry in small[: max(0, MOST_KEPT - len(before))])


def _dictionary(target: Target, path: Path) -> list[str]:
    """The words in libFuzzer's form."""
    escaped = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words if 0 < len(word) <= 64]
    path.write_text("".join(f'"{word}"\n' for word in escaped))
    return [f"-dict={path}"] if escaped else []


def _outcome(done: subprocess.CompletedProcess[str], target: Target, folder: Path) -> Outcome:
    outcome = Outcome()
    if executed := _DONE.search(done.stderr):
        outcome.executions = int(executed[1])
    if covered := _COVERED.findall(done.stderr):
        outcome.edges, outcome.features, outcome.corpus = map(int, covered[-1])
    if done.returncode != 0:
        outcome.ended = f"exit code {done.returncode}\n{done.stderr[-3000:]}"
    for path in sorted(folder.iterdir()):
        kind, data, text = path.read_text().split("\n", 2)
        outcome.findings.append(smallest(target.fuzz_one, Finding(kind, ast.literal_eval(data), text)))
    return outcome


if __name__ == "__main__":
    sys.exit(main())
