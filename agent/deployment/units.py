"""`sidecar units`: lists, prints or installs the systemd units and the samples that come with the program.

A unit names the program by its path. What is printed and installed names the one that runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console, flag_usage
from agent.config.flags import did_you_mean, parse_arguments
from agent.config.options import Option
from agent.config.parsers import parse_bool, parse_path

SAYS = "list the systemd units and samples, print one, or install the units"
FORM = "[FILE …] | -install [DIRECTORY]"
OPTIONS = (
    Option(name="install", read=parse_bool, flag_only=True,
           says="install the units; in /etc/systemd/system, or in DIRECTORY"),
    Option(name="force", read=parse_bool, flag_only=True, says="with -install: overwrite units that differ"),
    Option(name="program", read=parse_path, example="PATH", flag_only=True,
           says="the program that the units start; without it this one"),
)  # fmt: skip
UNITS = (".service", ".socket", ".target")
SAMPLES = (".toml", ".conf")
SHIPPED = "/opt/connect-sidecar/bin/sidecar"  # as the units have it in the repository
DIRECTORY = Path("/etc/systemd/system")
HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - compared with, never opened
MODE = 0o644


def main(_name: str, console: Console) -> int:
    """Run the command; return its exit code."""
    arguments = parse_arguments(console.words, [option.flag for option in OPTIONS])
    if arguments.help_wanted:
        console.say(flag_usage("units", SAYS, {"flags": OPTIONS}, FORM))
        return ExitCode.CLEAN
    for mistake in arguments.mistakes:
        console.complain(mistake)
    if arguments.mistakes:
        return ExitCode.USAGE
    given, words = arguments.values, arguments.words
    named = given.get("program", ("",))[-1]
    try:
        files = read(named or running_program())
        if "install" in given:
            directory = _directory(words)
            _check_program(named or running_program(), asked_for=bool(named))
            install(console, files, directory, force="force" in given)
        elif words:
            console.out.write("".join(_one(files, word) for word in words))
        else:
            console.say("\n".join(f"{name:28} {_subject(text)}" for name, text in files.items()))
    except Exit as error:
        console.complain(error.message)
        return error.code
    return ExitCode.CLEAN


def names() -> list[str]:
    """Return the names of the units and samples that come with the program."""
    entries = (entry.name for entry in resources.files("agent.deployment").joinpath("systemd").iterdir())
    return sorted(name for name in entries if name.endswith((*UNITS, *SAMPLES)))


def read(program: str) -> dict[str, str]:
    """Return the text of each file by its name; the units start `program`."""
    folder = resources.files("agent.deployment").joinpath("systemd")
    return {name: folder.joinpath(name).read_text().replace(SHIPPED, program) for name in names()}


def running_program() -> str:
    """Return the path of `sidecar` in the environment that runs, or what the units say without one."""
    here = Path(sys.prefix, "bin", "sidecar")
    return str(here) if here.exists() else SHIPPED


def install(console: Console, files: Mapping[str, str], directory: Path, *, force: bool) -> None:
    """Write the units into the directory. Raises Exit before anything is written where one differs."""
    units = {directory / name: text for name, text in files.items() if name.endswith(UNITS)}
    try:
        differing = [path for path, text in units.items() if path.exists() and path.read_text() != text]
        if differing and not force:
            listed = ", ".join(str(path) for path in differing)
            raise Exit(ExitCode.FAILED, f"already there, and different: {listed}; -force overwrites them")
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in units.items():
            _write(path, text)
    except OSError as error:
        code = ExitCode.PERMISSION if isinstance(error, PermissionError) else ExitCode.FAILED
        raise Exit(code, f"{error.filename}: {error.strerror}") from error
    for path in units:
        console.say(str(path))
    console.say("next: systemctl daemon-reload")


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole: systemd may read it at any moment."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(MODE)
    new.replace(path)


def _check_program(program: str, *, asked_for: bool) -> None:
    """Raise Exit for a program that the units cannot see."""
    if not asked_for and program.startswith(HIDDEN):
        raise Exit(
            ExitCode.CONFIGURATION,
            f"{program} cannot be started by a unit, which sees neither home directories nor /tmp:"
            " install the program below /opt or /usr, or name another by -program",
        )


def _directory(words: tuple[str, ...]) -> Path:
    if len(words) > 1:
        raise Exit(ExitCode.USAGE, f"what is {words[1]!r} for? -install takes one directory")
    return Path(words[0]) if words else DIRECTORY


def _one(files: Mapping[str, str], name: str) -> str:
    if name not in files:
        known = did_you_mean(name, files)
        raise Exit(ExitCode.USAGE, f"there is no {name!r}{known}; `sidecar units` lists what there is")
    return files[name]


def _subject(text: str) -> str:
    """Return the description of a unit, or the first line of a sample."""
    described = [line for line in text.splitlines() if line.startswith("Description=")]
    return described[0].partition("=")[2] if described else text.splitlines()[0].lstrip("# ")
