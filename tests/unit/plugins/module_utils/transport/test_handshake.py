# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HELLO to WELCOME: nothing but the right frames of who knows the key authenticates, and a stranger learns nothing."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import handshake, wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import (
    GreetingRefused,
    NetworkChanged,
    TransportError,
    WireError,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.handshake import (
    Addresses,
    SourceGreeting,
    TargetGreeting,
    farewell,
    welcome,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import Frame, FrameKind

MID, OTHER_MID = "0123456789abcdef" * 2, "f" * 32
KEY, OTHER_KEY, OPAQUE_KEY = "aa" * 32, "bb" * 32, "cc" * 32
ADDRESSES = Addresses("[192.0.2.1]:40000", "[192.0.2.2]:60100")
NONCE_S, NONCE_T = "11" * 32, "22" * 32


class Doorkeeper:
    """Lets each stream in once."""

    def __init__(self) -> None:
        self.asked: List[str] = []

    def __call__(self, stream: str) -> Optional[str]:
        self.asked.append(stream)
        return "it stands already" if self.asked.count(stream) > 1 else None


def source(plane: str = "tcp", **changes: Any) -> SourceGreeting:
    values: Dict[str, Any] = {
        "plane": plane, "migration_id": MID, "stream": "disk/scsi0", "key": KEY if plane == "tcp" else "",
        "addresses": ADDRESSES, "nonce": NONCE_S,
    }  # fmt: skip
    return SourceGreeting(**{**values, **changes})


def target(plane: str = "tcp", **changes: Any) -> TargetGreeting:
    values: Dict[str, Any] = {
        "plane": plane, "migration_id": MID, "key": KEY if plane == "tcp" else "", "addresses": ADDRESSES,
        "nonce": NONCE_T, "may_open": Doorkeeper(),
    }  # fmt: skip
    return TargetGreeting(**{**values, **changes})


OPAQUE: Dict[str, Any] = {"key": OPAQUE_KEY, "opaque": True}  # of a source


def frames(data: bytes) -> List[Frame]:
    return wire.Decoder(1).receive(data)


def shake(one: SourceGreeting, other: TargetGreeting) -> None:
    """Carry frames until nobody has anything to say; a refusal travels as in the product."""
    data = one.hello()
    while data:
        try:
            answers = b"".join(other.receive(frame) for frame in frames(data))
        except TransportError as error:
            answers = farewell(error)
        data = b"".join(one.receive(frame) for frame in frames(answers))


@pytest.mark.parametrize("plane", ["tls", "tcp"])
def test_both_sides_agree(plane):
    one, other = source(plane), target(plane)
    shake(one, other)
    assert one.done
    assert other.done
    assert other.stream == "disk/scsi0"


def test_welcome_waits_for_who_holds_it():
    one, other = source(), target(holds_welcome=True)
    shake(one, other)
    assert other.done
    assert not one.done
    one.receive(frames(welcome())[0])
    assert one.done


def test_source_may_end_the_greeting_with_a_reason():
    """The network is not as it was proven: its proof is not given then."""
    one, other = source(), target()
    other.receive(frames(one.hello())[0])
    with pytest.raises(GreetingRefused, match="by the peer itself, check 3"):
        other.receive(frames(wire.abort("NETWORK_CHANGED", "check 3"))[0])
    assert not other.done


def test_target_that_finds_its_network_changed_says_so_by_its_code():
    with pytest.raises(NetworkChanged, match="check 9") as refused:
        source().receive(frames(wire.abort("NETWORK_CHANGED", "check 9"))[0])
    assert refused.value.side.value == "target"


def test_stranger_cannot_end_it_so():
    with pytest.raises(WireError):
        target().receive(frames(wire.abort("NETWORK_CHANGED", "check 3"))[0])


def test_target_proves_before_the_source_does():
    """A thief of the port must not get a proof that he could use elsewhere."""
    one = source()
    (challenge,) = frames(target(key=OTHER_KEY).receive(frames(one.hello())[0]))
    with pytest.raises(GreetingRefused, match="does not know the key"):
        one.receive(challenge)
    assert not one.done


@pytest.mark.parametrize(
    "changes",
    [{"key": OTHER_KEY}, {"migration_id": OTHER_MID}, {"addresses": Addresses("[192.0.2.9]:40000", ADDRESSES.target)},
     {"addresses": Addresses(*reversed(ADDRESSES))}],
    ids=["key", "migration", "address", "reversed"],
)  # fmt: skip
def test_another_key_migration_or_address_never_meets(changes):
    one, doorkeeper = source(**changes), Doorkeeper()
    other = target(may_open=doorkeeper)
    with pytest.raises(GreetingRefused):
        shake(one, other)
    assert not one.done
    assert not other.done
    assert doorkeeper.asked == []


def test_proof_without_the_key_is_refused_without_a_reason():
    other = target()
    (challenge,) = frames(other.receive(frames(source().hello())[0]))
    with pytest.raises(GreetingRefused) as caught:
        other.receive(Frame(FrameKind.PROOF, b'{"mac":"%s"}' % challenge.fields["mac"].encode()))  # reflected
    (told,) = frames(farewell(caught.value))
    assert told.fields == {"code": "REFUSED", "text": ""}


@pytest.mark.parametrize(
    "fields",
    [{"mid": OTHER_MID}, {"mid": 7}, {"mid": "\ud800" * 32}, {"stream": "../x"}, {"stream": "ram\n"}, {"stream": None},
     {"nonce": ""}, {"nonce": "1" * 63}, {"v": 2}, {"v": None}, {"opaque": 1}, {"opaque": None}, {"opaque": True}],
)  # fmt: skip
def test_stranger_learns_only_that_he_is_refused(fields):
    hello = {"v": 1, "mid": MID, "stream": "ram", "nonce": NONCE_S, **fields}
    with pytest.raises(GreetingRefused) as caught:
        target().receive(Frame(FrameKind.HELLO, json.dumps(hello).encode()))
    assert frames(farewell(caught.value))[0].fields == {"code": "REFUSED", "text": ""}


def test_authenticated_peer_learns_why_a_stream_is_refused():
    doorkeeper = Doorkeeper()
    shake(source(), target(may_open=doorkeeper))
    with pytest.raises(GreetingRefused, match="it stands already") as caught:
        shake(source(), target(may_open=doorkeeper))
    assert caught.value.facts["refusal"] == "STREAM_REFUSED"


@pytest.mark.parametrize("stream", ["ram", "disk/scsi0", "disk/virtio3.2"])
@pytest.mark.parametrize("key", ["", KEY])
def test_stream_that_qemu_encrypts_has_a_key_of_its_own(stream, key):
    one, other = source(stream=stream, **OPAQUE), target(key=key, opaque_key=OPAQUE_KEY)
    shake(one, other)
    assert one.done
    assert (other.done, other.stream, other.opaque) == (True, stream, True)


@pytest.mark.parametrize("stream", ["control", "control.2", "import/tpmstate0", "rehearsal"])
def test_nothing_else_is_opaque(stream):
    with pytest.raises(ValueError):  # noqa: PT011  the type is the contract
        source(stream=stream, **OPAQUE)
    hello = {"v": 1, "mid": MID, "stream": stream, "nonce": NONCE_S, "opaque": True}
    with pytest.raises(GreetingRefused, match="damaged"):
        target(opaque_key=OPAQUE_KEY).receive(Frame(FrameKind.HELLO, json.dumps(hello).encode()))


@given(st.sampled_from([KEY, OPAQUE_KEY]), st.booleans(), st.sampled_from(["", KEY]), st.sampled_from(["", OPAQUE_KEY]))
def test_neither_key_opens_what_the_other_does(held, opaque, key, opaque_key):
    """Who has a key gets in by it alone, and only where the target has it for just this."""
    if not (key or opaque_key):
        return
    doorkeeper = Doorkeeper()
    one = source(key=held, opaque=opaque)
    other = target(key=key, opaque_key=opaque_key, may_open=doorkeeper)
    fits = held == (opaque_key if opaque else key)
    with contextlib.nullcontext() if fits else pytest.raises(GreetingRefused):
        shake(one, other)
    assert (one.done, other.done, doorkeeper.asked) == (fits, fits, ["disk/scsi0"] if fits else [])


def test_what_is_opaque_is_part_of_the_proof():
    """Were both keys the same, who is on the way could still not make the one out of the other."""
    one = source(key=KEY)
    forged = frames(one.hello().replace(b"false", b"true "))[0]
    (challenge,) = frames(target(key=KEY, opaque_key=KEY).receive(forged))
    with pytest.raises(GreetingRefused, match="does not know the key"):
        one.receive(challenge)


def test_target_without_a_key_for_clear_text_never_challenges_such_a_stream():
    other = target(key="", opaque_key=OPAQUE_KEY)
    with pytest.raises(GreetingRefused, match="in the clear") as caught:
        other.receive(frames(source().hello())[0])
    assert frames(farewell(caught.value))[0].fields == {"code": "REFUSED", "text": ""}


def test_nothing_is_opaque_within_tls():
    hello = {"v": 1, "mid": MID, "stream": "ram", "nonce": NONCE_S, "opaque": True}
    with pytest.raises(GreetingRefused):
        target("tls").receive(Frame(FrameKind.HELLO, json.dumps(hello).encode()))
    with pytest.raises(ValueError):  # noqa: PT011  the type is the contract
        source("tls", opaque=True)


def test_replayed_greeting_meets_another_nonce():
    """What one connection said is worth nothing on the next, even from the same address and port."""
    one, other = source(), target()
    said = [one.hello()]
    (challenge,) = frames(other.receive(frames(said[0])[0]))
    said.append(one.receive(challenge))
    again = target(nonce="33" * 32)
    again.receive(frames(said[0])[0])
    with pytest.raises(GreetingRefused):
        again.receive(frames(said[1])[0])
    assert not again.done


def genuine() -> Dict[str, Frame]:
    """The two frames of a source that knows the key; with fixed nonces they are always the same."""
    one = source()
    (hello,) = frames(one.hello())
    (challenge,) = frames(target().receive(hello))
    return {"hello": hello, "proof": frames(one.receive(challenge))[0]}


FORGED = st.builds(
    Frame,
    st.sampled_from(list(FrameKind)),
    st.sampled_from([
        b"", b"{}", b"[]", b'{"v":1}', b'{"mac":"%s"}' % (b"0" * 64),
        b'{"v":1,"mid":"%s","stream":"ram","nonce":"%s"}' % (MID.encode(), NONCE_S.encode()),
        b'{"nonce":"%s","mac":"%s"}' % (NONCE_T.encode(), b"0" * 64),
    ]),
)  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(["hello", "proof"]), FORGED), max_size=5))
def test_only_hello_and_proof_of_who_knows_the_key_authenticate(sequence):
    doorkeeper = Doorkeeper()
    other = target(may_open=doorkeeper)
    for step in sequence:
        frame = genuine()[step] if isinstance(step, str) else step
        with contextlib.suppress(TransportError):
            other.receive(frame)
    assert other.done == (sequence[:2] == ["hello", "proof"])
    assert doorkeeper.asked == (["disk/scsi0"] if other.done else [])


