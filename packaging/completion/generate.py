#!/usr/bin/python3
"""Writes the completion of every command for bash, zsh and fish, from the parsers of their command lines.

    /usr/bin/python3 packaging/completion/generate.py

A test holds what is in this folder against what this would write.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1]))

from wgd import protected_resource  # noqa: E402 - found in the checkout
from wgd.cli import client, server  # noqa: E402 - as above

PARSERS = (server.arguments, client.arguments, protected_resource.arguments)
CONNECTIONS = "/etc/wgd/client/*.yaml"
MADE = "made by packaging/completion/generate.py from the program's own parser"


BASH_HELPERS = f"""\
_wgd_words() {{
    mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -W "$*" -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
_wgd_files() {{
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
_wgd_connections() {{
    local path
    for path in {CONNECTIONS}; do
        [[ ! -e $path ]] || _wgd_words "$(basename "$path" .yaml)"
    done
}}
"""


@dataclass(frozen=True)
class Argument:
    """An option or an operand. `value` is what it takes: nothing (None), a `file`, a `connection`, or `other`.

    `words` are all the values that there are, where they are few.
    """

    flags: tuple[str, ...]
    text: str
    value: str | None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A subcommand, or with an empty name a program that has none."""

    name: str
    text: str
    options: tuple[Argument, ...]
    operands: tuple[Argument, ...]


def commands(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """Return the subcommands of a parser, or the one command that it is."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to tell
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - as above
            return tuple(command(name, texts[name], choice) for name, choice in action.choices.items())
    return (command("", parser.description or "", parser),)


def command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    """Return what a command takes."""
    given = [(action, argument(action)) for action in parser._actions]  # noqa: SLF001 - as above
    return Command(
        name,
        short(text),
        tuple(made for action, made in given if action.option_strings),
        tuple(made for action, made in given if not action.option_strings),
    )


def argument(action: argparse.Action) -> Argument:
    """Return what completion has to know of an action."""
    words = tuple(map(str, action.choices or ()))
    value = None if action.nargs == 0 else {"F": "file", "NAME": "connection"}.get(str(action.metavar), "other")
    spellings = tuple(flag for flag in action.option_strings if flag != "-h")
    return Argument(spellings, short(action.help or ""), value, words)


def short(text: str) -> str:
    """Return the first part of a help text, without what argparse fills in."""
    return re.split(r"[;(:]|\. ", text.replace("%(prog)s", ""), maxsplit=1)[0].strip().rstrip(".")


def flags(options: tuple[Argument, ...]) -> str:
    """Return every spelling of the options."""
    return " ".join(flag for option in options for flag in option.flags)


def bash(program: str, found: tuple[Command, ...]) -> str:
    """Return the completion for bash."""
    function = "_" + program.replace("-", "_")
    lines = [f"# bash completion for {program}, {MADE}", "", BASH_HELPERS, f"{function}() {{"]
    lines += ["    local before=${COMP_WORDS[COMP_CWORD-1]} command= word", "    COMPREPLY=()"]
    names = " ".join(each.name for each in found)
    if names:
        lines += [
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            f'        [[ " {names} " == *" $word "* ]] && command=$word && break',
            "    done",
        ]
    lines.append("    case $command:$before in")
    for each in found:
        for option in each.options:
            if option.value is not None:
                where = "|".join(f"{each.name}:{flag}" for flag in option.flags)
                lines.append(f"    {where}) {bash_value(option)}return ;;")
    lines += ["    esac", "    case $command in"]
    if names:
        lines.append(f"    '') _wgd_words --help --version {names} ;;")
    for each in found:
        offered = f"_wgd_words {flags(each.options)}; " + "".join(map(bash_value, each.operands))
        lines.append(f"    {each.name or repr('')}) {offered.removesuffix('; ')} ;;")
    lines += ["    esac", "}", f"complete -F {function} {program}", ""]
    return "\n".join(lines)


def bash_value(given: Argument) -> str:
    """Return what completes a value, empty where nobody can know it."""
    if given.words:
        return f"_wgd_words {' '.join(given.words)}; "
    return {"file": "_wgd_files; ", "connection": "_wgd_connections; "}.get(given.value or "", "")


def zsh(program: str, found: tuple[Command, ...]) -> str:
    """Return the completion for zsh."""
    lines = [f"#compdef {program}", f"# zsh completion for {program}, {MADE}", f"_{program}() {{"]
    if found[0].name:
        lines += [
            "    local state line",
            "    local -a commands",
            "    _arguments -C '(- *)--help[show help]' '(- *)--version[show the version]' \\",
            "        '1: :->command' '*:: :->argument'",
            "    case $state in",
            "    command)",
            "        commands=(",
            *(f"            '{each.name}:{zsh_text(each.text)}'" for each in found),
            "        )",
            "        _describe command commands",
            "        ;;",
            "    argument)",
            "        case $line[1] in",
            *(f"        {each.name}) _arguments {zsh_arguments(each)} ;;" for each in found),
            "        esac",
            "        ;;",
            "    esac",
        ]
    else:
        lines.append(f"    _arguments {zsh_arguments(found[0])}")
    lines += ["}", f'_{program} "$@"', ""]
    return "\n".join(lines)


def zsh_text(text: str) -> str:
    """Return a text as it may stand in a specification."""
    return re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", "'\\''")


def zsh_arguments(given: Command) -> str:
    """Return the specifications of a command's options and operands."""
    specifications = [
        f"'{flag}[{zsh_text(option.text)}]{zsh_value(option)}'" for option in given.options for flag in option.flags
    ]
    specifications += [f"'{number}{zsh_value(operand)}'" for number, operand in enumerate(given.operands, 1)]
    return " ".join(specifications)


def zsh_value(given: Argument) -> str:
    """Return what completes a value."""
    if given.value is None:
        return ""
    if given.words:
        return f":value:({' '.join(given.words)})"
    connections = f":connection:{{compadd -- {CONNECTIONS}(N\\:t\\:r)}}"
    return {"file": ":file:_files", "connection": connections}.get(given.value, ":value: ")


def fish(program: str, found: tuple[Command, ...]) -> str:
    """Return the completion for fish."""
    lines = [f"# fish completion for {program}, {MADE}", f"complete -c {program} -f"]
    if found[0].name:
        lines += [
            f"complete -c {program} -n __fish_use_subcommand -l {each} -d 'show {text}'"
            for each, text in (("help", "help"), ("version", "the version"))
        ]
    for each in found:
        condition = ""
        if each.name:
            lines.append(f"complete -c {program} -n __fish_use_subcommand -a {each.name} -d '{fish_text(each.text)}'")
            condition = f" -n '__fish_seen_subcommand_from {each.name}'"
        for option in each.options:
            text = fish_text(option.text)
            lines.append(f"complete -c {program}{condition} {fish_flags(option)} -d '{text}'{fish_value(option)}")
        lines += [
            f"complete -c {program}{condition}{fish_value(each)}"
            for each in each.operands
            if fish_value(each).strip() != "-x"
        ]
    return "\n".join([*lines, ""])


def fish_text(text: str) -> str:
    """Return a text as it may stand between single quotes."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def fish_flags(option: Argument) -> str:
    """Return the spellings of an option."""
    return " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)


def fish_value(given: Argument) -> str:
    """Return what completes a value."""
    if given.value is None:
        return ""
    if given.words:
        return f" -x -a '{' '.join(given.words)}'"
    if given.value == "connection":
        return f" -x -a \"(string replace -r '.*/(.*)\\.yaml' '\\$1' {CONNECTIONS})\""
    return " -r -F" if given.value == "file" else " -x"


def files() -> Iterator[tuple[Path, str]]:
    """Yield every file and its content, named as each shell looks for it."""
    for arguments in PARSERS:
        parser = arguments()
        program, found = parser.prog, commands(parser)
        yield FOLDER / "bash" / program, bash(program, found)
        yield FOLDER / "zsh" / f"_{program}", zsh(program, found)
        yield FOLDER / "fish" / f"{program}.fish", fish(program, found)


if __name__ == "__main__":
    for path, content in files():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
