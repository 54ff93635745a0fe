# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection until it is known: both planes, every cut of the bytes, and everybody who must not get in."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.certificates import Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import tls, wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import (
    GreetingRefused,
    HandshakeFailed,
    TlsFailed,
    TransportError,
    WireError,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.handshake import (
    Addresses,
    SourceGreeting,
    TargetGreeting,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.newcomer import Newcomer
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import FrameKind

ID, KEY, OPAQUE_KEY, NONCE = "5d" * 16, "ab" * 32, "ba" * 32, "cd" * 32
WHERE = Addresses("[10.77.0.11]:40000", "[10.77.0.21]:60100")


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Credentials of source and target, and those of the source with mistakes."""
    home, foreign = Authority(), Authority("somebody else")
    found = {}
    for name, authority, issued in (
        ("target", home, home.issue("b1.example")),
        ("source", home, home.issue("a1.example")),
        ("another", home, home.issue("a2.example")),
        ("foreign", foreign, foreign.issue("a1.example")),
    ):
        directory = tmp_path_factory.mktemp(name)
        lay(directory, authority.pem, issued)
        found[name] = tls.Credentials(str(directory))
    return found


class Source:
    """The other side of a newcomer, over TLS or not."""

    def __init__(self, plane, credentials=None, key=KEY, mid=ID, stream="ram", opaque=False):
        self.tls = None
        if plane == "tls":
            self.tls = tls.Handshake(Side.SOURCE, tls.client_context(credentials), credentials, "b1.example")
        self.greeting = SourceGreeting(plane, mid, stream, key if plane == "tcp" else "", WHERE, "ef" * 32, opaque)
        self.decoder = wire.Decoder(wire.MAX_DATA[plane])
        self.clear = b"" if self.tls else self.greeting.hello()
        self.ready = False
        self.aborted = self.alert = None

    def to_send(self):
        if self.tls is None:
            data, self.clear = self.clear, b""
            return data
        if not self.ready:
            self.ready = self.tls.advance()
            if self.ready:
                self.tls.tls.write(self.greeting.hello())
        return self.tls.to_send()

    def receive(self, data):
        if self.tls is not None:
            self.tls.receive(data)
            if not self.ready:
                return
            try:
                data = self.tls.tls.read(65536)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError as error:
                self.alert = error.reason
                return
        for frame in self.decoder.receive(data):
            if frame.kind is FrameKind.ABORT:
                self.aborted = frame.fields
                return
            self.clear += self.greeting.receive(frame)


def newcomer(domains, planes=("tls", "tcp"), may_open=lambda _stream: None):
    context = tls.server_context(domains["target"])
    return Newcomer(
        planes,
        lambda: tls.Handshake(Side.TARGET, context, domains["target"], "a1.example"),
        lambda plane: TargetGreeting(plane, ID, KEY if plane == "tcp" else "", WHERE, NONCE, may_open),
    )


def converse(source, guest, piece=65536):
    """Until neither says anything more; the refusal of the guest is given on, then raised."""
    refused = None
    for _round in range(12):
        data = source.to_send()
        for at in range(0, len(data), piece):
            try:
                guest.receive(data[at : at + piece])
            except TransportError as error:
                refused = error
                break
        answer = guest.to_send()
        if answer:
            source.receive(answer)
        if refused:
            raise refused
        if not data and not answer:
            return


@pytest.mark.parametrize("plane", ["tls", "tcp"])
@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_newcomer_is_known_whatever_the_pieces(domains, plane, piece):
    source, guest = Source(plane, domains["source"], stream="disk/scsi0"), newcomer(domains)
    converse(source, guest, piece)
    assert (guest.plane, guest.stream) == (plane, "disk/scsi0")
    assert source.greeting.done
    assert (guest.handshake is not None) is (plane == "tls")


@pytest.mark.parametrize(("planes", "plane"), [(("tls",), "tcp"), (("tcp",), "tls")])
def test_plane_that_was_not_wanted_is_not_spoken(domains, planes, plane):
    guest = newcomer(domains, planes)
    with pytest.raises(GreetingRefused, match="not spoken"):
        guest.receive(Source(plane, domains["source"]).to_send())
    assert guest.to_send() == b""


def test_certificate_of_another_node_is_refused_with_a_reason(domains):
    source, guest = Source("tls", domains["another"]), newcomer(domains)
    with pytest.raises(TlsFailed, match=r"a2\.example") as refusal:
        converse(source, guest)
    assert source.aborted["code"] == refusal.value.code
    assert "a2.example" in source.aborted["text"]
    assert guest.stream == ""


def test_certificate_of_another_authority_is_refused_by_tls(domains):
    context = tls.client_context(domains["foreign"])
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it would refuse us first
    source, guest = Source("tls", domains["source"]), newcomer(domains)
    source.tls = tls.Handshake(Side.SOURCE, context, domains["foreign"], "b1.example")
    with pytest.raises(TlsFailed, match="not signed by a CA that is trusted here"):
        converse(source, guest)
    assert (source.aborted, source.alert) == (None, "TLSV1_ALERT_UNKNOWN_CA")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("said", [0, 5])
def test_who_takes_leave_politely_before_it_is_known_is_let_go(domains, said):
    """A close notify is read again and again, which would keep the listening end from everything else."""
    source, guest = Source("tls", domains["source"]), newcomer(domains)
    source.tls.advance()
    guest.receive(source.tls.to_send())
    source.tls.receive(guest.to_send())
    assert source.tls.advance()
    if said:
        source.tls.tls.write(source.greeting.hello()[:said])
    with contextlib.suppress(ssl.SSLWantReadError):  # it does not wait for ours
        source.tls.tls.unwrap()
    with pytest.raises(HandshakeFailed, match="closed the connection"):
        guest.receive(source.tls.to_send())
    assert guest.stream == ""


@pytest.mark.parametrize("mistake", [{"key": "00" * 32}, {"mid": "00" * 16}])
def test_stranger_is_told_that_he_is_refused_and_no_more(domains, mistake):
    source, guest = Source("tcp", **mistake), newcomer(domains)
    if "key" in mistake:
        source.greeting._prove = lambda _fields: wire.message(FrameKind.PROOF, {"mac": "11" * 32})
    with pytest.raises(GreetingRefused):
        converse(source, guest)
    assert source.aborted == {"code": "REFUSED", "text": ""}


def test_known_peer_is_told_why_a_stream_may_not_stand(domains):
    source, guest = Source("tls", domains["source"]), newcomer(domains, may_open=lambda _stream: "there is one already")
    with pytest.raises(GreetingRefused):
        converse(source, guest)
    assert source.aborted == {"code": "STREAM_REFUSED", "text": "there is one already"}
    assert guest.stream == ""


def test_recorded_greeting_is_worth_nothing(domains):
    """A replay: the nonce of the target is another one each time."""
    first, guest = Source("tcp"), newcomer(domains)
    said = [first.to_send()]
    guest.receive(said[0])
    first.receive(guest.to_send())
    said.append(first.to_send())
    guest.receive(said[1])
    assert guest.stream == "ram"
    again = Newcomer(
        ("tcp",), lambda: None, lambda plane: TargetGreeting(plane, ID, KEY, WHERE, "77" * 32, lambda _s: None)
    )
    again.receive(said[0])
    with pytest.raises(GreetingRefused):
        again.receive(said[1])
    assert again.stream == ""


@pytest.mark.parametrize(("key", "opaque", "gets_in"), [(OPAQUE_KEY, True, True), (OPAQUE_KEY, False, False)])
def test_only_what_qemu_encrypts_gets_in_with_the_key_for_that(key, opaque, gets_in):
    source = Source("tcp", key=key, opaque=opaque)
    guest = Newcomer(
        ("tls", "tcp"), lambda: None, lambda plane: TargetGreeting(plane, ID, "", WHERE, NONCE, lambda _s: None, key)
    )
    with contextlib.nullcontext() if gets_in else pytest.raises(GreetingRefused):
        converse(source, guest)
    assert (guest.stream, guest.opaque) == (("ram", True) if gets_in else ("", False))


@given(st.binary(min_size=1, max_size=200))
def test_garbage_never_gets_in(data):
    guest = Newcomer(
        ("tcp",), lambda: None, lambda plane: TargetGreeting(plane, ID, KEY, WHERE, NONCE, lambda _stream: None)
    )
    try:
        guest.receive(data)
    except (WireError, GreetingRefused):
        pass
    assert guest.stream == ""


def test_frame_of_data_before_welcome_is_refused(domains):
    guest = newcomer(domains)
    with pytest.raises(WireError, match="out of turn"):
        guest.receive(wire.encode(FrameKind.OPEN))