@given(st.lists(st.sampled_from(list(FrameKind)), max_size=5))
def test_no_forged_sequence_welcomes_a_source(kinds):
    """Whoever does not know the key cannot make the source believe that it stands."""
    one = source()
    for kind in kinds:
        payload = {"v": 1, "nonce": NONCE_T, "mac": "0" * 64, "code": "X", "text": "y"}
        with pytest.raises(TransportError):
            one.receive(Frame(kind, json.dumps(payload).encode()))
    assert not one.done


def test_nothing_is_taken_after_the_end():
    one, other = source("tls"), target("tls")
    shake(one, other)
    for greeting in (one, other):
        with pytest.raises(WireError):
            greeting.receive(frames(source("tls").hello())[0])


def test_refusal_of_the_peer_is_cleaned():
    with pytest.raises(GreetingRefused) as caught:
        source().receive(frames(wire.abort("BUSY", "two\nlines\x1b[31m"))[0])
    assert caught.value.message.isprintable()
    assert caught.value.facts["refusal"] == "BUSY"


@pytest.mark.parametrize("name", ["control", "ram", "disk/scsi0", "import/tpmstate0", "ram.2", "disk/scsi0.9"])
def test_streams_have_names_of_one_kind(name):
    assert handshake.is_stream(name)


@pytest.mark.parametrize("name", ["", "RAM", "a/b/c", "ram.1", "ram.10", "disk/", "/x", "a b", "ram\n", "x" * 65])
def test_other_names_are_none(name):
    assert not handshake.is_stream(name)


@pytest.mark.parametrize(
    "changes",
    [{"plane": "udp"}, {"plane": "tls", "key": KEY}, {"key": ""}, {"key": "xx" * 32}, {"nonce": "1"},
     {"migration_id": "x"}, {"stream": "RAM"}],
)  # fmt: skip
def test_greeting_that_cannot_be_right_is_not_begun(changes):
    with pytest.raises(ValueError):  # noqa: PT011  the type is the contract
        source(**{"plane": "tcp", **changes})
