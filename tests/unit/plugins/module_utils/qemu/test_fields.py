# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checked fields: the value passes or the error names field and value."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import fields
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpInvalid


@pytest.mark.parametrize("value", [0, 1, 2**63])
def test_number_passes(value):
    assert fields.number({"len": value}, "len") == value


@pytest.mark.parametrize("value", [-1, 1.5, "1", None, True])
def test_number_names_what_it_refuses(value):
    with pytest.raises(QmpInvalid, match="unexpected len") as caught:
        fields.number({"len": value}, "len")
    assert caught.value.facts == {"field": "len"}


def test_absent_numbers():
    assert fields.number({}, "len") == 0
    assert fields.optional_number({}, "downtime") is None


def test_text_has_a_default_only_when_given_one():
    assert fields.text({}, "status", "none") == "none"
    with pytest.raises(QmpInvalid):
        fields.text({}, "status")


def test_words_of_qemu_are_cut():
    assert len(fields.optional_text({"error": "x" * 9999}, "error") or "") == 500
    assert fields.optional_text({}, "error") is None


@pytest.mark.parametrize("check", [fields.mapping, fields.sequence])
def test_shape_is_checked(check):
    with pytest.raises(QmpInvalid, match="unexpected ram"):
        check("ram", 1)
