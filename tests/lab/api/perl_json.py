# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as the tunnel worker's parser reads it, with its refusals (mtunnel-protocol 4.1 and 9.3). No I/O.

"neither tag, array, ..." in the recordings tells which of Perl's two parsers it was; the other texts and positions were
taken from that one (Debian's libjson-xs-perl 4.04). Offsets count bytes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NoReturn

__all__ = ["Malformed", "decode", "hash_of", "scalar", "type_name"]

MAX_DEPTH = 512
SHOWN = 20
END = -1
VALUE_EXPECTED = "malformed JSON string, neither tag, array, object, number, string or atom,"
ESCAPES = {ord(key): value for key, value in zip('"\\/bfnrt', '"\\/\b\f\n\r\t')}
DISPLAYED = {ord(key): "\\" + value for key, value in zip("\n\r\t\f\a\x1b\\", "nrtfae\\")}
DIGITS = frozenset(b"0123456789")
BLANKS = frozenset(b" \t\n\r")


class Malformed(ValueError):
    """A line that is not JSON; the text ends before the parser's file and line."""


def decode(line: bytes) -> Any:
    """The value of one line, or Malformed."""
    return _Parser(line).whole()


def type_name(value: Any) -> str:
    """What Perl's ref() says about a decoded value; empty for a plain one."""
    return {dict: "HASH", list: "ARRAY", bool: "JSON::PP::Boolean"}.get(type(value), "")


def scalar(value: Any) -> str:
    """A decoded value as Perl puts it into a text."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (dict, list)):
        return "%s(0x%x)" % (type_name(value), id(value))
    return "%.15g" % value if isinstance(value, float) else str(value)


def hash_of(value: Any, location: str) -> Dict[str, Any]:
    """A value used as a hash: null is an empty one, anything but an object ends in ValueError with Perl's text."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if type_name(value):
        raise ValueError("Not a HASH reference" + location)
    text = scalar(value)
    shown = '"%s"' % text if len(text) <= 32 else '"%s"...' % text[:32]
    raise ValueError('Can\'t use string (%s) as a HASH ref while "strict refs" in use%s' % (shown, location))


class _Parser:
    def __init__(self, line: bytes) -> None:
        self.line = line
        self.at = 0
        self.depth = 0

    def whole(self) -> Any:
        self._space()
        value = self._value()
        self._space()
        if self._byte() != END:
            self._refuse("garbage after JSON object,")
        return value

    def _byte(self) -> int:
        return self.line[self.at] if self.at < len(self.line) else END

    def _space(self) -> None:
        while self._byte() in BLANKS:
            self.at += 1

    def _refuse(self, what: str) -> NoReturn:
        rest = self.line[self.at :]
        near = _display(rest) if rest else "(end of string)"
        raise Malformed('%s at character offset %d (before "%s")' % (what, self.at, near))

    def _expect(self, character: str) -> None:
        if self._byte() != ord(character):
            self._refuse("'%s' expected," % character)
        self.at += 1

    # -- values ------------------------------------------------------------------------------------------------------

    def _value(self) -> Any:
        first = self._byte()
        if first == ord("("):
            self._refuse("malformed JSON string, neither array, object, number, string or atom,")
        readers: Dict[int, Callable[[], Any]] = {ord('"'): self._text, ord("["): self._array, ord("{"): self._object}
        if first in readers:
            self.at += 1
            return readers[first]()
        for word, value in (("true", True), ("false", False), ("null", None)):
            if first == ord(word[0]):
                return self._word(word, value)
        if first != ord("-") and first not in DIGITS:
            self._refuse(VALUE_EXPECTED)
        return self._number()

    def _word(self, word: str, value: Any) -> Any:
        if not self.line.startswith(word.encode(), self.at):
            self._refuse("'%s' expected," % word)
        self.at += len(word)
        return value

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse("json text or perl structure exceeds maximum nesting level (max_depth set too low?),")

    def _array(self) -> List[Any]:
        self._deeper()
        found: List[Any] = []
        self._space()
        if self._byte() != ord("]"):
            while True:
                found.append(self._value())
                self._space()
                if self._byte() != ord(","):
                    break
                self.at += 1
                self._space()
        if self._byte() != ord("]"):
            self._refuse(", or ] expected while parsing array,")
        self.at += 1
        self.depth -= 1
        return found

    def _object(self) -> Dict[str, Any]:
        self._deeper()
        found: Dict[str, Any] = {}
        self._space()
        if self._byte() != ord("}"):
            while True:
                self._expect('"')
                key = self._text()
                self._space()
                self._expect(":")
                self._space()
                found[key] = self._value()
                self._space()
                if self._byte() != ord(","):
                    break
                self.at += 1
                self._space()
        if self._byte() != ord("}"):
            self._refuse(", or } expected while parsing object/hash,")
        self.at += 1
        self.depth -= 1
        return found

    # -- numbers -----------------------------------------------------------------------------------------------------

    def _number(self) -> Any:
        start = self.at
        if self._byte() == ord("-"):
            self.at += 1
        if self._byte() == ord("0"):
            self.at += 1
            if self._byte() in DIGITS:
                self._refuse("malformed number (leading zero must not be followed by another digit),")
        else:
            self._digits("initial minus")
        whole = True
        if self._byte() == ord("."):
            self.at, whole = self.at + 1, False
            self._digits("decimal point")
        if self._byte() in (ord("e"), ord("E")):
            self.at, whole = self.at + 1, False
            if self._byte() in (ord("+"), ord("-")):
                self.at += 1
            self._digits("exp sign")
        text = self.line[start : self.at].decode("ascii")
        return _whole_number(text) if whole else _fraction(text)

    def _digits(self, after: str) -> None:
        if self._byte() not in DIGITS:
            self._refuse("malformed number (no digits after %s)," % after)
        while self._byte() in DIGITS:
            self.at += 1

    # -- texts -------------------------------------------------------------------------------------------------------

    def _text(self) -> str:
        parts: List[str] = []
        while True:
            byte = self._byte()
            if byte == ord('"'):
                self.at += 1
                return "".join(parts)
            if byte == ord("\\"):
                parts.append(self._escape())
            elif byte in (END, 0):
                self._refuse("unexpected end of string while parsing JSON string,")
            elif byte < 0x20:
                self._refuse("invalid character encountered while parsing JSON string,")
            else:
                parts.append(self._character(byte))

    def _character(self, byte: int) -> str:
        size = _utf8_size(byte)
        text = self.line[self.at : self.at + size].decode("utf-8", "surrogatepass" if size == 3 else "replace")
        if len(text) != 1 or text == "\ufffd" != self.line[self.at : self.at + 3].decode("utf-8", "ignore"):
            self._refuse("malformed UTF-8 character in JSON string,")
        self.at += size
        return text

    def _escape(self) -> str:
        escaped = self.line[self.at + 1] if self.at + 1 < len(self.line) else END
        if escaped == ord("u"):
            self.at += 2
            return self._unicode()
        if escaped not in ESCAPES:
            self._refuse("illegal backslash escape sequence in string,")
        self.at += 2
        return ESCAPES[escaped]

    def _unicode(self) -> str:
        high = self._four_digits()
        if 0xD800 <= high < 0xDC00:
            if self.line[self.at : self.at + 2] != b"\\u":
                self._refuse("missing low surrogate character in surrogate pair,")
            self.at += 2
            low = self._four_digits()
            if not 0xDC00 <= low < 0xE000:
                self._refuse("surrogate pair expected,")
            return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        if 0xDC00 <= high < 0xE000:
            self._refuse("missing high surrogate character in surrogate pair,")
        return chr(high)

    def _four_digits(self) -> int:
        digits = self.line[self.at : self.at + 4]
        if len(digits) < 4 or any(digit not in b"0123456789abcdefABCDEF" for digit in digits):
            self._refuse("exactly four hexadecimal digits expected,")
        self.at += 4
        return int(digits, 16)


def _whole_number(text: str) -> Any:
    """What does not fit into 64 bits stays a text."""
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else text


def _fraction(text: str) -> Any:
    """1.0 and 1e3 are whole numbers to Perl wherever they become text."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _utf8_size(byte: int) -> int:
    return 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


def _skipped(byte: int) -> int:
    """How many bytes Perl takes for one broken character, by its first byte."""
    longer = {0xF8: 5, 0xFC: 6, 0xFE: 7, 0xFF: 13}
    return next((longer[least] for least in sorted(longer, reverse=True) if byte >= least), _utf8_size(byte))


def _display(rest: bytes) -> str:
    """The first characters of what is left, as Perl shows them in messages."""
    shown, at = "", 0
    while at < len(rest):
        if len(shown) >= SHOWN:
            return shown + "..."
        size = _utf8_size(rest[at])
        character = rest[at : at + size].decode("utf-8", "replace")
        number = ord(character) if len(character) == 1 else 0xFFFD
        if number == 0xFFFD:
            size = _skipped(rest[at])
        shown += DISPLAYED.get(number) or (chr(number) if 0x20 <= number < 0x7F else "\\x{%x}" % number)
        at += size
    return shown
