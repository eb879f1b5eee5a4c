"""The house rules a machine can hold: import directions, sizes, frozen values, tests that mirror sources.

Everything is read from syntax trees; no module is imported. A new module that breaks an arrow is in the wrong
room, or the arrow is wrong: then the arrow is changed here, in sight.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.rooms import (
    AGENT_ROOMS,
    CLOCKS,
    MAY_IMPORT,
    MOST_FILES,
    MOST_FUNCTION_LINES,
    MOST_LINES,
    NOT_OURS,
    ONLY_FOR,
    PEM,
    QUIET,
    RESERVED,
    ROOMS,
    ROOT,
    STAND_ALONE,
    TESTED_BY,
    UNLISTED,
)


def sources(*rooms: str) -> list[Path]:
    """Every Python file of these folders, relative to the checkout."""
    return [path.relative_to(ROOT) for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse((ROOT / path).read_text(), filename=str(path))


def module(path: Path) -> str:
    """`agent/relay/relay.py` -> `agent.relay.relay`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if [alias.name for alias in node.names] == ["Random"]:
                continue  # the type of what is handed in
            # `from certs import spiffe` names a module, `from certs.spiffe import parse` a thing in one.
            base = node.module or ""
            yield node.lineno, base
            for alias in node.names:
                if is_module(f"{base}.{alias.name}"):
                    yield node.lineno, f"{base}.{alias.name}"


def is_module(name: str) -> bool:
    """Whether that is a module of ours."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of the places, or lies in one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def ours(path: Path) -> set[str]:
    """The modules of ours a file imports; a bare room says nothing (`from certs import spiffe` says more)."""
    return {
        name
        for _, name in imports(path)
        if name.partition(".")[0] in ROOMS and not ROOT.joinpath(*name.split(".")).is_dir()
    }


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines without decorators and docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def dataclass_arguments(node: ast.ClassDef) -> set[str] | None:
    """The arguments that are true of a class's @dataclass; None if it has none."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = call.func if call else decorator
        if isinstance(name, ast.Name) and name.id == "dataclass":
            keywords = call.keywords if call else []
            return {
                str(key.arg) for key in keywords if isinstance(key.value, ast.Constant) and key.value.value
            }
    return None


