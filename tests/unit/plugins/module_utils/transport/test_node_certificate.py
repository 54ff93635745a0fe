# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's certificate through its life: asked for, installed, renewed, re-issued, revoked, removed."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from unit.fakes.certificates import CLIENT, DAY, NOW, Authority, new_key

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import errors
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.credential_store import CredentialStore
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.dh_parameters import DH_PARAMETERS
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.node_certificate import (
    NodeCertificate,
    Wanted,
)

HOUR = datetime.timedelta(hours=1)
HOURS = 3600.0
CA, OTHER = Authority("trust domain 1"), Authority("trust domain 2")
ADDRESSES = ("192.0.2.1",)


class Node:
    """A node and a CA that signs whatever it asks for, with the mistakes that are given."""

    def __init__(self, base):
        self.store = CredentialStore(str(base / "pki"), "prod")
        self.wanted = Wanted.parse("node-a", ADDRESSES)

    @property
    def certificate(self):
        return NodeCertificate(self.store, self.wanted, NOW.timestamp())

    def request(self, signer=CA.pem, renew_before=8 * HOURS, check_mode=False):
        return self.certificate.request(signer, renew_before, check_mode)

    def install(self, certificate="", ca="", crl="", check_mode=False):
        return self.certificate.install(certificate, ca, crl, check_mode)

    def sign(self, csr, signer=CA, **mistakes):
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        return signer.issue(**{"key": Public(key), "ips": ADDRESSES, **mistakes})

    def issue(self, authority=CA, ca=None, crl="", **mistakes):
        """Asked for, signed and installed."""
        issued = self.sign(self.request(signer=authority.pem)["csr"], authority, **mistakes)
        return self.install(issued.pem, ca or authority.pem, crl)


class Public:
    """The public half of a key whose private half is not here."""

    def __init__(self, key):
        self._key = key

    def public_key(self):
        return self._key

    def private_bytes(self, *_how):
        return b""


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def snapshot(directory):
    return {str(path): path.lstat().st_mtime_ns for path in directory.rglob("*")} if directory.exists() else {}


def test_first_certificate_and_a_second_run_that_changes_nothing(node):
    asked = node.request()
    assert (asked["changed"], asked["renewal"], asked["installed"]) == (True, "missing", False)
    again = node.request()
    assert (again["changed"], again["csr"]) == (False, asked["csr"])
    issued = node.sign(asked["csr"])
    done = node.install(issued.pem, CA.pem, CA.crl())
    assert done["changed"] is True
    assert done["names"] == ["node-a"]
    assert done["addresses"] == ["192.0.2.1"]
    assert done["issuer"] == "CN=trust domain 1"
    assert done["expires_first"] in ("certificate", "revocation list")
    assert 23 * HOURS < done["remaining_s"] <= 24 * HOURS
    before = snapshot(node.store.directory)
    assert node.request()["changed"] is False
    assert node.request()["csr"] == ""
    assert node.install(issued.pem, CA.pem, "")["changed"] is False
    assert node.certificate.check(4 * HOURS)["changed"] is False
    assert snapshot(node.store.directory) == before


@pytest.mark.parametrize("found", [None, "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"])
def test_group_for_qemu_comes_with_the_certificate_and_goes_with_it(node, found):
    """One of before the collection brought it, or somebody else's: a change, and no other certificate."""
    node.install("", CA.pem, CA.crl())
    path = node.store.directory / "dh-params.pem"
    assert not path.exists()
    first = node.issue()
    assert (path.read_text(), path.stat().st_mode & 0o777) == (DH_PARAMETERS, 0o600)
    (node.store.directory / "current" / "dh-params.pem").unlink()
    if found is not None:
        (node.store.directory / "current" / "dh-params.pem").write_text(found)
    for check_mode in (True, False):
        again = node.install("", CA.pem, "", check_mode=check_mode)
        assert (again["changed"], again["fingerprint"]) == (True, first["fingerprint"])
        assert again["diff"]["after"]["dh_parameters"]
    assert path.read_text() == DH_PARAMETERS
    assert node.install("", CA.pem, "")["changed"] is False
    node.certificate.remove(check_mode=False)
    assert not node.store.directory.exists()


def test_difference_shows_both_certificates_and_no_key(node):
    node.issue()
    issued = CA.issue(ips=ADDRESSES)
    shown = node.install("", CA.pem + OTHER.pem, CA.crl(issued), check_mode=True)["diff"]
    assert len(shown["before"]["authorities"]) == 1
    assert len(shown["after"]["authorities"]) == 2
    assert shown["before"]["revoked"] is None
    assert shown["after"]["revoked"] == [f"{issued.certificate.serial_number:x}"]
    assert "KEY" not in str(shown)


