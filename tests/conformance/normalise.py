# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what the lab says with what was recorded.

Structure, types and texts must be equal; what varies from run to run is listed in ``volatile.json``.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from .bind import PATTERNS, TOKEN, Bindings

__all__ = ["Comparer"]

_HERE = Path(__file__).resolve().parent
PROGRESS = re.compile(r"(?:\r\d+ bytes [^\r\n]*copied, \d+ s, [^\r\n]*)+\n")
"""what dd adds once a second, where it needs that long"""


class Comparer:
    """``differences(expected, actual)`` lists every deviation as ``path: text``; an empty list is equality."""

    def __init__(self, bindings: Bindings, rules: Optional[Dict[str, Any]] = None) -> None:
        self._bindings = bindings
        rules = rules if rules is not None else json.loads((_HERE / "volatile.json").read_text(encoding="utf-8"))
        self._texts = [(re.compile(rule["recorded"]), rule["accepted"]) for rule in rules["texts"]]
        self._numbers = [re.compile(pattern) for pattern in rules["numbers"]]
        self._any = [re.compile(pattern) for pattern in rules["any_value"]]
        self._optional = [re.compile(pattern) for pattern in rules["optional_keys"]]
        self._digests = [re.compile(pattern) for pattern in rules["digests"]]
        self._unordered_lines = [re.compile(pattern) for pattern in rules["unordered_lines"]]
        self._unordered_lists = [re.compile(pattern) for pattern in rules["unordered_lists"]]
        self._unordered_words = [re.compile(pattern) for pattern in rules["unordered_words"]]
        self._unordered_runs = [re.compile(pattern) for pattern in rules["unordered_runs"]]
        self._dropped_lines = [re.compile(pattern) for pattern in rules["dropped_lines"]]

    def differences(self, expected: Any, actual: Any, path: str = "", partial: bool = False) -> List[str]:
        if _any(self._any, path):
            return []
        if isinstance(expected, dict):
            return self._objects(expected, actual, path, partial)
        if isinstance(expected, list):
            return self._lists(expected, actual, path, partial)
        if isinstance(expected, str):
            return self._strings(expected, actual, path)
        if _any(self._numbers, path) and _number(expected) and _number(actual):
            return []
        if type(expected) is not type(actual) or expected != actual:
            return [f"{path or '.'}: expected {expected!r}, got {actual!r}"]
        return []

    def _objects(self, expected: Dict[str, Any], actual: Any, path: str, partial: bool) -> List[str]:
        if not isinstance(actual, dict):
            return [f"{path or '.'}: expected an object, got {actual!r}"]
        found = []
        for key, value in expected.items():
            inner = f"{path}/{key}"
            if key not in actual:
                if not _any(self._optional, inner):
                    found.append(f"{inner}: missing, expected {value!r}")
            else:
                found += self.differences(value, actual[key], inner, partial)
        for key in actual:
            if key not in expected and not partial and not _any(self._optional, f"{path}/{key}"):
                found.append(f"{path}/{key}: not in the recording, got {actual[key]!r}")
        return found

    def _lists(self, expected: List[Any], actual: Any, path: str, partial: bool) -> List[str]:
        if not isinstance(actual, list):
            return [f"{path or '.'}: expected a list, got {actual!r}"]
        if _any(self._unordered_lists, path):
            return self._sets(expected, actual, path)
        found = []
        if len(expected) != len(actual) and not partial:
            found.append(f"{path or '.'}: {len(expected)} items expected, got {len(actual)}: {actual!r}")
        for number, (one, other) in enumerate(zip(expected, actual)):
            found += self.differences(one, other, f"{path}/{number}", partial)
        return found

    def _sets(self, expected: List[Any], actual: List[Any], path: str) -> List[str]:
        left, found = list(actual), []
        for item in expected:
            for other in left:
                if not self.differences(item, other, f"{path}/*"):
                    left.remove(other)
                    break
            else:
                found.append(f"{path}/*: missing {item!r}")
        return found + [f"{path}/*: not in the recording, got {other!r}" for other in left]

    def _strings(self, expected: str, actual: Any, path: str) -> List[str]:
        if not isinstance(actual, str):
            if actual is not None and re.fullmatch(r"\{\{(PID|PSTART|STARTTIME)\}\}", expected) and _number(actual):
                return []
            return [f"{path or '.'}: expected {expected!r}, got {actual!r}"]
        if _any(self._digests, path):
            return [] if re.fullmatch(r"[0-9a-f]{40}", actual) else [f"{path}: no digest: {actual!r}"]
        if _any(self._unordered_words, path) and sorted(expected.split(",")) == sorted(actual.split(",")):
            return []
        if self.same_text(expected, actual):
            return []
        return [f"{path or '.'}: expected {self._bindings.literal(expected)!r}, got {actual!r}"]

    def same_text(self, expected: str, actual: str) -> bool:
        """True when the texts agree; binds placeholders that get their value here."""
        expected, actual = PROGRESS.sub("", expected), PROGRESS.sub("", actual)
        if any(pattern.search(expected) for pattern in self._unordered_lines):
            left = self.lines(actual)
            for line in self.lines(expected):
                other = next((each for each in left if self._match(line, each)), None)
                if other is None:
                    return False
                left.remove(other)
            return not left
        return self._match("\n".join(self.lines(expected)), "\n".join(self.lines(actual)))

    def lines(self, text: str) -> List[str]:
        return [line for line in text.split("\n") if not any(p.search(line) for p in self._dropped_lines)]

    def in_order(self, lines: List[str]) -> List[str]:
        """Log lines without those of the QEMU build; what is walked in a hash's order comes sorted."""
        found: List[str] = []
        for rule, grouped in itertools.groupby(self.lines("\n".join(lines)), self._run_of):
            run = list(grouped)
            found += run if rule is None else sorted(run)
        return found

    def _run_of(self, line: str) -> Optional[int]:
        return next((number for number, p in enumerate(self._unordered_runs) if p.search(line)), None)

    def same_lines(self, expected: List[str], actual: List[str]) -> List[str]:
        """Log lines in order, without those of the QEMU build."""
        left, right = self.in_order(expected), self.in_order(actual)
        if len(left) == len(right) and all(self._match(a, b) for a, b in zip(left, right)):
            return []
        for number, (one, other) in enumerate(zip(left, right)):
            if not self._match(one, other):
                return [f"log line {number + 1}: expected {one!r}, got {other!r}"]
        return [
            f"log: {len(left)} lines expected, got {len(right)}: {(left if len(left) > len(right) else right)[-3:]}"
        ]

    def _match(self, expected: str, actual: str) -> bool:
        pattern, bound = self._pattern(expected)
        match = re.fullmatch(pattern, actual, re.DOTALL)
        if not match:
            return False
        for group, (name, argument) in bound.items():
            self._bindings.bind(name, argument, match[group])
        return True

    def _pattern(self, expected: str) -> "tuple[str, Dict[str, Any]]":
        parts, bound, end = [], {}, 0
        for match in TOKEN.finditer(expected):
            parts.append(self._literal(expected[end : match.start()]))
            end = match.end()
            name, argument = match[1], match[2]
            if name == "PERL_LOCATION":
                # file and line differ between releases: the text before it is compared
                parts.append(r".*")
                end = len(expected)
                break
            known = self._bindings.value(name, argument)
            if known is not None and name != "TICKET":
                parts.append(re.escape(known))
            elif name in ("TICKET", "LOGIN_TICKET", "CSRF"):
                group = f"g{len(bound)}"
                bound[group] = (name, argument)
                parts.append(f"(?P<{group}>{PATTERNS[name]})")
            else:
                parts.append(f"(?:{PATTERNS.get(name, '.+?')})")
        parts.append(self._literal(expected[end:]))
        return "".join(parts), bound

    def _literal(self, text: str) -> str:
        """A pattern for recorded text: volatile stretches by their rule, the rest as it stands."""
        text = self._bindings.literal(text)
        for pattern, accepted in self._texts:
            match = pattern.search(text)
            if match:
                return (
                    self._literal(text[: match.start()])
                    + match.expand(accepted).replace("\0", "\\")
                    + self._literal(text[match.end() :])
                )
        return re.escape(text)


def _any(patterns: List["re.Pattern[str]"], path: str) -> bool:
    return any(pattern.search(path) for pattern in patterns)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))
