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

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agent", "certs", "upstreams", "datacenter")
MOST_LINES = 350
MOST_FUNCTION_LINES = 50

# What a room may import of ours, beside itself. The sidecar and its double share the SPIFFE type and the
# stream they log to, no more: had they shared parsers, one mistake would hide in both.
MAY_IMPORT = {
    "certs": (),
    "upstreams": ("certs.spiffe",),
    "agent": ("certs", "upstreams"),
    "datacenter": ("certs.spiffe", "agent.sink"),
}

# No socket, no clock, no file, no process in the quiet rooms; randomness is handed in as a `random.Random`.
EFFECTS = frozenset(
    {
        "asyncio",
        "concurrent",
        "http",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
    }
    | {"signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "time", "trio", "urllib.request"}
)
QUIET = {"certs": EFFECTS, "upstreams": EFFECTS | {"OpenSSL", "cryptography"}}

# No thread of our own; one poll beside trio's, for the bytes. The pump is the relay's other half.
# Web frameworks and databases stay out of the agent's memory, and certificates are read in one room.
RESERVED: dict[str, tuple[str, ...]] = {
    "threading": (),
    "_thread": (),
    "selectors": (),
    "select": ("agent.relay.relay", "agent.relay.pump"),
    "sqlite3": ("datacenter.state.store",),
    "starlette": ("datacenter",),
    "hypercorn": ("datacenter",),
    "httpcore2": ("datacenter",),
    "rich": ("datacenter.demo",),
    "h11": ("agent",),
    "OpenSSL": ("agent", "certs"),
    "cryptography": ("certs", "datacenter"),
}

# Wall time enters here, and goes on as a function handed in.
CLOCKS = ("agent.run", "datacenter.__main__")

# Modules that stand on nothing of ours: values and mechanisms anybody may use.
STAND_ALONE = (
    "certs.spiffe",
    "agent.base.latest",
    "agent.relay.splice",
    "agent.net.handshake",
    "agent.config.flags",
    "agent.config.durations",
    "agent.sink",
)

# Modules nobody beside the named may import: whoever imports them knows everybody.
ONLY_FOR = {
    "agent.__main__": (),
    "datacenter.__main__": (),
    "certs.contexts": ("agent",),
    "agent.relay.relay": ("agent",),
}

# Tables and shapes that have no behaviour of their own, and the test of what reads them.
TESTED_BY = {
    "agent/crew.py": "agent/test_workers.py",
    "datacenter/http/context.py": "datacenter/test_frame.py",
    "datacenter/services/check_definitions.py": "datacenter/test_agent_checks.py",
    "datacenter/services/definitions.py": "datacenter/test_registration.py",
    "datacenter/demo/looking.py": "datacenter/demo/test_story.py",
    "datacenter/state/errors.py": "datacenter/test_frame.py",
    "datacenter/state/settings.py": "datacenter/test_options.py",
    "datacenter/services/views.py": "datacenter/test_recorded_discovery.py",
}

PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:\\n|\s)+[A-Za-z0-9+/=]{40}")
NOT_OURS = {
    ".git",
    ".venv",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "__pycache__",
    "build",
}


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
    return {name for _, name in imports(path) if name.partition(".")[0] in ROOMS and name not in ROOMS}


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


def listed(path: Path) -> str:
    """How a file is named in a test's id."""
    return str(path)


@pytest.mark.parametrize("path", sources(*ROOMS), ids=listed)
def test_a_room_imports_only_what_its_arrows_allow(path: Path) -> None:
    room = path.parts[0]
    allowed = (room, *MAY_IMPORT[room])
    assert {name for name in ours(path) if not within(name, allowed)} == set()


@pytest.mark.parametrize("path", sources("certs", "upstreams"), ids=listed)
def test_a_quiet_room_has_no_effects(path: Path) -> None:
    assert {name for _, name in imports(path) if within(name, tuple(QUIET[path.parts[0]]))} == set()


@pytest.mark.parametrize("path", sources(*ROOMS), ids=listed)
def test_a_file_imports_no_module_that_is_reserved_for_others(path: Path) -> None:
    found = {name.partition(".")[0] for _, name in imports(path)} & RESERVED.keys()
    assert {name for name in found if not within(module(path), RESERVED[name])} == set()


@pytest.mark.parametrize("path", sources(*ROOMS), ids=listed)
def test_wall_time_enters_at_the_top_alone(path: Path) -> None:
    asked = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    found = asked & {"datetime.now", "datetime.datetime.now", "time.time", "date.today"}
    assert found == set() or within(module(path), CLOCKS)


@pytest.mark.parametrize("name", STAND_ALONE)
def test_a_module_that_stands_alone_imports_nothing_of_ours(name: str) -> None:
    assert ours(Path(*name.split(".")).with_suffix(".py")) == set()


@pytest.mark.parametrize("name", ONLY_FOR)
def test_a_module_that_knows_everybody_is_imported_by_few(name: str) -> None:
    importers = {module(path) for path in sources(*ROOMS) if name in ours(path)}
    assert {
        importer for importer in importers if not within(importer, (name.partition(".")[0], *ONLY_FOR[name]))
    } == set()


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


@pytest.mark.parametrize("path", sources(*ROOMS, "tests"), ids=listed)
def test_a_file_says_what_it_is_for_and_stays_readable(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert text == "" or ast.get_docstring(tree(path)), "no docstring"
    assert not re.search(r"utils|helpers|manager", path.stem)


@pytest.mark.parametrize("path", sources(*ROOMS, "tests"), ids=listed)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    long = [
        f"{function.name}: {length(function)}"
        for function in functions(path)
        if length(function) > MOST_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", sources("certs", "upstreams"), ids=listed)
def test_values_are_frozen_and_slotted(path: Path) -> None:
    classes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    arguments = {node.name: dataclass_arguments(node) for node in classes}
    assert [
        name for name, given in arguments.items() if given is not None and not given >= {"frozen", "slots"}
    ] == []


@pytest.mark.parametrize("path", sources(*ROOMS), ids=listed)
def test_a_source_file_has_its_test_file(path: Path) -> None:
    if path.stem in ("__init__", "__main__"):
        return
    mirror = f"{path.parent}/test_{path.stem}.py"
    assert (ROOT / "tests" / TESTED_BY.get(str(path), mirror)).exists()


@pytest.mark.parametrize("room", ROOMS)
def test_the_map_of_a_room_names_every_module_once(room: str) -> None:
    """The map is the docstring of its `__init__`: names with two spaces or more around them."""
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()), clean=False) or ""
    rows = [line for line in text.splitlines() if line.startswith("    ")]
    words = Counter(word for row in rows for word in re.split(r"  +", row))
    there = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__", "__main__"}
    assert {name: words[name] for name in sorted(there) if words[name] != 1} == {}


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