def test_check_mode_writes_nothing(node):
    assert node.request(check_mode=True)["changed"] is True
    assert node.install("", CA.pem, "", check_mode=True)["changed"] is True
    assert not node.store.directory.exists()
    node.issue()
    before = snapshot(node.store.directory)
    assert node.request(renew_before=48 * HOURS, check_mode=True)["changed"] is True
    assert node.install("", CA.pem + OTHER.pem, "", check_mode=True)["changed"] is True
    assert node.certificate.remove(check_mode=True)["changed"] is True
    assert snapshot(node.store.directory) == before


@pytest.mark.parametrize(
    ("reason", "issued", "asked"),
    [
        ("expires", {"ends": 7 * HOUR}, {}),
        ("expired", {"starts": -DAY, "ends": -HOUR}, {}),
        ("issuer", {}, {"signer": OTHER.pem}),
    ],
)
def test_another_certificate_is_asked_for(reason, issued, asked, node):
    node.issue()
    if issued:
        request = node.request(renew_before=48 * HOURS)["csr"]
        signed = node.sign(request, **({"ends": 7 * HOUR} | issued))
        if reason == "expired":  # nobody installs one that has expired; time has passed since
            place = node.store.prepare({"ca-cert.pem": CA.pem, "server-cert.pem": signed.pem}, "requested")
            node.store.switch(place, request_used=True)
        else:
            node.install(signed.pem)
    found = node.request(**asked)
    assert found["renewal"] == reason
    assert found["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")


def test_another_name_or_address_asks_for_another_certificate(node):
    node.issue()
    node.wanted = Wanted.parse("node-a", ["192.0.2.1", "192.0.2.2"])
    assert node.request()["renewal"] == "fields"
    node.wanted = Wanted.parse("node-b", ADDRESSES)
    assert node.request()["renewal"] == "wrong_name"


def test_renewal_makes_a_new_key_and_the_old_works_until_then(node):
    node.issue()
    old = node.store.public_key("current")
    request = node.request(renew_before=48 * HOURS)
    assert node.store.public_key("current") == old
    assert node.certificate.check(1 * HOURS)["installed"]
    node.install(node.sign(request["csr"], ends=2 * DAY).pem)
    assert node.store.public_key("current") != old


@pytest.mark.parametrize(
    ("mistake", "cause"),
    [
        ({"key": new_key()}, "key_mismatch"),
        ({"name": "node-b"}, "malformed"),
        ({"dns": ["node-b"]}, "malformed"),
        ({"ips": []}, "malformed"),
        ({"ca": True}, "malformed"),
        ({"constraints": False}, "malformed"),
        ({"critical": False}, "malformed"),
        ({"usages": ["digital_signature"]}, "malformed"),
        ({"purposes": [CLIENT]}, "malformed"),
        ({"authority": False}, "malformed"),
        ({"starts": HOUR}, "not_yet_valid"),
        ({"starts": -DAY, "ends": -HOUR}, "expired"),
        ({"signer": OTHER}, "foreign_ca"),
    ],
)
def test_certificate_that_others_would_refuse_is_not_installed(mistake, cause, node):
    node.issue()
    before = node.certificate.facts()
    asked = node.request(renew_before=48 * HOURS)["csr"]
    mistake = dict(mistake)
    issued = node.sign(asked, mistake.pop("signer", CA), **mistake)
    with pytest.raises(errors.CredentialsUnusable) as caught:
        node.install(issued.pem)
    assert caught.value.facts["cause"] == cause
    assert node.certificate.facts() == before
    assert not list(node.store.directory.glob("set-2"))


def test_new_ca_takes_over_from_the_old_one_with_overlap(node):
    both = CA.pem + OTHER.pem
    lists = CA.crl() + OTHER.crl()
    node.issue(crl=CA.crl())
    assert node.install("", both, lists)["changed"] is True
    assert node.install("", both, lists)["changed"] is False
    assert node.request(signer=CA.pem)["renewal"] == ""
    with pytest.raises(errors.CredentialsUnusable) as caught:  # too early
        node.install("", OTHER.pem, OTHER.crl())
    assert caught.value.facts["cause"] == "foreign_ca"
    asked = node.request(signer=OTHER.pem)
    assert asked["renewal"] == "issuer"
    node.install(node.sign(asked["csr"], OTHER).pem, both, lists)
    assert node.install("", OTHER.pem, OTHER.crl())["authorities"] == node.certificate.facts()["authorities"]
    assert node.certificate.check(1 * HOURS)["issuer"] == "CN=trust domain 2"


