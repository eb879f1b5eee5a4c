"""`sidecar completion`: prints the completions of a shell, made from the usage of the commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.base.exits import ExitCode
from agent.cli.admin_commands import FLAGS as OF_INSTANCES
from agent.cli.console import Console
from agent.config.flags import did_you_mean
from agent.config.options import Option
from agent.deployment.flags import SHELLS, Usage, usages

INSTANCES = "/run/connect-sidecar"
FILES = ("FILE", "PATH")
DIRECTORIES = ("DIRECTORY",)
_BASH = """\
# Completions of sidecar for bash(1); made by `sidecar completion bash`.
_sidecar() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  case ${{COMP_WORDS[1]}}${{previous/#--/-}} in
{values}
  esac
  COMPREPLY+=($(compgen -W "$words" -- "$current"))
}}
complete -o filenames -F _sidecar sidecar
"""
_FILES_OF_BASH = 'COMPREPLY=($(compgen -f -- "$current"))'
_ZSH = """\
#compdef sidecar
# Completions of sidecar for zsh(1); made by `sidecar completion zsh`.
local -a commands
commands=(
{commands}
)
if (( CURRENT == 2 )); then
  _describe command commands
  return
fi
local command=$words[2]
shift words
(( CURRENT -= 1 ))
case $command in
{cases}
esac
"""


def main(_name: str, console: Console) -> int:
    """Print the completions of the shell that is named."""
    shell = console.words[0] if len(console.words) == 1 else ""
    if shell.lstrip("-") in ("h", "help"):
        console.say(f"usage: sidecar completion {'|'.join(SHELLS)}\n\n  print the completions of a shell")
        return ExitCode.CLEAN
    if shell not in SCRIPTS:
        which = (
            f"no completions for {shell!r}{did_you_mean(shell, SHELLS)}" if shell else "say for which shell"
        )
        console.complain(f"{which}: {', '.join(SHELLS)}")
        return ExitCode.USAGE
    console.out.write(SCRIPTS[shell](usages()))
    return ExitCode.CLEAN


def bash(commands: Mapping[str, Usage]) -> str:
    """Return a script for bash-completion."""
    cases, values = list[str](), list[str]()
    for name, usage in commands.items():
        words = [*(f"-{option.flag_name}" for option in usage.options), *usage.words]
        more = f" $(ls {INSTANCES} 2>/dev/null)" if name in OF_INSTANCES else ""
        files = f"; {_FILES_OF_BASH}" if name == "check" else ""
        cases.append(f'    {name}) words="{" ".join(words)}{more}"{files} ;;')
        for option in usage.options:
            if not option.switch:
                values.append(f"    {name}-{option.flag_name}) {_bash_value(option)}; return ;;")
    listed = " ".join([*commands, "help", "version"])
    return _BASH.format(commands=listed, cases="\n".join(cases), values="\n".join(values))


def _bash_value(option: Option) -> str:
    if option.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current"))'
    if option.example in FILES:
        return _FILES_OF_BASH
    return 'COMPREPLY=($(compgen -d -- "$current"))' if option.example in DIRECTORIES else "COMPREPLY=()"


def zsh(commands: Mapping[str, Usage]) -> str:
    """Return a function for zsh's completion system."""
    listed = [f"  {_zsh_quoted(f'{name}:{usage.says}')}" for name, usage in commands.items()]
    cases = []
    for name, usage in commands.items():
        words = [_zsh_quoted(_zsh_flag(option)) for option in usage.options]
        words.append(_zsh_quoted(_zsh_words(name, usage)))
        cases.append(f"  {name})\n    _arguments \\\n      " + " \\\n      ".join(words) + " ;;")
    return _ZSH.format(commands="\n".join(listed), cases="\n".join(cases))


def _zsh_flag(option: Option) -> str:
    says = option.says.replace("[", "(").replace("]", ")").replace(":", "\\:")
    flag = f"{'*' if option.repeatable else ''}-{option.flag_name}[{says}]"
    if option.switch:
        return flag
    if option.choices:
        return f"{flag}:{option.flag_name}:({' '.join(option.choices)})"
    action = "_files" if option.example in FILES else "_files -/" if option.example in DIRECTORIES else " "
    return f"{flag}:{option.flag_name}:{action}"


def _zsh_words(name: str, usage: Usage) -> str:
    if name in OF_INSTANCES:
        return f'1:instance:(${{(f)"$(ls {INSTANCES} 2>/dev/null)"}})'
    return f"*:word:({' '.join(usage.words)})" if usage.words else "*:file:_files"


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish(commands: Mapping[str, Usage]) -> str:
    """Return a script for fish(1)."""
    lines = [
        "# Completions of sidecar for fish(1); made by `sidecar completion fish`.",
        "complete -c sidecar -f",
    ]
    for name, usage in commands.items():
        lines.append(f"complete -c sidecar -n __fish_use_subcommand -a {name} -d {_fish_quoted(usage.says)}")
        here = f"complete -c sidecar -n '__fish_seen_subcommand_from {name}'"
        lines += [
            f"{here} -o {option.flag_name} {_fish_value(option)}-d {_fish_quoted(option.says)}"
            for option in usage.options
        ]
        if usage.words:
            lines.append(f"{here} -a {_fish_quoted(' '.join(usage.words))}")
        elif name in OF_INSTANCES:
            lines.append(f"{here} -a '(ls {INSTANCES} 2>/dev/null)'")
        elif name == "check":
            lines.append(f"{here} -F")
    return "\n".join(lines) + "\n"


def _fish_value(option: Option) -> str:
    if option.switch:
        return ""
    if option.choices:
        return f"-x -a {_fish_quoted(' '.join(option.choices))} "
    return "-r -F " if option.example in FILES + DIRECTORIES else "-x "


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: Mapping[str, Callable[[Mapping[str, Usage]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
