"""`sidecar manual`: prints the man pages sidecar(1) and sidecar.toml(5), made from the tables of the options.

The form is that of man(7); `sidecar manual | man -l -` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources

from agent import VERSION
from agent.base.exits import ExitCode
from agent.cli.console import RUN_GROUPS, Console, default_text, examples
from agent.config.flags import did_you_mean
from agent.config.options import CONFIG, Option
from agent.deployment.flags import PAGES, Usage, usages

EXITS = {
    ExitCode.CLEAN: "done; a sidecar: stopped, every connection drained",
    ExitCode.FAILED: "connections were cut at the drain deadline, or an internal error; explain: denied",
    ExitCode.USAGE: "wrong usage",
    ExitCode.UNAVAILABLE: "Consul or the admin endpoint did not answer, or Consul refused for start_timeout",
    ExitCode.FAR_SIDE: "doctor, ping: an upstream has no instance, is not reached, or does not answer",
    ExitCode.APP_DOWN: "doctor: the workload itself takes no connections",
    ExitCode.PERMISSION: "no permission, of the system or of the admin endpoint",
    ExitCode.CONFIGURATION: "wrong settings",
}
_FILES = {
    "/etc/connect-sidecar/NAME.toml": "settings of the unit sidecar@NAME; see sidecar.toml(5)",
    "/etc/connect-sidecar/NAME.token": "its ACL token, which systemd hands over as a credential",
    "/etc/connect-sidecar/NAME.env": "its environment variables, stronger than the settings",
    "/run/connect-sidecar/NAME/admin.sock": "its admin endpoint",
}
_ABOUT = """\
A sidecar stands beside one workload and gives it mutual TLS to other services of Consul's mesh: it accepts
callers that Consul's intentions allow, and connects the workload to its upstreams. Flags are written with
one dash or two, as -flag value or -flag=value. Each setting has a flag, an environment variable and a key in
the settings file; the flag is the strongest, then the variable, then the file."""
_ABOUT_FILE = """\
The settings of one sidecar, in TOML. The unit sidecar@NAME reads /etc/connect-sidecar/NAME.toml.
`sidecar check FILE` prints every mistake, or the settings in force with the origin of each. Flags are
stronger than environment variables, and these than this file; then come the service definition in Consul and
the defaults."""


def main(_name: str, console: Console) -> int:
    """Print the page that is named, or sidecar(1)."""
    page = console.words[0] if console.words else PAGES[0]
    if page.lstrip("-") in ("h", "help"):
        console.say(f"usage: sidecar manual [{'|'.join(PAGES)}]\n\n  print a man page; for `man -l -`")
        return ExitCode.CLEAN
    if page not in PAGES or len(console.words) > 1:
        console.complain(
            f"no page {' '.join(console.words)!r}{did_you_mean(page, PAGES)}; there are {', '.join(PAGES)}"
        )
        return ExitCode.USAGE
    console.out.write(of_program(usages()) if page == "sidecar" else of_settings())
    return ExitCode.CLEAN


def of_program(commands: Mapping[str, Usage]) -> str:
    """Return sidecar(1)."""
    lines = [*_head("sidecar", 1, "mutual-TLS sidecar for Consul Connect")]
    lines += [".SH SYNOPSIS", ".B sidecar", r"\fICOMMAND\fR [\fIFLAGS\fR]", ".SH DESCRIPTION", text(_ABOUT)]
    lines.append(".SH COMMANDS")
    for name, usage in commands.items():
        lines += [".TP", rf"\fB{text(name)}\fR {text(usage.form)}".rstrip(), text(f"{usage.says}.")]
        lines += [text("It has the flags of run, below.")] if usage.groups is RUN_GROUPS else []
    lines += [".TP", r"\fBversion\fR", "print the version.", ".SH EXAMPLES"]
    for rows in examples().values():
        lines += _pairs(dict(rows))
    for name, usage in commands.items():
        own = [option for group in usage.groups.values() for option in group if option.name not in _RUN]
        if own:
            lines += [f".SH {text(f'FLAGS OF {name}'.upper())}", *_flags(own)]
    for title, options in RUN_GROUPS.items():
        lines += [f".SH {text(f'FLAGS OF RUN: {title}'.upper())}", *_flags(options)]
    lines += [".SH EXIT STATUS", *_pairs({str(int(code)): says for code, says in EXITS.items()})]
    lines += [".SH FILES", *_pairs(_FILES), ".SH SEE ALSO", ".BR sidecar.toml (5),", ".BR systemctl (1)"]
    return "\n".join(lines) + "\n"


def of_settings() -> str:
    """Return sidecar.toml(5)."""
    lines = [*_head("sidecar.toml", 5, "settings of a Consul Connect sidecar"), ".SH SYNOPSIS"]
    lines += [text("/etc/connect-sidecar/NAME.toml"), ".SH DESCRIPTION", text(_ABOUT_FILE)]
    for title, options in RUN_GROUPS.items():
        lines += [f".SH {text(title.upper())}", *(_setting(one) for one in options if one is not CONFIG)]
    sample = resources.files("agent.deployment").joinpath("systemd", "sidecar.toml").read_text()
    tables = re.sub(r"(?m)^# ?", "", sample.partition("# --- Upstreams")[2].partition("\n")[2]).strip()
    lines += [".SH UPSTREAMS WITH SETTINGS OF THEIR OWN", ".EX", text(tables), ".EE"]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR sidecar (1)"]) + "\n"


def text(plain: str) -> str:
    """Return text that troff prints as it is (groff_man(7), "Portability")."""
    escaped = plain.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("'", r"\(aq")
    escaped = escaped.replace("…", "...").replace("µ", r"\(mc")
    return re.sub(r"(?m)^\.", r"\&.", escaped)


_RUN = frozenset(option.name for group in RUN_GROUPS.values() for option in group)


def _head(name: str, section: int, says: str) -> list[str]:
    title = f'.TH {text(name.upper())} {section} "" "connect\\-sidecar {VERSION}"'
    return [title, ".SH NAME", rf"{text(name)} \- {text(says)}"]


def _flags(options: Sequence[Option]) -> list[str]:
    return [
        _entry(
            f"-{option.flag_name}", _takes(option), _says(option, "" if option.flag_only else option.variable)
        )
        for option in options
    ]


def _setting(option: Option) -> str:
    takes = _takes(option) or "true | false"
    many = " It may be an array." if option.repeatable else ""
    return _entry(option.name, f"= {takes}", _says(option, f"-{option.flag_name}, {option.variable}") + many)


def _takes(option: Option) -> str:
    return " | ".join(option.choices) or option.example


def _says(option: Option, places: str) -> str:
    told = f"{places}{default_text(option)}".removeprefix(", ")
    return f"{option.says[:1].upper()}{option.says[1:]}{f' ({told})' if told else ''}."


def _entry(name: str, takes: str, says: str) -> str:
    return "\n".join([".TP", rf"\fB{text(name)}\fR {text(takes)}".rstrip(), text(says)])


def _pairs(rows: Mapping[str, str]) -> list[str]:
    return [_entry(name, "", f"{says}.") for name, says in rows.items()]
