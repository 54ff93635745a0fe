# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Property strings and what is wrong with them."""

from __future__ import annotations

import pytest

from lab.node.formats import FormatError, Member, check_members

KNOWN = {"file": Member(optional=False), "size": Member("integer", minimum=2), "ssd": Member("boolean")}


@pytest.mark.parametrize("text", ["a", "file=a,size=2", "ssd=on,a", "volume=x"])
def test_accepted(text: str) -> None:
    check_members(text, KNOWN, "file", {"volume": "file"})


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("a,b", "duplicate key in comma-separated list property: file"),
        ("a,ssd=1,ssd=1", "duplicate key in comma-separated list property: ssd"),
        ("a,x=1", "invalid key in comma-separated list property: x"),
        ("a,=1", "missing key in comma-separated list property"),
        ("size=1", "format error\nfile: property is missing and it is not optional\nsize: value must have a minimum"),
        ("a,ssd=x,size=x", "format error\nsize: type check ('integer') failed - got 'x'\nssd: type check ('boolean')"),
    ],
)
def test_refused(text: str, refusal: str) -> None:
    with pytest.raises(FormatError) as caught:
        check_members(text, KNOWN, "file")
    assert str(caught.value).startswith(refusal)


def test_a_parameter_names_the_whole_path() -> None:
    with pytest.raises(FormatError) as caught:
        check_members("a,ssd=x", KNOWN, "file")
    wanted = "invalid format - format error\nscsi0.ssd: type check ('boolean') failed - got 'x'\n"
    assert caught.value.of_parameter("scsi0") == wanted
