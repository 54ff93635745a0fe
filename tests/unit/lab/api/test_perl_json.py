# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's parser: values, refusals and where they are (texts of JSON::XS 4.04, all run through it)."""

from __future__ import annotations

import pytest

from lab.api.perl_json import Malformed, decode, hash_of, scalar, type_name

VALUE = "malformed JSON string, neither tag, array, object, number, string or atom"


@pytest.mark.parametrize(
    ("line", "text", "offset", "before"),
    [
        (b"this is not json", "'true' expected", 0, "this is not json"),
        (b"", VALUE, 0, "(end of string)"),
        (b" \t", VALUE, 2, "(end of string)"),
        (b"nosuch", "'null' expected", 0, "nosuch"),
        (b'{"cmd":"version"', ", or } expected while parsing object/hash", 16, "(end of string)"),
        (b'{"cmd":}', VALUE, 7, "}"),
        (b"{cmd:1}", "'\"' expected", 1, "cmd:1}"),
        (b'{"cmd":"version",}', "'\"' expected", 17, "}"),
        (b'{"cmd":"version"} x', "garbage after JSON object", 18, "x"),
        (b'{"cmd" "x"}', "':' expected", 7, '"x"}'),
        (b'{"cmd":"ver', "unexpected end of string while parsing JSON string", 11, "(end of string)"),
        (b'{"a":"\\q"}', "illegal backslash escape sequence in string", 6, '\\\\q"}'),
        (b'{"a":"\t"}', "invalid character encountered while parsing JSON string", 6, '\\t"}'),
        (b'{"a":"\\u12"}', "exactly four hexadecimal digits expected", 8, '12"}'),
        (b'{"a":"\\ud800"}', "missing low surrogate character in surrogate pair", 12, '"}'),
        (b'{"a":"\xff"}', "malformed UTF-8 character in JSON string", 6, "\\x{fffd}"),
        (b'{"a":"\xc3\xbc" oh}', ", or } expected while parsing object/hash", 10, "oh}"),
        (b'{"a":01}', "malformed number (leading zero must not be followed by another digit)", 6, "1}"),
        (b'{"a":1.}', "malformed number (no digits after decimal point)", 7, "}"),
        (b"[1,,2]", VALUE, 3, ",2]"),
        (b"[1 2]", ", or ] expected while parsing array", 3, "2]"),
        (b"x" * 21, VALUE, 0, "x" * 20 + "..."),
        (b"\xc3\xbc" * 9, VALUE, 0, "\\x{fc}" * 4 + "..."),
    ],
)
def test_refusals(line: bytes, text: str, offset: int, before: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(line)
    joint = "" if text.endswith(",") else ","
    assert str(caught.value) == f'{text}{joint} at character offset {offset} (before "{before}")'


def test_values() -> None:
    line = b'{"a":[1,-0,2.5,1e3,true,null,"\\ud83d\\ude00\\n"],"b":{"\xc3\xbc":123456789012345678901},"b":7}\r'
    assert decode(line) == {"a": [1, 0, 2.5, 1000, True, None, "\U0001f600\n"], "b": 7}
    assert isinstance(decode(b"1e3"), int)
    assert decode(b"123456789012345678901") == "123456789012345678901"


def test_a_value_in_a_text_and_as_a_hash() -> None:
    assert [scalar(value) for value in (True, False, 1, 1.5, "x")] == ["1", "0", "1", "1.5", "x"]
    assert [type_name(value) for value in ({}, [], True, 1)] == ["HASH", "ARRAY", "JSON::PP::Boolean", ""]
    assert scalar({}).startswith("HASH(0x")
    with pytest.raises(
        ValueError, match=r'^Can\'t use string \("y{32}"\.\.\.\) as a HASH ref while "strict refs" in use'
    ):
        hash_of("y" * 40, " at x line 1.")
