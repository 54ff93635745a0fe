# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoint: what it accepts, what it sends, whom it trusts."""

from __future__ import annotations

import ssl

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import fingerprint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    EndpointInvalid,
    FingerprintMismatch,
)

PIN = fingerprint.show(fingerprint.of(b"certificate"))


def endpoint(**changes):
    values = {"host": "b1.example", "port": 8006, "node": "b1", "user": "mig@pve", "token_id": "t1", **changes}
    return Endpoint(**values)


def test_authorization_is_the_whole_header_value():
    assert endpoint().authorization("1234-abcd") == "PVEAPIToken=mig@pve!t1=1234-abcd"


def test_authorization_percent_encodes_what_the_server_decodes():
    assert endpoint().authorization("a%b").endswith("=a%25b")


@pytest.mark.parametrize(
    "secret", ["", "a b", "a\r\nX: y", "ü", "x" * 513], ids=["empty", "space", "crlf", "ü", "long"]
)
def test_authorization_refuses_secret_without_showing_it(secret):
    with pytest.raises(EndpointInvalid) as caught:
        endpoint().authorization(secret)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"host": ""}, {"host": "a b"}, {"host": "a/b"}, {"host": "-"}, {"port": 0}, {"port": 65536}, {"port": "8006"},
     {"node": "a_b"}, {"node": "../x"}, {"node": ""}, {"user": "root"}, {"user": "a b@pam"}, {"user": "a@pam!t"},
     {"host": "[b1]"}, {"host": "[::1"}, {"host": "a:b"}, {"user": "a=b@pam"}, {"user": "ü@pam"}, {"user": "x@"},
     {"token_id": "user@pam!t"}, {"token_id": ""}, {"fingerprint": "AA"}, {"node": "b1\n"}],
    ids=str,
)  # fmt: skip
def test_endpoint_refuses(changes):
    with pytest.raises(EndpointInvalid):
        endpoint(**changes)


@pytest.mark.parametrize("host", ["192.0.2.2", "2001:db8::2", "b1", "b1.example"])
def test_endpoint_takes_host(host):
    assert endpoint(host=host).server_hostname == host


@pytest.mark.parametrize("host", ["::1", "[::1]", "[2001:db8::2]", "fe80::1%eth0"])
def test_address_is_taken_with_and_without_brackets(host):
    assert endpoint(host=host).host == host.strip("[]")


@pytest.mark.parametrize("user", ["joe@example.com@keycloak", "a+b@pve", "j.d'oe@ad-1"])
def test_user_ends_at_the_last_at_sign(user):
    assert endpoint(user=user).token_name == f"{user}!t1"


def test_pinned_endpoint_checks_the_fingerprint_only():
    pinned = endpoint(fingerprint=PIN)
    assert pinned.fingerprint == fingerprint.normalise(PIN)
    assert pinned.tls_context().verify_mode == ssl.CERT_NONE
    pinned.check_certificate(b"certificate")


def test_mismatch_shows_both_fingerprints():
    with pytest.raises(FingerprintMismatch) as caught:
        endpoint(fingerprint=PIN).check_certificate(b"other")
    assert PIN in caught.value.message
    assert fingerprint.show(fingerprint.of(b"other")) in caught.value.message


def test_unpinned_endpoint_checks_chain_and_host_name():
    context = endpoint().tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    endpoint().check_certificate(b"anything")


def test_endpoint_without_validation_checks_nothing():
    assert endpoint(validate_certs=False).tls_context().verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize("changes", [{}, {"fingerprint": PIN}, {"validate_certs": False}], ids=str)
def test_context_ignores_the_missing_close_notify(changes):
    assert endpoint(**changes).tls_context().options & (1 << 7)


def test_ca_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    for name in (str(path), str(tmp_path / "absent")):
        with pytest.raises(EndpointInvalid):
            endpoint(ca_path=name).tls_context()
