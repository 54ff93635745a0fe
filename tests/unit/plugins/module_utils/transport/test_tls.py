# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutual TLS between two workers in memory, and the certificate zoo of direct-transports 6.3: each row, each side."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from unit.fakes.certificates import CLIENT, DAY, SERVER, Authority, lay, new_key

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import errors, tls

SOURCE, TARGET = "node-a", "node-b"
HOUR = datetime.timedelta(hours=1)
PLAIN = b"MARKER"


@dataclass
class Node:
    """One side: whom its files trust and what they show."""

    directory: Path
    name: str
    side: Side
    peer: str
    credentials: tls.Credentials = field(init=False)

    def __post_init__(self):
        self.credentials = tls.Credentials(str(self.directory))

    def handshake(self):
        make = tls.client_context if self.side is Side.SOURCE else tls.server_context
        return tls.Handshake(self.side, make(self.credentials), self.credentials, self.peer)


@pytest.fixture(scope="module")
def zoo():
    """Every kind of bad certificate once: a function of the node's name gives CA text, certificate, list."""
    good, foreign = Authority(), Authority("another domain")
    old = Authority("old", starts=-10 * DAY, ends=-HOUR)
    bare, soft = Authority("bare", identifier=False), Authority("soft", critical=False)
    certifying = ["digital_signature", "key_cert_sign"]
    made = {}

    def row(key, name):
        if (key, name) not in made:
            made[key, name] = rows[key](name)
        return made[key, name]

    def revoked(name):
        issued = good.issue(name)
        return good, issued, good.crl(issued)

    rows = {
        "good": lambda name: (good, good.issue(name), ""),
        "foreign": lambda name: (good, foreign.issue(name), ""),
        "wrong name": lambda name: (good, good.issue("node-x"), ""),
        "wildcard": lambda name: (good, good.issue(name, dns=["*.example"]), ""),
        "upper case": lambda name: (good, good.issue(name, dns=[name.upper()]), ""),
        "expired": lambda name: (good, good.issue(name, ends=-HOUR, starts=-DAY), ""),
        "not yet valid": lambda name: (good, good.issue(name, starts=HOUR), ""),
        "none": lambda name: (good, None, ""),
        "wrong purpose": lambda name: (
            good, good.issue(name, purposes=[CLIENT if name == TARGET else SERVER]), ""
        ),
        "encipherment only": lambda name: (good, good.issue(name, usages=["key_encipherment"]), ""),
        "revoked": revoked,
        "no SAN": lambda name: (good, good.issue(name, dns=[], ips=[]), ""),
        "no authority key": lambda name: (good, good.issue(name, authority=False), ""),
        "CA without subject key": lambda name: (bare, bare.issue(name), ""),
        "CA not critical": lambda name: (soft, soft.issue(name), ""),
        "expired CA": lambda name: (old, old.issue(name), ""),
        "leaf is a CA": lambda name: (good, good.issue(name, ca=True, usages=certifying), ""),
        "stale list": lambda name: (good, good.issue(name), good.crl(starts=-2 * DAY, ends=-HOUR)),
        "list of another CA": lambda name: (good, good.issue(name), foreign.crl()),
    }  # fmt: skip
    return row


def pair(tmp_path, zoo, source_row="good", target_row="good"):
    """Both sides; each trusts the CA of what the other shows, as far as the row says that, and has its list."""
    ca_of_source, source, source_list = zoo(source_row, SOURCE)
    ca_of_target, target, target_list = zoo(target_row, TARGET)
    ca = "".join(sorted({ca_of_source.pem, ca_of_target.pem}))
    lay(tmp_path / "source", ca, source, target_list)
    lay(tmp_path / "target", ca, target, source_list)
    return (
        Node(tmp_path / "source", SOURCE, Side.SOURCE, TARGET),
        Node(tmp_path / "target", TARGET, Side.TARGET, SOURCE),
    )


class Conversation:
    """Two handshakes with nothing between them; keeps what each side came to know and every byte on the wire."""

    def __init__(self, source, target):
        self.ends = {Side.SOURCE: source, Side.TARGET: target}
        self.done = dict.fromkeys(self.ends, False)
        self.errors = {}
        self.wire = b""

    def run(self):
        for _round in range(4):
            for side in (Side.SOURCE, Side.TARGET):
                self._step(side)
        return self

    def _step(self, side):
        if side not in self.errors:
            try:
                if not self.done[side]:
                    self.done[side] = self.ends[side].advance()
                elif side is Side.SOURCE:
                    self._read(side)
            except errors.TlsFailed as error:
                self.errors[side] = error
        data = self.ends[side].to_send()
        self.wire += data
        other = self.ends[Side.TARGET if side is Side.SOURCE else Side.SOURCE]
        if data:
            other.receive(data)

    def _read(self, side):
        try:
            self.ends[side].tls.read(100)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise self.ends[side].failure(error) from error


