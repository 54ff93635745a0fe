# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a trust domain on a node: what they are called, who may read them, and that they change all at once."""

from __future__ import annotations

import base64
import itertools
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from unit.fakes.certificates import Authority

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.node_cli import Completed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import credential_store
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.credential_store import (
    NAMES,
    CredentialStore,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import StoreFailed

ADDRESSES = ("192.0.2.1", "2001:db8::1")
AUTHORITY = Authority()


@pytest.fixture
def store(tmp_path):
    return CredentialStore(str(tmp_path / "pki"), "prod")


def modes(directory):
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in directory.rglob("*")
        if not path.is_symlink()
    }


def install(store, ca=AUTHORITY.pem, certificate="the certificate\n"):
    with store.locked():
        if not store.requested("node-a", ADDRESSES):
            store.request("node-a", ADDRESSES)
        place = store.prepare({"ca-cert.pem": ca, "server-cert.pem": certificate}, "requested")
        store.switch(place, request_used=True)


def test_request_has_the_fields_and_the_key_stays_with_its_owner(store):
    with store.locked():
        text = store.request("node-a", ADDRESSES)
    request = x509.load_pem_x509_csr(text.encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=node-a"
    fields = {each.oid._name: each for each in request.extensions}
    assert (fields["basicConstraints"].value.ca, fields["basicConstraints"].critical) == (False, True)
    assert fields["keyUsage"].critical
    assert fields["keyUsage"].value.digital_signature
    assert fields["keyUsage"].value.key_encipherment
    assert len(fields["extendedKeyUsage"].value) == 2
    names = fields["subjectAltName"].value
    assert names.get_values_for_type(x509.DNSName) == ["node-a"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == list(ADDRESSES)
    assert set(fields) == {"basicConstraints", "keyUsage", "extendedKeyUsage", "subjectAltName"}
    assert set(modes(store.directory).values()) == {0o600, 0o700}
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    assert store.public_key("requested") == request.public_key().public_bytes(*der)
    assert request.public_key().curve.name == "secp256r1"
    assert store.public_key("current") == b""


def test_request_waits_for_those_it_was_made_for(store):
    with store.locked():
        text = store.request("node-a", ADDRESSES)
    assert store.requested("node-a", ADDRESSES) == text
    assert store.requested("node-a", ADDRESSES[:1]) == ""
    assert store.requested("node-b", ADDRESSES) == ""


def test_names_are_those_that_qemu_wants_and_belong_together(store):
    install(store)
    found = {name: (store.directory / name).read_text() for name in NAMES if (store.directory / name).exists()}
    assert set(found) == set(NAMES) - {"ca-crl.pem", "dh-params.pem"}
    assert found["client-cert.pem"] == found["server-cert.pem"] == "the certificate\n"
    assert found["client-key.pem"] == found["server-key.pem"]
    assert store.requested("node-a", ADDRESSES) == ""
    assert store.faults() == []


def test_next_set_takes_the_place_of_the_last_with_the_list_or_without(store):
    install(store)
    first = store.public_key("current")
    with store.locked():
        texts = {"ca-cert.pem": "CA", "server-cert.pem": "same", "ca-crl.pem": "list"}
        store.switch(store.prepare(texts, "current"), request_used=False)
    assert store.public_key("current") == first
    assert store.text("ca-crl.pem") == "list"
    with store.locked():
        store.switch(store.prepare({"ca-cert.pem": "CA"}, ""), request_used=False)
    assert sorted(path.name for path in store.directory.iterdir()) == ["ca-cert.pem", "current", "set-3"]


class FakeOpenssl:
    """Keys are numbers."""

    def __init__(self):
        self.keys = 0

    def __call__(self, argv, seconds):
        if argv[1] == "genpkey":
            self.keys += 1
            return Completed(0, f"key {self.keys}", "")
        if argv[1] == "pkey":
            body = base64.b64encode(Path(argv[3]).read_bytes()).decode()
            return Completed(0, f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n", "")
        return Completed(0, "request", "")


def test_crash_at_any_moment_leaves_key_and_certificate_that_belong_together(tmp_path, monkeypatch):
    """Every change of the file system in turn is the last one before the crash."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it takes time, and nothing is lost with a process
    store = CredentialStore(str(tmp_path), "prod", run=FakeOpenssl())
    install(store, certificate="first")
    keys = {"first": store.public_key("current")}

    class Crash(BaseException):
        pass

    for last in range(200):
        left = itertools.count(last, -1)

        def counted(real, number=left.__next__):
            def call(*args, **kwargs):
                if number() == 0:
                    raise Crash
                return real(*args, **kwargs)

            return call

        name = f"attempt {last}"
        with monkeypatch.context() as patched:
            for function in ("open", "symlink", "replace", "mkdir", "unlink", "rmdir"):
                patched.setattr(os, function, counted(getattr(os, function)))
            try:
                with store.locked():
                    store.request("node-a", ADDRESSES)
                    keys[name] = store.public_key("requested")
                    place = store.prepare({"ca-cert.pem": "CA", "server-cert.pem": name}, "requested")
                    store.switch(place, request_used=True)
            except Crash:
                pass
            else:
                break
        shown = store.text("server-cert.pem")
        assert store.public_key("current") == keys[shown]
        assert store.text("client-cert.pem") == shown
        assert store.text("client-key.pem") == store.text("server-key.pem")
    else:
        pytest.fail("no attempt was ever finished")
    assert store.text("server-cert.pem") == name
    assert len([path for path in store.directory.iterdir() if path.name.startswith("set-")]) == 1


def test_what_is_open_to_others_is_found_and_closed(store):
    install(store)
    store.directory.chmod(0o755)
    (store.directory / "server-key.pem").chmod(0o640)
    assert store.faults() == [
        str(store.directory),
        str(store.directory / "server-key.pem"),
        str(store.directory / "client-key.pem"),
    ]
    store.close_to_others()
    assert store.faults() == []


def test_removal_leaves_what_is_not_ours(store):
    install(store)
    assert store.exists()
    stranger = store.directory / "notes"
    stranger.write_text("mine")
    assert store.remove() is False
    assert list(store.directory.iterdir()) == [stranger]
    assert not store.exists()
    stranger.unlink()
    assert store.exists()
    assert store.remove() is True
    assert not store.exists()


@pytest.mark.parametrize("base", ["/etc/pve", "/etc/pve/priv", "/etc/../etc/pve/local", "relative"])
def test_keys_never_go_where_the_cluster_shares_files(base):
    with pytest.raises(StoreFailed):
        CredentialStore(base, "prod")


def test_link_into_the_shared_files_is_seen_through(tmp_path):
    (tmp_path / "pki").symlink_to("/etc/pve")
    with pytest.raises(StoreFailed):
        CredentialStore(str(tmp_path / "pki"), "prod")


@pytest.mark.parametrize("domain", ["", ".", "..", "a/b", "A", "-a", "a" * 64])
def test_domain_is_one_word(domain, tmp_path):
    with pytest.raises(StoreFailed):
        CredentialStore(str(tmp_path), domain)


def test_node_without_openssl_is_told_so(tmp_path):
    store = CredentialStore(str(tmp_path), "prod", run=lambda argv, seconds: Completed(-1, "", "cannot be run: No"))
    with pytest.raises(StoreFailed) as caught, store.locked():
        store.request("node-a", ())
    assert caught.value.object == "openssl genpkey"


def test_no_secret_is_in_an_argv(tmp_path):
    seen = []

    def run(argv, seconds):
        seen.append(list(argv))
        return credential_store.run_command(argv, seconds)

    store = CredentialStore(str(tmp_path), "prod", run=run)
    with store.locked():
        store.request("node-a", ADDRESSES)
    key = store.text("request/key.pem")
    secret = key.splitlines()[1]
    assert "PRIVATE KEY" in key
    assert len(secret) == 64
    assert not [word for argv in seen for word in argv if "PRIVATE" in word or secret in word]


def test_place_that_is_a_file_is_an_error_of_the_store(tmp_path):
    (tmp_path / "pki").write_text("")
    store = CredentialStore(str(tmp_path / "pki"), "prod")
    with pytest.raises(StoreFailed), store.locked():
        pass
