# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of pvesh on stdout: `--output-format` text (tables), json, json-pretty, yaml (pve-cli 4.3)."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Iterable, List, Mapping, Sequence

__all__ = ["FORMATS", "render"]

FORMATS = ("text", "json", "json-pretty", "yaml")
UNICODE = ("┌─┬┐", "╞═╪╡", "├─┼┤", "└─┴┘", "│")
ASCII = ("+-++", "+=++", "+-++", "+-++", "|")
PLAIN_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
ODD_TEXT = re.compile(r"^[~!@#%&*|>?:,'\"`{}\[\]]|^-+$|\s|:$")


def render(data: Any, form: str, header: bool = True, border: bool = True) -> str:
    """The text on stdout; nothing for no result."""
    if data is None:
        return ""
    if form == "json":
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    if form == "json-pretty":
        return json.dumps(data, sort_keys=True, indent=3, separators=(",", " : "), ensure_ascii=False) + "\n"
    if form == "yaml":
        return "---" + _yaml_top(data)
    return _text(data, header, border)


# text


def _text(data: Any, header: bool, border: bool) -> str:
    if isinstance(data, Mapping):
        rows = [[key, _cell(data[key])] for key in sorted(data) if data[key] is not None]
        return _table(["key", "value"], rows, [False, False], header, border)
    if not isinstance(data, list):
        return _cell(data) + "\n"
    if data and isinstance(data[0], Mapping):
        names = _columns(data)
        rows = [[_cell(entry.get(name)) for name in names] for entry in data]
        right = [all(_is_number(entry.get(name, 0)) for entry in data) for name in names]
        return _table(names, rows, right, header, border)
    return "".join(_cell(entry) + "\n" for entry in data)


def _columns(data: Sequence[Mapping[str, Any]]) -> List[str]:
    """Columns that every entry has come first (the real one goes by its schemas), each group by name."""
    names = {name for entry in data for name in entry}
    return sorted(names, key=lambda name: (any(name not in entry for entry in data), name))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _table(names: List[str], rows: List[List[str]], right: List[bool], header: bool, border: bool) -> str:
    widths = [max(len(name) * header, *(len(row[at]) for row in rows), 0) for at, name in enumerate(names)]
    top, double, single, bottom, bar = UNICODE if _unicode() else ASCII

    def line(cells: Iterable[str]) -> str:
        padded = [cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(cells, widths, right)]
        return f"{bar} {f' {bar} '.join(padded)} {bar}\n" if border else " ".join(padded).rstrip() + "\n"

    def rule(marks: str) -> str:
        return marks[0] + marks[2].join(marks[1] * (width + 2) for width in widths) + marks[3] + "\n" if border else ""

    out = rule(top)
    if header:
        out += line(names) + rule(double)
    return out + rule(single).join(map(line, rows)) + rule(bottom)


def _unicode() -> bool:
    place = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return "utf" in place.lower()


# yaml


def _yaml_top(data: Any) -> str:
    if isinstance(data, (dict, list)) and data:
        return "\n" + "".join(line + "\n" for line in _yaml(data))
    return f" {_yaml_scalar(data)}\n"


def _yaml(data: Any) -> List[str]:
    lines: List[str] = []
    if isinstance(data, dict):
        for key in sorted(data):
            lines += _yaml_item(f"{_yaml_scalar(key)}:", data[key])
        return lines
    for entry in data:
        if isinstance(entry, (dict, list)) and entry:
            inner = _yaml(entry)
            lines += ["- " + inner[0], *("  " + line for line in inner[1:])]
        else:
            lines.append("- " + _yaml_scalar(entry))
    return lines


def _yaml_item(head: str, value: Any) -> List[str]:
    if isinstance(value, (dict, list)) and value:
        return [head, *("  " + line for line in _yaml(value))]
    return [f"{head} {_yaml_scalar(value)}"]


def _yaml_scalar(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, (bool, int, float)):
        return str(int(value) if isinstance(value, bool) else value)
    text = str(value)
    if re.search(r"[\\\x00-\x09\x0b-\x1f\x7f-\x9f'\n]", text):
        return json.dumps(text, ensure_ascii=False)
    odd = text in ("", "null", "true", "false") or PLAIN_NUMBER.fullmatch(text) or ODD_TEXT.search(text)
    return f"'{text}'" if odd else text