def talk(source, target):
    return Conversation(source.handshake(), target.handshake()).run()


def test_two_good_nodes_talk_tls_13_without_tickets_and_see_each_other(tmp_path, zoo):
    source, target = pair(tmp_path, zoo)
    met = talk(source, target)
    assert met.errors == {}
    assert met.done == {Side.SOURCE: True, Side.TARGET: True}
    seen = {side: end.seen() for side, end in met.ends.items()}
    assert seen[Side.SOURCE]["names"] == [TARGET]
    assert seen[Side.TARGET]["names"] == [SOURCE]
    assert {each["version"] for each in seen.values()} == {"TLSv1.3"}
    assert seen[Side.SOURCE]["cipher"].startswith("TLS_")
    assert seen[Side.SOURCE]["fingerprint"] == met.ends[Side.SOURCE].peer().fingerprint
    # No session ticket: nothing is on its way to the source before somebody speaks.
    with pytest.raises(ssl.SSLWantReadError):
        met.ends[Side.SOURCE].tls.read(1)


def test_contexts_are_those_of_the_reference(tmp_path, zoo):
    source, _target = pair(tmp_path, zoo)
    for make in (tls.client_context, tls.server_context):
        context = make(source.credentials)
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert not context.options & (1 << 7)
        assert len(context.get_ca_certs()) == 1
    assert tls.client_context(source.credentials).check_hostname is True
    assert tls.client_context(source.credentials).hostname_checks_common_name is False
    assert tls.server_context(source.credentials).num_tickets == 0


ROWS = {
    # what is shown: cause where the target shows it, what the target hears; the same where the source shows it
    "foreign": ("foreign_ca", "foreign_ca", "foreign_ca", "foreign_ca"),
    "wrong name": ("wrong_name", "bad_certificate", "wrong_name", None),
    "wildcard": ("wrong_name", "bad_certificate", "wrong_name", None),
    "upper case": ("wrong_name", None, "wrong_name", None),
    "expired": ("expired", "expired", "expired", "expired"),
    "not yet valid": ("not_yet_valid", "bad_certificate", "not_yet_valid", "bad_certificate"),
    "wrong purpose": ("wrong_purpose", "wrong_purpose", "wrong_purpose", "wrong_purpose"),
    "revoked": ("revoked", "revoked", "revoked", "revoked"),
    "no SAN": ("wrong_name", "bad_certificate", "wrong_name", None),
    "no authority key": ("malformed", "malformed", "malformed", "malformed"),
    "CA without subject key": ("malformed", "malformed", "malformed", "malformed"),
    "CA not critical": ("malformed", "malformed", "malformed", "malformed"),
    "expired CA": ("expired", "expired", "expired", "expired"),
    "leaf is a CA": ("is_ca", None, "is_ca", None),
}


@pytest.mark.parametrize("row", ROWS)
def test_bad_certificate_of_the_target_is_refused_by_the_source(row, tmp_path, zoo):
    cause, heard, _cause, _heard = ROWS[row]
    met = talk(*pair(tmp_path, zoo, target_row=row))
    error = met.errors[Side.SOURCE]
    assert (error.code, error.facts["cause"]) == ("PEER_CERTIFICATE_REFUSED", cause)
    assert error.side is Side.TARGET
    assert error.object == f"server-cert.pem of {TARGET}"
    assert error.remedy
    assert not met.done[Side.SOURCE]
    check_alert(met.errors.get(Side.TARGET), heard, Side.TARGET, "server-cert.pem")


@pytest.mark.parametrize("row", ROWS)
def test_bad_certificate_of_the_source_is_refused_by_the_target(row, tmp_path, zoo):
    _cause, _heard, cause, heard = ROWS[row]
    met = talk(*pair(tmp_path, zoo, source_row=row))
    error = met.errors[Side.TARGET]
    assert (error.code, error.facts["cause"]) == ("PEER_CERTIFICATE_REFUSED", cause)
    assert error.side is Side.SOURCE
    assert error.object == f"client-cert.pem of {SOURCE}"
    assert not met.done[Side.TARGET]
    # The client was done before the server had looked: only a read tells it (direct-transports 5).
    assert met.done[Side.SOURCE]
    check_alert(met.errors.get(Side.SOURCE), heard, Side.SOURCE, "client-cert.pem")


