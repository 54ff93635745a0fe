# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output formats of pvesh."""

from __future__ import annotations

import pytest

from lab.commands.output import render

VERSION = {"release": "9.2", "version": "9.2.11"}
STORAGES = [{"storage": "local", "total": 10, "shared": 0}, {"storage": "a", "total": 7, "active": 1}]


@pytest.fixture(autouse=True)
def locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_json_and_its_pretty_form() -> None:
    assert render({"b": [True], "a": "ü"}, "json") == '{"a":"ü","b":[true]}\n'
    assert render(VERSION, "json-pretty") == '{\n   "release" : "9.2",\n   "version" : "9.2.11"\n}\n'
    assert render("101", "json") == '"101"\n'
    assert render([], "json-pretty") == "[]\n"
    assert render(None, "json") == ""


def test_an_object_as_a_table() -> None:
    assert render(VERSION, "text").splitlines() == [
        "┌─────────┬────────┐",
        "│ key     │ value  │",
        "╞═════════╪════════╡",
        "│ release │ 9.2    │",
        "├─────────┼────────┤",
        "│ version │ 9.2.11 │",
        "└─────────┴────────┘",
    ]


def test_a_list_as_a_table_without_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(STORAGES, "text", border=False).splitlines() == [
        "storage total active shared",
        "local      10             0",
        "a           7      1",
    ]
    monkeypatch.setenv("LC_ALL", "C")
    assert render([{"a": 1}], "text", header=False) == "+---+\n| 1 |\n+---+\n"
    assert render([], "text") == ""
    assert render("VM status: running\r\n", "text") == "VM status: running\r\n\n"


def test_yaml() -> None:
    assert render(VERSION, "yaml") == "---\nrelease: '9.2'\nversion: 9.2.11\n"
    assert render([{"a": 1, "b": [1, "x y"]}, {"c": {}}], "yaml") == (
        "---\n- a: 1\n  b:\n    - 1\n    - 'x y'\n- c: {}\n"
    )
    assert render("101", "yaml") == "--- '101'\n"
    assert render(None, "yaml") == ""
