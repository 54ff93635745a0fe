# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in a certificate: against what the library `cryptography` reads, and against anything else."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.fakes.certificates import CLIENT, NOW, SERVER, Authority, new_key, pem

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.certificate import (
    Certificate,
    RevocationList,
    certificates_of,
    leaf_problems,
    lists_of,
    to_pem,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import CertificateUnreadable

AUTHORITY = Authority()
LEAF = AUTHORITY.issue("node-a", ips=["192.0.2.1", "2001:db8::1"])


def read(issued):
    return Certificate.parse(issued.der, Side.SOURCE)


def test_name_that_no_node_can_have_is_told_beside_the_right_one():
    """OpenSSL takes such a certificate, so it can be read."""
    damaged = LEAF.der.replace(b"\x82\x06node-a", b"\x82\x06n\xc3\xb6dex")
    assert Certificate.parse(damaged, Side.SOURCE).dns_names == ("n\\xc3\\xb6dex",)


def test_fields_of_a_leaf():
    found, library = read(LEAF), LEAF.certificate
    assert found.serial == library.serial_number
    assert found.subject == (("CN", "node-a"),)
    assert found.issuer == (("CN", "trust domain"),)
    assert found.common_name == "node-a"
    assert found.not_before == int(library.not_valid_before_utc.timestamp())
    assert found.not_after == int(library.not_valid_after_utc.timestamp())
    assert found.not_before < NOW.timestamp() < found.not_after
    assert (found.key.kind, found.key.detail) == ("EC", "P-256")
    assert found.dns_names == ("node-a",)
    assert found.addresses == ("192.0.2.1", "2001:db8::1")
    assert found.usages == {"digitalSignature", "keyEncipherment"}
    assert found.purposes == {"serverAuth", "clientAuth"}
    assert not found.is_ca
    assert found.fingerprint == library.fingerprint(library.signature_hash_algorithm).hex()


def test_key_is_the_whole_public_key_as_openssl_writes_it():
    from cryptography.hazmat.primitives import serialization

    der = LEAF.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert read(LEAF).key.der == der


def test_fields_of_a_ca():
    found = certificates_of(AUTHORITY.pem, Side.SOURCE)[0]
    assert found.is_ca
    assert found.usages == {"keyCertSign", "cRLSign"}
    assert found.dns_names == ()


@pytest.mark.parametrize(("bits", "strong"), [("1024", False), ("2048", True)])
def test_rsa_has_a_length(bits, strong):
    key = read(AUTHORITY.issue(key=new_key(bits))).key
    assert (key.kind, key.detail, key.strong) == ("RSA", bits, strong)


def test_several_certificates_in_one_text_keep_their_order():
    other = Authority("second")
    found = certificates_of(f"junk\n{other.pem}\nmore\n{AUTHORITY.pem}", Side.SOURCE)
    assert [each.common_name for each in found] == ["second", "trust domain"]


@pytest.mark.parametrize("text", ["", "nothing", AUTHORITY.crl(), pem(AUTHORITY.certificate)[:200]])
def test_text_without_a_certificate_is_refused(text):
    with pytest.raises(CertificateUnreadable):
        certificates_of(text, Side.SOURCE, "ca-cert.pem")


def test_right_leaf_has_no_problem():
    assert leaf_problems(read(LEAF), "node-a", ["192.0.2.1", "2001:0db8:0::1"]) == []


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"key": new_key("1024")}, "too weak: RSA 1024"),
        ({"ca": True}, "it is a CA"),
        ({"constraints": False}, "no critical basicConstraints"),
        ({"critical": False}, "no critical basicConstraints"),
        ({"usages": ["digital_signature"]}, "keyEncipherment"),
        ({"usages": []}, "keyUsage"),
        ({"purposes": [SERVER]}, "extendedKeyUsage"),
        ({"purposes": [CLIENT]}, "extendedKeyUsage"),
        ({"purposes": []}, "extendedKeyUsage"),
        ({"name": "node-b"}, "subject is not CN=node-a"),
        ({"dns": ["node-b"]}, "subjectAltName lacks DNS:node-a"),
        ({"dns": [], "ips": []}, "subjectAltName lacks DNS:node-a"),
        ({"ips": ["192.0.2.9"]}, "subjectAltName lacks IP:192.0.2.1"),
        ({"authority": False}, "authorityKeyIdentifier"),
    ],
)
def test_each_field_that_is_missing_is_named(mistake, words):
    problems = leaf_problems(read(AUTHORITY.issue(**mistake)), "node-a", ["192.0.2.1"])
    assert any(words in text for text in problems), problems


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_refused(data):
    with pytest.raises(CertificateUnreadable):
        Certificate.parse(data, Side.TARGET)


@settings(max_examples=300)
@given(st.integers(0, len(LEAF.der) - 1), st.integers(1, 255))
@example(0, 1)
def test_certificate_with_one_octet_changed_is_read_or_refused(at, change):
    broken = bytearray(LEAF.der)
    broken[at] ^= change
    try:
        assert isinstance(Certificate.parse(bytes(broken), Side.TARGET), Certificate)
    except CertificateUnreadable:
        pass


@given(st.integers(0, len(LEAF.der) - 1))
def test_cut_certificate_is_refused(length):
    with pytest.raises(CertificateUnreadable):
        Certificate.parse(LEAF.der[:length], Side.TARGET)


def test_fields_of_a_revocation_list():
    (found,) = lists_of(AUTHORITY.crl(LEAF), Side.SOURCE)
    assert found.issuer == (("CN", "trust domain"),)
    assert found.this_update < NOW.timestamp() < found.next_update
    assert found.serials == {LEAF.certificate.serial_number}
    (empty,) = lists_of(AUTHORITY.crl(), Side.SOURCE)
    assert empty.serials == frozenset()


def test_issuer_is_known_by_name_and_key():
    ca = certificates_of(AUTHORITY.pem, Side.SOURCE)[0]
    namesake = certificates_of(Authority().pem, Side.SOURCE)[0]
    assert read(LEAF).names_issuer(ca)
    assert not read(LEAF).names_issuer(namesake)


def test_text_is_written_as_it_was_read():
    assert to_pem(certificates_of(f"x{AUTHORITY.pem}y{LEAF.pem}", Side.SOURCE)) == AUTHORITY.pem + LEAF.pem
    crl = AUTHORITY.crl(LEAF)
    assert to_pem(lists_of(crl, Side.SOURCE)) == crl


@given(st.binary(max_size=300))
def test_no_bytes_are_a_revocation_list(data):
    with pytest.raises(CertificateUnreadable):
        RevocationList.parse(data, Side.TARGET)


@pytest.mark.parametrize("text", ["", AUTHORITY.pem, "-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----"])
def test_text_without_a_revocation_list_is_refused(text):
    with pytest.raises(CertificateUnreadable):
        lists_of(text, Side.SOURCE)