def check_alert(error, cause, side, file):
    """What the refused side hears by TLS alone."""
    if cause is None:
        assert error is None
        return
    assert (error.code, error.facts["cause"]) == ("CERTIFICATE_REFUSED_BY_PEER", cause)
    assert error.side is side
    assert error.object.endswith(file)


def test_encipherment_only_is_refused_by_the_target_but_not_by_the_source(tmp_path, zoo):
    """direct-transports 6.1: an OpenSSL client does not look; therefore a node checks itself in both roles."""
    assert talk(*pair(tmp_path / "a", zoo, target_row="encipherment only")).errors == {}
    met = talk(*pair(tmp_path / "b", zoo, source_row="encipherment only"))
    assert met.errors[Side.TARGET].facts["cause"] == "wrong_purpose"


def test_source_without_a_certificate_is_refused_by_the_target(tmp_path, zoo):
    source, target = pair(tmp_path, zoo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(source.credentials.ca)
    end = tls.Handshake(Side.SOURCE, context, source.credentials, TARGET)
    met = Conversation(end, target.handshake()).run()
    assert met.errors[Side.TARGET].code == "PEER_CERTIFICATE_REFUSED"
    assert met.errors[Side.TARGET].facts["cause"] == "missing"
    assert met.errors[Side.SOURCE].facts["cause"] == "missing"


def test_target_without_a_certificate_looks_like_another_protocol_version(tmp_path, zoo):
    source, target = pair(tmp_path, zoo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    end = tls.Handshake(Side.TARGET, context, target.credentials, SOURCE)
    met = Conversation(source.handshake(), end).run()
    error = met.errors[Side.SOURCE]
    assert (error.code, error.facts["cause"]) == ("TLS_HANDSHAKE_FAILED", "protocol")
    assert "files of both nodes exist" in error.remedy


@pytest.mark.parametrize(
    ("row", "cause"), [("stale list", "crl_expired"), ("list of another CA", "crl_missing")]
)  # fmt: skip
@pytest.mark.parametrize("shown_by", [Side.SOURCE, Side.TARGET])
def test_revocation_list_that_is_no_good_refuses_everybody(row, cause, shown_by, tmp_path, zoo):
    rows = {"source_row": row} if shown_by is Side.SOURCE else {"target_row": row}
    met = talk(*pair(tmp_path, zoo, **rows))
    judge = Side.TARGET if shown_by is Side.SOURCE else Side.SOURCE
    error = met.errors[judge]
    assert (error.code, error.facts["cause"]) == ("CREDENTIALS_UNUSABLE", cause)
    assert error.side is judge  # the file that must be renewed is the judge's own
    assert error.object.endswith("ca-crl.pem")


def test_both_cas_are_trusted_while_one_takes_over_from_the_other(tmp_path):
    old, new = Authority("domain 1"), Authority("domain 2")
    both = old.pem + new.pem
    lay(tmp_path / "source", both, old.issue(SOURCE), old.crl() + new.crl())
    lay(tmp_path / "target", both, new.issue(TARGET), old.crl() + new.crl())
    met = talk(
        Node(tmp_path / "source", SOURCE, Side.SOURCE, TARGET), Node(tmp_path / "target", TARGET, Side.TARGET, SOURCE)
    )
    assert met.errors == {}
    assert all(met.done.values())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("side", [Side.SOURCE, Side.TARGET])
def test_older_tls_is_refused(side, version, tmp_path, zoo):
    source, target = pair(tmp_path, zoo)
    old = source if side is Side.SOURCE else target
    end = old.handshake()
    context = end.tls.context
    context.minimum_version = version
    context.maximum_version = version
    end = tls.Handshake(side, context, old.credentials, old.peer)
    ends = (end, target.handshake()) if side is Side.SOURCE else (source.handshake(), end)
    met = Conversation(*ends).run()
    assert met.done == {Side.SOURCE: False, Side.TARGET: False}
    assert {error.code for error in met.errors.values()} == {"TLS_HANDSHAKE_FAILED"}
    assert PLAIN not in met.wire


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"NBDMAGIC" * 20])
def test_garbage_is_no_handshake(garbage, tmp_path, zoo):
    _source, target = pair(tmp_path, zoo)
    end = target.handshake()
    end.receive(garbage)
    with pytest.raises(errors.HandshakeFailed) as caught:
        end.advance()
    assert caught.value.facts["cause"] == "protocol"