def test_revoked_node_learns_it_and_gets_no_other_certificate(node):
    issued = node.sign(node.request()["csr"])
    node.install(issued.pem, CA.pem, CA.crl())
    assert node.install("", "", CA.crl(issued))["changed"] is True
    for refused in (node.request, lambda: node.certificate.check(0)):
        with pytest.raises(errors.CredentialsUnusable) as caught:
            refused()
        assert caught.value.facts["cause"] == "revoked"
    assert "absent" in caught.value.remedy
    node.certificate.remove(check_mode=False)
    assert node.request()["renewal"] == "missing"


def test_stale_list_is_renewed_and_stops_the_gate(node):
    node.issue(crl=CA.crl(ends=2 * HOUR))
    assert node.certificate.check(1 * HOURS)["expires_first"] == "revocation list"
    with pytest.raises(errors.CredentialsUnusable) as caught:
        node.certificate.check(4 * HOURS)
    assert caught.value.facts["cause"] == "expires_soon"
    assert "revocation list" in caught.value.message
    node.install("", "", CA.crl(starts=-DAY, ends=-HOUR))  # learnt late; nobody is let in any more
    with pytest.raises(errors.CredentialsUnusable) as caught:
        node.certificate.check(0)
    assert caught.value.facts["cause"] == "crl_expired"
    assert node.install("", "", CA.crl())["changed"] is True
    assert node.certificate.check(4 * HOURS)["installed"]


def test_gate_is_closed_without_a_certificate_and_before_its_end(node):
    with pytest.raises(errors.CredentialsUnusable) as caught:
        node.certificate.check(0)
    assert caught.value.facts["cause"] == "missing"
    node.issue(ends=3 * HOUR)
    assert node.certificate.check(2 * HOURS)["installed"]
    with pytest.raises(errors.CredentialsUnusable):
        node.certificate.check(4 * HOURS)


def test_key_that_others_can_read_stops_the_gate_until_it_is_closed(node):
    node.issue()
    (node.store.directory / "server-key.pem").chmod(0o644)
    with pytest.raises(errors.CredentialsUnusable) as caught:
        node.certificate.check(0)
    assert caught.value.facts["cause"] == "exposed"
    assert node.install("", "", "", check_mode=True)["changed"] is True
    assert node.install("", "", "")["changed"] is True
    assert node.install("", "", "")["changed"] is False
    assert node.certificate.check(0)["installed"]


@pytest.mark.parametrize("name", ["server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem"])
@pytest.mark.parametrize(
    "garbage", [b"", b"nothing", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_file_that_was_damaged_is_replaced(name, garbage, node):
    node.install("", CA.pem, CA.crl())
    node.issue()
    (node.store.directory / "current" / name).write_bytes(garbage)
    with pytest.raises(errors.TransportError):
        node.certificate.check(1 * HOURS)
    # As the role does it: first the CA, then a certificate if one is needed.
    node.install("", CA.pem, CA.crl())
    if node.request()["renewal"]:
        node.issue()
    assert node.certificate.check(1 * HOURS)["installed"]


def test_links_that_a_crash_left_out_are_made(node):
    node.issue()
    (node.store.directory / "client-key.pem").unlink()
    assert node.install("", "", "")["changed"] is True
    assert node.certificate.check(0)["installed"]


def test_what_is_around_a_certificate_is_not_kept(node):
    issued = node.sign(node.request()["csr"])
    node.install(f"a comment\n{issued.pem}\nmore", f"{CA.pem}{CA.issue().key_pem}", "")
    assert node.store.text("server-cert.pem") == issued.pem
    assert "PRIVATE" not in node.store.text("ca-cert.pem")


def test_removal_is_idempotent(node):
    assert node.certificate.remove(check_mode=False)["changed"] is False
    node.issue()
    assert node.certificate.remove(check_mode=False)["changed"] is True
    assert node.certificate.remove(check_mode=False)["changed"] is False


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("", []),
        ("a\nb", []),
        ("a,DNS:b", []),
        ("192.0.2.1", []),
        ("a" * 65, []),
        ("a", ["b"]),
        ("a", ["192.0.2.1,DNS:b"]),
    ],
)
def test_name_and_addresses_that_cannot_be_right_are_refused(name, addresses):
    with pytest.raises(errors.CredentialsUnusable):
        Wanted.parse(name, addresses)
