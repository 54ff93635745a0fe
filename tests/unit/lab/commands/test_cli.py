# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines of the lab's qm and pvesm."""

from __future__ import annotations

import pytest

from lab.commands.cli import Command, parse
from lab.node.base import Die, ParamError


def nothing(node: object, arguments: object) -> None:
    del node, arguments


SET = Command(
    nothing, ("vmid",), booleans=("skiplock",), values=("delete",), extra=lambda name: name in ("lock", "name")
)


def test_a_boolean_stands_alone_or_with_a_value() -> None:
    assert parse(SET, ["110", "--lock", "migrate", "--skiplock"]).options == {"lock": "migrate", "skiplock": "1"}
    assert parse(SET, ["110", "--skiplock", "0", "-name=x"]).options == {"skiplock": "0", "name": "x"}
    assert parse(SET, ["--skiplock", "--lock=migrate", "110"]).positional == ["110"]
    with pytest.raises(Die, match="400 not enough arguments"):
        parse(SET, ["--skiplock", "110"])  # the option parser takes the number for the option's value
    with pytest.raises(Die, match="400 unable to parse boolean option"):
        parse(SET, ["110", "--skiplock", "maybe"])


def test_repeated_delete_adds_up() -> None:
    assert parse(SET, ["110", "--delete", "lock", "--delete", "tags"]).options == {"delete": "lock,tags"}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "400 not enough arguments"),
        (["1", "2"], "400 too many arguments"),
        (["110", "--nosuch"], "Unknown option: nosuch\n400 unable to parse option"),
        (["110", "--lock"], "Option lock requires an argument\n400 unable to parse option"),
    ],
)
def test_refused_command_lines(argv: "list[str]", text: str) -> None:
    with pytest.raises(Die) as caught:
        parse(SET, argv)
    assert caught.value.text == text


def test_vmids_are_checked() -> None:
    assert parse(SET, ["110"]).vmid() == 110
    for text in ("99", "abc", "0110", "1000000000"):
        with pytest.raises(ParamError, match="does not look like a valid VM ID"):
            parse(SET, [text]).vmid()


def test_the_usage_line() -> None:
    assert SET.usage("qm", "set") == "qm set <vmid> [OPTIONS]"
    assert Command(nothing, booleans=("x",)).usage("pvesm", "status") == "pvesm status  [OPTIONS]"
    assert Command(nothing, ("vmid",)).usage("qm", "unlock") == "qm unlock <vmid>"
    assert Command(nothing, ("vmid", "new"), ("new",), values=("z",), required=("to",)).usage("qm", "move") == (
        "qm move <vmid> [<new>] --to <string> [OPTIONS]"
    )


def test_a_required_option_is_missed_by_its_name() -> None:
    with pytest.raises(ParamError) as caught:
        parse(Command(nothing, required=("to",)), [])
    assert caught.value.errors == {"to": "property is missing and it is not optional"}
