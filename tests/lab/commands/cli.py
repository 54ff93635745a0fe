# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines as Proxmox's tools read them: subcommand, positionals, `--key value`, errors with a usage line."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from lab.node.base import Die, Node, ParamError, complain
from lab.node.texts import MISSING

__all__ = ["Arguments", "Command", "check_vmid", "main", "say", "split_words"]

LISTS = ("content", "delete", "revert")
"""Options that add up when repeated; of the others the last one counts."""


def say(text: str) -> None:
    """Unbuffered text on stdout."""
    os.write(1, text.encode("utf-8", "surrogateescape"))


def check_vmid(text: str, name: str = "vmid") -> int:
    """A VMID, or the refusal of its format."""
    if not re.fullmatch(r"[1-9][0-9]{2,8}", text):
        raise ParamError({name: "invalid format - value does not look like a valid VM ID\n"})
    return int(text)


def split_words(text: str) -> List[str]:
    """Members of one of Proxmox's list values."""
    return [word for word in re.split(r"[,;\s\0]+", text) if word]


@dataclass(frozen=True)
class Arguments:
    """Parsed arguments; options keep the order of the command line, lists hold repeated keys joined by commas."""

    positional: Sequence[str]
    options: Mapping[str, str]

    def flag(self, name: str) -> bool:
        """A boolean option."""
        return self.options.get(name, "0").lower() in ("1", "on", "yes", "true")

    def vmid(self, index: int = 0) -> int:
        """A positional VMID."""
        return check_vmid(self.positional[index])


@dataclass(frozen=True)
class Command:
    """A subcommand: what it runs, its positional arguments, its options (booleans may stand without a value)."""

    run: Callable[[Node, Arguments], None]
    positional: Tuple[str, ...] = ()
    optional: Tuple[str, ...] = ()
    booleans: Tuple[str, ...] = ()
    values: Tuple[str, ...] = ()
    required: Tuple[str, ...] = ()
    extra: Optional[Callable[[str], bool]] = None

    def usage(self, program: str, name: str) -> str:
        """The usage line under an error."""
        words = [f"[<{word}>]" if word in self.optional else f"<{word}>" for word in self.positional]
        words += [f"--{word} <string>" for word in self.required]
        options = " [OPTIONS]" if self.booleans or self.values or self.extra else ""
        return f"{program} {name} {' '.join(words)}{options}"

    def takes(self, name: str) -> bool:
        """Whether the name is that of an option with a value."""
        return name in self.values or name in self.required or (self.extra is not None and self.extra(name))


def parse(command: Command, argv: Sequence[str]) -> Arguments:
    """Split arguments; ParamError-like Die with the text of the option parser.

    A boolean takes the next word for its value unless that is an option itself: `--skiplock 110` eats the 110.
    """
    positional: List[str] = []
    options: Dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            positional += rest
            break
        if not word.startswith("-") or word == "-" or word[1:2].isdigit():
            positional.append(word)
            continue
        name, sign, value = word.lstrip("-").partition("=")
        if name in command.booleans:
            if not sign:
                value = rest.pop(0) if rest and not rest[0].startswith("-") else ""
        elif command.takes(name):
            if not sign:
                if not rest:
                    raise Die(f"Option {name} requires an argument\n400 unable to parse option")
                value = rest.pop(0)
        else:
            raise Die(f"Unknown option: {name}\n400 unable to parse option")
        options[name] = f"{options[name]},{value}" if name in options and name in LISTS else value
    if len(positional) > len(command.positional):
        raise Die("400 too many arguments")
    if len(positional) < len(command.positional) - len(command.optional):
        raise Die("400 not enough arguments")
    options.update({name: _boolean(options[name]) for name in command.booleans if name in options})
    missing = {name: MISSING for name in command.required if name not in options}
    if missing:
        raise ParamError(missing)
    return Arguments(positional, options)


def _boolean(text: str) -> str:
    if text.lower() in ("", "1", "on", "yes", "true"):
        return "1"
    if text.lower() in ("0", "off", "no", "false"):
        return "0"
    raise Die("400 unable to parse boolean option")


def main(program: str, commands: Mapping[str, Command], argv: Optional[Sequence[str]] = None) -> int:
    """Run one command line and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a process of its own, which ends with its reader
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    name, command = _find(commands, words)
    if command is None:
        problem = f"unknown command '{program} {words[0]}'" if words else "no command specified"
        known = "\n".join("       " + each.usage(program, key).rstrip() for key, each in sorted(commands.items()))
        complain(f"ERROR: {problem}\nUSAGE: {program} <COMMAND> [ARGS] [OPTIONS]\n{known}")
        return 255
    try:
        arguments = parse(command, words[len(name.split()) :])
        command.run(Node(), arguments)
    except Die as error:
        complain(error.text)
        if isinstance(error, ParamError) or "\n400 unable" in error.text or error.text.startswith("400 "):
            complain(command.usage(program, name))
        return error.code
    return 0


def _find(commands: Mapping[str, Command], words: Sequence[str]) -> Tuple[str, Optional[Command]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in commands:
            return name, commands[name]
    return "", None
