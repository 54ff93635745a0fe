# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's words, as 7.2.22 and 10.0.13 say them, become one sentence with side, certificate and remedy."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import tls_words

LOADING = [
    ("The server certificate /p/server-cert.pem has expired", "server-cert.pem", "expired"),
    ("The CA certificate /p/ca-cert.pem has expired", "ca-cert.pem", "expired"),
    ("The server certificate /p/server-cert.pem is not yet active", "server-cert.pem", "not_yet_valid"),
    (
        "The certificate /p/server-cert.pem basic constraints show a CA, but we need one for a server",
        "server-cert.pem",
        "is_ca",
    ),
    ("Certificate /p/server-cert.pem usage does not permit digital signature", "server-cert.pem", "wrong_purpose"),
    (
        "Unable to access credentials /p/server-cert.pem: No such file or directory",
        "server-cert.pem",
        "missing",
    ),
    (
        "Cannot load certificate '/p/server-cert.pem' & key '/p/server-key.pem': "
        "The certificate and the given key do not match.",
        "server-cert.pem",
        "key_mismatch",
    ),
    (
        "Our own certificate /p/server-cert.pem failed validation against /p/ca-cert.pem: "
        "The certificate hasn't got a known issuer",
        "server-cert.pem",
        "foreign_ca",
    ),
    ("Unable to import CA certificate list /p/ca-cert.pem", "ca-cert.pem", "unreadable"),
    ("TLS credentials support requires GNUTLS", "", "unsupported"),
    ("Something new", "", "unknown"),
]


@pytest.mark.parametrize(("words", "file", "cause"), LOADING, ids=[f"{case[2]} {case[1]}" for case in LOADING])
def test_refused_credentials(words, file, cause):
    error = tls_words.credentials_refused(words, Side.TARGET, "/p")
    assert (error.code, error.side, error.facts["cause"]) == ("QEMU_TLS_FAILED", Side.TARGET, cause)
    assert error.object == (f"/p/{file}" if file else "/p")
    assert error.message.startswith(f"QEMU of the target cannot use {error.object}: ")
    assert error.remedy


HANDSHAKE = [
    ("The certificate hasn't got a known issuer", "foreign_ca"),
    ("Certificate does not match the hostname b1", "wrong_name"),
    ("The certificate is not trusted", "expired"),
    ("The certificate has expired", "expired"),
    ("The certificate is not yet activated", "not_yet_valid"),
    ("The certificate has been revoked", "revoked"),
]


@pytest.mark.parametrize(("words", "cause"), HANDSHAKE)
def test_refused_peer(words, cause):
    error = tls_words.handshake_refused(words, "b1")
    assert (error.side, error.object, error.facts["cause"]) == (Side.TARGET, "server-cert.pem of b1", cause)
    assert error.message.startswith("QEMU of the source refuses server-cert.pem of b1: ")


@pytest.mark.parametrize(
    "words",
    [
        "Cannot write to TLS channel: Input/output error",
        "ram_save_setup failed: Input/output error",
        "Failed to read option reply: Unable to read from socket: Connection reset by peer",
        "TLS handshake failed: The TLS connection was non-properly terminated.",
        "",
    ],
)
def test_end_of_a_connection_says_nothing_about_the_peer(words):
    assert tls_words.handshake_refused(words, "b1") is None


def test_refusal_by_the_other_side_names_what_was_shown():
    error = tls_words.handshake_ended("Input/output error", "a1")
    assert (error.side, error.object) == (Side.SOURCE, "client-cert.pem of a1")
    assert "CN=a1" in error.remedy


def test_silence_is_no_certificate():
    error = tls_words.clear_text("Broken pipe")
    assert (error.side, error.object, error.facts) == (
        Side.SOURCE,
        "QEMU",
        {"cause": "clear_text", "words": "Broken pipe"},
    )
    error = tls_words.handshake_silent("x" * 1000, "b1")
    assert (error.side, error.facts["cause"], len(error.facts["words"])) == (Side.TARGET, "silent", 300)