def test_end_of_the_connection_is_no_clean_end(tmp_path, zoo):
    source, _target = pair(tmp_path, zoo)
    end = source.handshake()
    assert end.advance() is False
    assert end.to_send()
    end.receive(b"")
    with pytest.raises(errors.HandshakeFailed) as caught:
        end.advance()
    assert caught.value.facts["cause"] == "cut"


@pytest.mark.parametrize("name", ["", "192.0.2.7", "2001:db8::1", ".node", "node ", "*.example", "näme", "a" * 254])
def test_peer_is_pinned_by_a_name(name, tmp_path, zoo):
    source, _target = pair(tmp_path, zoo)
    with pytest.raises(errors.HandshakeFailed) as caught:
        tls.Handshake(Side.SOURCE, tls.client_context(source.credentials), source.credentials, name)
    assert caught.value.facts["cause"] == "name_invalid"


@pytest.mark.parametrize("name", ["a1", "b1.beta", "pve", "node-3.example.com", "3com", "a"])
def test_names_as_nodes_have_them_are_fine(name):
    assert tls.is_node_name(name)


# --- files of our own


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("ca-cert.pem", None, "missing"),
        ("ca-cert.pem", "nothing", "unreadable"),
        ("ca-crl.pem", "nothing", "unreadable"),
        ("client-cert.pem", None, "missing"),
        ("client-cert.pem", "nothing", "unreadable"),
        ("client-key.pem", None, "missing"),
        ("client-key.pem", "nothing", "unreadable"),
    ],
)
def test_file_that_cannot_be_used_is_named(file, content, cause, tmp_path, zoo):
    source, _target = pair(tmp_path, zoo)
    path = Path(source.credentials.file(file))
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.CredentialsUnusable) as caught:
        tls.client_context(source.credentials)
    assert caught.value.facts["cause"] == cause
    assert caught.value.side is Side.SOURCE
    assert path.name in caught.value.object or (file == "client-key.pem" and "client-" in caught.value.object)


def test_key_of_another_certificate_is_named(tmp_path, zoo):
    source, target = pair(tmp_path, zoo)
    Path(source.credentials.key(Side.SOURCE)).write_text(Path(target.credentials.key(Side.TARGET)).read_text())
    with pytest.raises(errors.CredentialsUnusable) as caught:
        tls.client_context(source.credentials)
    assert caught.value.facts["cause"] == "key_mismatch"


def test_encrypted_key_asks_nobody(tmp_path, zoo):
    from cryptography.hazmat.primitives import serialization

    source, _target = pair(tmp_path, zoo)
    encrypted = new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    Path(source.credentials.key(Side.SOURCE)).write_bytes(encrypted)
    with pytest.raises(errors.CredentialsUnusable):
        tls.client_context(source.credentials)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("foreign", "foreign_ca"),
        ("wrong name", "wrong_name"),
        ("expired", "expired"),
        ("not yet valid", "not_yet_valid"),
        ("wrong purpose", "wrong_purpose"),
        ("encipherment only", "wrong_purpose"),
        ("revoked", "revoked"),
        ("leaf is a CA", "is_ca"),
        ("stale list", "crl_expired"),
        ("no authority key", "malformed"),
    ],
)
def test_node_finds_out_by_itself_what_others_would_refuse(row, cause, tmp_path, zoo):
    authority, issued, revoked = zoo(row, SOURCE)
    credentials = tls.Credentials(str(lay(tmp_path / "own", authority.pem, issued, revoked)))
    with pytest.raises(errors.CredentialsUnusable) as caught:
        tls.check_credentials(credentials, SOURCE, Side.TARGET)
    assert caught.value.facts["cause"] == cause
    assert caught.value.side is Side.TARGET
    assert caught.value.object.endswith("server-cert.pem")


def test_good_node_finds_nothing_and_knows_its_certificate(tmp_path, zoo):
    authority, issued, _list = zoo("good", SOURCE)
    credentials = tls.Credentials(str(lay(tmp_path / "own", authority.pem, issued, authority.crl())))
    found = tls.check_credentials(credentials, SOURCE, Side.SOURCE)
    assert found.der == issued.der
    assert tls.own_certificate(credentials, Side.TARGET) == found


def test_sentence_for_people_names_side_file_reason_and_remedy(tmp_path, zoo):
    met = talk(*pair(tmp_path, zoo, target_row="expired"))
    assert str(met.errors[Side.SOURCE]) == (
        "target: server-cert.pem of node-b: it, or the CA that signed it, has expired "
        "[PEER_CERTIFICATE_REFUSED, target, server-cert.pem of node-b]. "
        "Compare the clocks of both nodes, then run the role certificates."
    )
