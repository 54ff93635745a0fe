# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints in every spelling."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import fingerprint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import EndpointInvalid

DIGITS = hashlib.sha256(b"certificate").hexdigest()


def test_of_is_the_sha256_of_the_certificate():
    assert fingerprint.of(b"certificate") == DIGITS


@given(st.binary(min_size=32, max_size=32), st.sampled_from([":", "", " ", "-"]), st.booleans())
def test_normalise_takes_any_spelling(raw, separator, upper):
    text = separator.join(f"{byte:02x}" for byte in raw)
    assert fingerprint.normalise(text.upper() if upper else text) == raw.hex()


@pytest.mark.parametrize(
    "prefix", ["SHA256:", "sha-256: ", "SHA256 Fingerprint=", "sha256 fingerprint: ", "  "], ids=str
)
def test_normalise_takes_prefix(prefix):
    assert fingerprint.normalise(prefix + fingerprint.show(DIGITS) + "\n") == DIGITS


@given(st.binary(min_size=32, max_size=32))
def test_show_and_normalise_agree(raw):
    assert fingerprint.normalise(fingerprint.show(raw.hex())) == raw.hex()
    assert fingerprint.show(raw.hex()).count(":") == 31


@pytest.mark.parametrize(
    "text",
    ["", "AA:BB", DIGITS[:-1], DIGITS + "0", DIGITS[:-1] + "g",
     "SHA1:" + DIGITS[:40], "٣" * 64, DIGITS.replace("a", "á")],
    ids=["empty", "short", "63", "65", "letter", "sha1", "arabic", "accent"],
)  # fmt: skip
def test_normalise_refuses(text):
    with pytest.raises(EndpointInvalid):
        fingerprint.normalise(text)