def room_of(name: str) -> str:
    """`agent.relay.pump` -> `relay`; empty for a module above the rooms."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or name == "agent.snapshot" else ""


def against_the_table(path: Path) -> set[str]:
    """The modules of the agent that a file imports though its room may not."""
    room = room_of(module(path))
    if not room:
        return set()
    allowed = {room, "base", *AGENT_ROOMS[room]}
    return {name for name in ours(path) if name.startswith("agent.") and room_of(name) not in allowed}


def test_rooms_import_only_what_their_arrows_allow() -> None:
    wrong = {
        str(path): sorted(name for name in ours(path) if not within(name, (room, *MAY_IMPORT[room])))
        for room in ROOMS
        for path in sources(room)
    }
    assert {path: names for path, names in wrong.items() if names} == {}


def test_rooms_of_the_agent_import_only_what_stands_below_them() -> None:
    wrong = {(module(path), name) for path in sources("agent") for name in against_the_table(path)}
    assert wrong == set()


def test_the_table_of_rooms_has_no_arrow_up() -> None:
    order = list(AGENT_ROOMS)
    ups = [
        (room, other)
        for room, others in AGENT_ROOMS.items()
        for other in others
        if order.index(other) >= order.index(room)
    ]
    assert ups == []


def test_rooms_are_listed_and_small() -> None:
    folders = {path.parent for path in sources("agent", "datacenter")}
    agent = {folder.name for folder in folders if folder.parent == Path("agent")}
    assert agent | {"snapshot"} == set(AGENT_ROOMS)
    sizes = {str(folder): len(list((ROOT / folder).glob("*.py"))) - 1 for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > MOST_FILES} == {}


def test_quiet_rooms_have_no_effects() -> None:
    found = [
        (str(path), name)
        for room in QUIET
        for path in sources(room)
        for _, name in imports(path)
        if within(name, tuple(QUIET[room]))
    ]
    assert found == []


def test_reserved_modules_are_imported_where_they_belong() -> None:
    found = [
        (str(path), name)
        for path in sources(*ROOMS)
        for name in {full.partition(".")[0] for _, full in imports(path)} & RESERVED.keys()
        if not within(module(path), RESERVED[name])
    ]
    assert found == []


def test_wall_time_enters_at_the_top_alone() -> None:
    calls = {"datetime.now", "datetime.datetime.now", "time.time", "date.today"}
    asking = [
        str(path)
        for path in sources(*ROOMS)
        if calls & {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    ]
    assert [path for path in asking if not within(module(Path(path)), CLOCKS)] == []


def test_modules_that_stand_alone_import_nothing_of_ours() -> None:
    assert {name: ours(Path(*name.split(".")).with_suffix(".py")) for name in STAND_ALONE} == {
        name: set() for name in STAND_ALONE
    }


def test_modules_that_know_everything_are_imported_by_few() -> None:
    wrong = [
        (name, importer)
        for name, others in ONLY_FOR.items()
        for importer in (module(path) for path in sources(*ROOMS) if name in ours(path))
        if not within(importer, (name.partition(".")[0], *others))
    ]
    assert wrong == []


def test_no_module_comes_back_to_itself_through_its_imports() -> None:
    arrows = {module(path): ours(path) for path in sources(*ROOMS)}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for following in sorted(arrows.get(name, ())):
                visit(following, (*trail, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def test_files_say_what_they_are_for_and_stay_readable() -> None:
    texts = {path: (ROOT / path).read_text() for path in sources(*ROOMS, "tests")}
    assert {str(path) for path, text in texts.items() if len(text.splitlines()) > MOST_LINES} == set()
    assert {str(path) for path, text in texts.items() if text and not ast.get_docstring(tree(path))} == set()
    assert {str(path) for path in texts if re.search(r"utils|helpers|manager", path.stem)} == set()


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path}: {function.name}: {length(function)}"
        for path in sources(*ROOMS, "tests")
        for function in functions(path)
        if length(function) > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_values_are_frozen_and_slotted() -> None:
    thawed = [
        f"{path}: {node.name}"
        for path in sources("certs", "upstreams")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and (given := dataclass_arguments(node)) is not None
        and not given >= {"frozen", "slots"}
    ]
    assert thawed == []


def test_source_files_have_their_test_files() -> None:
    missing = [
        str(path)
        for path in sources(*ROOMS)
        if path.stem not in ("__init__", "__main__")
        and not (ROOT / "tests" / TESTED_BY.get(str(path), f"{path.parent}/test_{path.stem}.py")).exists()
    ]
    assert missing == []


def test_a_room_names_its_files_once() -> None:
    """The list is in the docstring of its `__init__`: names with two spaces or more around them."""
    wrong: dict[str, list[str]] = {}
    for folder in sorted({path.parent for path in sources(*ROOMS)} - UNLISTED):
        text = ast.get_docstring(tree(folder / "__init__.py"), clean=False) or ""
        rows = [line for line in text.splitlines() if line.startswith("    ")]
        words = Counter(word for row in rows for word in re.split(r"  +", row))
        there = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
        wrong[str(folder)] = [name for name in sorted(there) if words[name] != 1]
    assert {folder: names for folder, names in wrong.items() if names} == {}


def test_no_key_and_outside_the_recordings_no_certificate_is_kept() -> None:
    files = (
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not NOT_OURS & set(path.relative_to(ROOT).parts)
    )
    found = [
        f"{path.relative_to(ROOT)}: {kind.decode()}"
        for path in files
        for kind in PEM.findall(path.read_bytes())
        if kind != b"CERTIFICATE" or ROOT / "tests" / "recordings" not in path.parents
    ]
    assert found == []
