# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of error codes in docs/errors.md, read out of the sources: ``python tests/error_table.py`` writes it anew.

A code stands in the class attribute ``code`` of an error, or is the first argument of a refusal. Nothing is imported.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
PLACES = (ROOT / "plugins" / "module_utils", ROOT / "plugins" / "plugin_utils")
MARK = "<!-- table: python tests/error_table.py -->"
CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
# Which argument of the functions that make a refusal is the sentence.
SENTENCES = {"_refusal": 2, "Refusal": 2, "_refuse_target": 2, "_unmapped": 3}


def text_of(node: ast.expr) -> str:
    """The words of a string; what is put in at run time shows as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def codes_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The codes that one node of the syntax tree makes, each with a sentence."""
    if isinstance(node, ast.ClassDef):
        words = (ast.get_docstring(node) or "").split("\n\n")[0]
        for statement in node.body:
            named = isinstance(statement, ast.Assign) and [getattr(target, "id", "") for target in statement.targets]
            if named == ["code"] and isinstance(statement.value, ast.Constant) and statement.value.value:
                yield str(statement.value.value), words
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "id", "")
        at = SENTENCES.get(name, -1)
        if 0 <= at < len(node.args) and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), text_of(node.args[at])
        code = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
        if name == "Refused" and isinstance(code, ast.Constant) and node.args:
            yield str(code.value), text_of(node.args[0])


def codes() -> dict[str, str]:
    """Every code with the first sentence found for it."""
    found: dict[str, str] = {}
    for path in sorted(path for place in PLACES for path in place.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for code, sentence in codes_of(node):
                if CODE.fullmatch(code):
                    found.setdefault(code, " ".join(sentence.split()))
    return dict(sorted(found.items()))


def render() -> str:
    """The whole page, as it should be."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    rows = [f"| `{code}` | {sentence.replace('|', '/')} |" for code, sentence in codes().items()]
    return "\n".join([head + MARK, "", "| code | what went wrong |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
