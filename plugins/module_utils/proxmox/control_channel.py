# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The control channel: one JSON object per line, no ids, replies in order (mtunnel-protocol 4.1). Bytes in, bytes out.

At most one command is outstanding. Whatever breaks the pairing of commands and replies poisons the channel: a late
reply would be taken for the answer to the next command.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Tuple

from .commands import Command
from .errors import AnswerMalformed, TunnelPoisoned, printable

__all__ = ["ControlChannel", "Reply", "parse_line"]

# safety 8: bounds of what a target can make us hold and parse.
MAX_LINE = 1024 * 1024
MAX_DEPTH = 32
_MAX_DIGITS = 20
_MAX_TEXT = 2000


@dataclass(frozen=True)
class Reply:
    """The answer to one command.

    Attributes:
        command: What it answers.
        success: What the target said.
        body: The reply object without ``success``; empty when refused.
        text: The target's text when refused, redacted and cut.
    """

    command: Command
    success: bool
    body: Mapping[str, Any]
    text: str = ""

    def __repr__(self) -> str:
        return f"Reply({self.command.name.value!r}, success={self.success})"


class ControlChannel:
    """Pairs commands and replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._outstanding: Optional[Command] = None
        self._reason = ""

    @property
    def outstanding(self) -> Optional[Command]:
        """The command whose reply has not come."""
        return self._outstanding

    @property
    def poisoned(self) -> str:
        """Why no further command may be sent; empty while the channel is sound."""
        return self._reason

    def send(self, command: Command) -> bytes:
        """The line for a command; raises TunnelPoisoned when there must be no further one."""
        if self._reason:
            raise TunnelPoisoned(
                f"'{command.name.value}' was not sent: the control channel was given up ({self._reason})",
                object="control channel",
                remedy="Read the state of the target back.",
            )
        if self._outstanding is not None:
            raise TunnelPoisoned(
                f"'{command.name.value}' was not sent: the reply to '{self._outstanding.name.value}' has not come",
                object="control channel",
            )
        line = command.line()
        self._outstanding = command
        return line

    def poison(self, reason: str) -> None:
        """No further command. The outstanding reply is still accepted, nothing else is."""
        self._reason = self._reason or reason

    def receive(self, data: bytes) -> List[Reply]:
        """Take bytes as they came; the replies that are complete now (at most one).

        Raises AnswerMalformed (and poisons the channel) for what is no reply or was not asked for.
        """
        self._buffer += data
        replies: List[Reply] = []
        while True:
            end = self._buffer.find(b"\n")
            if max(end, len(self._buffer) if end < 0 else 0) > MAX_LINE:
                self._malformed(f"a line of more than {MAX_LINE} bytes")
            if end < 0:
                return replies
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            replies.append(self._reply(line))

    def _reply(self, line: bytes) -> Reply:
        command = self._outstanding
        if command is None:
            self._malformed("a line nobody asked for")
        try:
            body = parse_line(line)
        except ValueError as error:
            self._malformed(printable(str(error), 120))
        success = body.pop("success", None)
        # Perl's JSON gives true and false, older releases 1 and 0; text is neither (safety 7.2).
        if not (isinstance(success, bool) or (isinstance(success, int) and success in (0, 1))):
            self._malformed("a reply that does not say whether it succeeded")
        self._outstanding = None
        if success:
            return Reply(command, True, body)
        return Reply(command, False, {}, _refusal(body.get("msg"), command.redact))

    def _malformed(self, what: str) -> NoReturn:
        name = self._outstanding.name.value if self._outstanding else "nothing"
        self._outstanding = None
        self._buffer.clear()
        self.poison(f"malformed reply to {name}")
        raise AnswerMalformed(f"after '{name}' the target sent {what}", object="control channel")


def _refusal(text: Any, redact: Tuple[str, ...]) -> str:
    if not isinstance(text, str):
        return "no reason given"
    shown: str = text
    for secret in redact:
        shown = shown.replace(secret, "********")
    return shown[:_MAX_TEXT].strip()


def parse_line(line: bytes) -> Dict[str, Any]:
    """A JSON object within bounds; ValueError naming what is wrong (never the content)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a line that is not UTF-8") from None
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"JSON nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except json.JSONDecodeError:
        raise ValueError("a line that is not JSON") from None
    except RecursionError:
        raise ValueError(f"JSON nested deeper than {MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise ValueError("JSON that is no object")
    _check_text(value)
    return value


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside of strings; before parsing, because the parser recurses."""
    deepest = depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON with a key twice")
    return found


def _constant(_word: str) -> NoReturn:
    raise ValueError("JSON with a number that is none")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("JSON with a number that is none")
    return value


def _bounded(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("JSON with a number of too many digits")
    return int(text)


def _check_text(value: Any) -> None:
    """Lone surrogates cannot be written anywhere again; the depth is bounded already."""
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("JSON with half a character")
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_text(key)
            _check_text(member)
    elif isinstance(value, list):
        for member in value:
            _check_text(member)
