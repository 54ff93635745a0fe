# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the target listens, and which transports that makes possible."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import SpecInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import is_key
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.meeting_point import (
    MeetingPoint,
    available,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import Check, State
from ansible_collections.crosscluster.migration.plugins.module_utils.network.verdict import REQUIRED, Trust, judge
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

POINT = {
    "migration_id": "ab" * 16,
    "address": "10.77.0.2",
    "own_address": "10.77.0.1",
    "port": 60100,
    "peer_name": "b1.example.com",
    "own_name": "a1.example.com",
    "planes": ["tls", "tcp"],
    "domain": "lab",
}


NOW = 1_790_000_000.0
ACCEPTED = {"accepted_by": "the network team", "until": "2100-01-01"}


# What check 2 says (network.checks.check_own_address).
ADDRESSES = {"a1": "10.77.0.1", "b1": "10.77.0.2"}


def verdict(trust=Trust.PRIVATE_PROVEN, at=NOW - 60):
    """As the role hands it over; the only evidence that is missing is said so."""
    state = State.PASSED if trust is Trust.PRIVATE_PROVEN else State.FAILED
    checks = [
        Check(number, node, state, f"{ADDRESSES[node]}/24 on mig, which is up" if number == 2 else "", part=part)
        for number, part in REQUIRED
        for node in ("a1", "b1")
    ]
    checks += [Check(11, node, State.NOTED, "veth") for node in ("a1", "b1")]
    found = judge("a1", "b1", "10.77.0.0/24", checks, now=at)
    assert found.trust is trust
    return found.to_dict()


def codes(point, *, has_key=True, bad=None, **more):
    if point is not None:
        point = {"network": verdict(), **point}
    parsed = MeetingPoint.parse(point, more.get("clear_text", ACCEPTED))
    found = available(parsed, has_key, lambda _domain, _transport: bad, NOW)
    return {name: why and why.code for name, why in found.items()}


def test_nothing_listens_nothing_direct_is_possible():
    absent = dict.fromkeys(("tls", "tcp", "qemu-tls"), "INCOMING_ABSENT")
    assert codes(None) == {"websocket": None, **absent, "qemu-tcp": "NETWORK_NOT_PROVEN"}


def test_everything_is_there():
    assert codes(POINT) == dict.fromkeys(("websocket", "tls", "tcp", "qemu-tls", "qemu-tcp"))


@pytest.mark.parametrize(
    ("changes", "other", "expected"),
    [
        ({"planes": ["tls"]}, {}, {"tls": None, "tcp": "INCOMING_REFUSES"}),
        ({"planes": ["tcp"]}, {}, {"tls": "INCOMING_REFUSES", "tcp": None}),
        ({}, {"clear_text": None}, {"tls": None, "tcp": "CLEAR_TEXT_NOT_ACCEPTED"}),
        # Both are in the network, and the proof is about two other nodes of it.
        ({"address": "10.77.0.3"}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"own_address": "10.77.0.3"}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({}, {"clear_text": dict.fromkeys(ACCEPTED)}, {"tls": None, "tcp": "CLEAR_TEXT_NOT_ACCEPTED"}),
        ({}, {"clear_text": {**ACCEPTED, "until": "2000-01-01"}}, {"tls": None, "tcp": "CLEAR_TEXT_NOT_ACCEPTED"}),
        ({"network": {}}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"network": verdict(Trust.UNKNOWN)}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"network": verdict(at=NOW - 901)}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"address": "10.78.0.2"}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"address": "fd00::2"}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"own_address": None}, {}, {"tls": None, "tcp": "NETWORK_NOT_PROVEN"}),
        ({"own_address": "10.77.0.2", "address": "10.77.0.1"}, {}, {"tls": None, "tcp": None}),
        ({}, {"has_key": False}, {"tls": None, "tcp": "KEY_ABSENT"}),
        ({}, {"bad": Rejection("CREDENTIALS_UNUSABLE", "expired")}, {"tls": "CREDENTIALS_UNUSABLE", "tcp": None}),
        ({"rejected": {"tcp": {"code": "NO_PROOF", "reason": "x"}}}, {}, {"tls": None, "tcp": "NO_PROOF"}),
    ],
    ids=[
        "no tcp", "no tls", "nobody accepts", "another target", "another source", "nobody named", "not any more",
        "no verdict", "untrusted", "old", "peer elsewhere", "other family", "own address not told", "the way back",
        "no key", "bad certificate", "controller knows",
    ],
)  # fmt: skip
def test_what_is_missing_is_named(changes, other, expected):
    # qemu-tls has the certificates and the way of tls.
    found = codes({**POINT, **changes}, **other)
    del found["qemu-tcp"]
    assert found == {"websocket": None, **expected, "qemu-tls": expected["tls"]}


@pytest.mark.parametrize(
    ("changes", "other", "expected"),
    [
        ({}, {"clear_text": None}, "CLEAR_TEXT_NOT_ACCEPTED"),
        ({}, {"clear_text": {**ACCEPTED, "until": "2000-01-01"}}, "CLEAR_TEXT_NOT_ACCEPTED"),
        ({"network": {}}, {}, "NETWORK_NOT_PROVEN"),
        ({"network": verdict(Trust.UNKNOWN)}, {}, "NETWORK_NOT_PROVEN"),
        ({"network": verdict(at=NOW - 901)}, {}, "NETWORK_NOT_PROVEN"),
        ({"address": ""}, {}, "NETWORK_NOT_PROVEN"),
        ({"address": "10.77.0.3"}, {}, "NETWORK_NOT_PROVEN"),
        ({"own_address": "10.77.0.3"}, {}, "NETWORK_NOT_PROVEN"),
        ({"own_address": "10.77.0.2", "address": "10.77.0.1"}, {}, None),
        ({"rejected": {"qemu-tcp": {"code": "NO", "reason": "x"}}}, {}, "NO"),
        ({}, {}, None),
        ({}, {"has_key": False}, None),
    ],
    ids=[
        "nobody accepts", "not any more", "no verdict", "untrusted", "old", "no address", "another address",
        "another source", "the other way",
        "controller knows", "proven", "nothing of ours listens",
    ],
)  # fmt: skip
def test_listeners_of_qemu_need_proof_acceptance_and_the_proven_address(changes, other, expected):
    nothing_listens = {key: POINT[key] for key in ("address", "own_address")}
    assert codes({**nothing_listens, **changes}, **other)["qemu-tcp"] == expected


def looked_at(state):
    """What check mode has: only one look at each node, nothing that was sent."""
    checks = [Check(1, node, state, "as it stands") for node in ("a1", "b1")]
    return judge("a1", "b1", "10.77.0.0/24", checks, now=NOW - 60).to_dict()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"network": looked_at(State.PASSED)}, None),
        ({"network": looked_at(State.FAILED)}, "was found unknown: check 1 on a1: as it stands"),
        ({"network": {}}, "there is no verdict of the role trusted_network"),
        ({"network": looked_at(State.PASSED), "address": "10.78.0.2"}, "10.78.0.2 is not in the network to be proven"),
    ],
    ids=["nothing failed", "failed", "no network given", "elsewhere"],
)
def test_check_mode_counts_of_the_proof_only_what_has_failed(changes, expected):
    point = MeetingPoint.parse({**POINT, **changes}, ACCEPTED)
    found = available(point, True, lambda _domain, _transport: None, NOW, proof_follows=True)["tcp"]
    assert (found and expected in found.reason) or found is expected
    assert available(point, True, lambda _domain, _transport: None, NOW)["tcp"].code == "NETWORK_NOT_PROVEN"


@pytest.mark.parametrize(
    ("changes", "clear_text", "expected"),
    [
        ({}, None, "nobody accepts clear text. Say who does"),
        ({}, {**ACCEPTED, "until": "2000-01-01"}, "accepted until 2000-01-01 by the network team, which is over. Have"),
        ({"network": verdict(at=NOW - 901)}, ACCEPTED, "was found private-proven 901 s ago. Prove it anew"),
        ({"own_address": "10.77.0.3"}, ACCEPTED, "10.77.0.1 and 10.77.0.2, not about 10.77.0.3 and 10.77.0.2"),
    ],
    ids=["nobody accepts", "not any more", "old", "another pair of the network"],
)
def test_reason_says_what_to_do(changes, clear_text, expected):
    point = MeetingPoint.parse({**POINT, "network": verdict(), **changes}, clear_text)
    assert expected in available(point, True, lambda _domain, _transport: None, NOW)["tcp"].reason


def test_reason_names_check_and_node_of_what_could_not_be_checked():
    stranger = "no host outside was named"
    checks = [
        Check(number, node, State.NOT_RUN if number == 10 else State.PASSED, stranger, "Name one.", part)
        for number, part in REQUIRED
        for node in ("a1", "b1")
    ]
    network = judge("a1", "b1", "10.77.0.0/24", checks, now=NOW).to_dict()
    found = available(MeetingPoint.parse({**POINT, "network": network}, ACCEPTED), True, lambda *_: None, NOW)
    assert found["tcp"].reason.endswith(f"was found unknown: check 10 on a1: {stranger}. Name one")


def test_own_certificate_may_serve_one_transport_and_not_the_other():
    bad = Rejection("CREDENTIALS_UNUSABLE", "its subject is not CN=a1 alone")
    point = MeetingPoint.parse(POINT)
    found = available(point, True, lambda _domain, transport: bad if transport == "qemu-tls" else None, NOW)
    assert (found["tls"], found["qemu-tls"]) == (None, bad)


def test_planes_are_what_is_between_the_workers():
    with pytest.raises(SpecInvalid, match="planes"):
        MeetingPoint.parse({**POINT, "planes": ["qemu-tls"]})


def test_the_controller_may_know_of_any_transport():
    rejected = {"qemu-tls": {"code": "X", "reason": "y"}}
    assert codes({**POINT, "rejected": rejected})["qemu-tls"] == "X"


def test_what_can_be_done_stands_behind_the_reason():
    rejected = {"tls": {"code": "X", "reason": "it has expired", "remedy": "Run the role certificates."}}
    point = MeetingPoint.parse({**POINT, "rejected": rejected})
    assert point.rejected["tls"].reason == "it has expired. Run the role certificates"
    assert MeetingPoint.parse(point.to_dict()).rejected == point.rejected


def test_json_form_says_the_same():
    more = {"limits": {"deadman": 3}, "rejected": {"tcp": {"code": "A", "reason": "b"}}, "network": verdict()}
    point = MeetingPoint.parse({**POINT, **more}, ACCEPTED)
    assert MeetingPoint.parse(point.to_dict()) == point


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("migration_id", "AB" * 16),
        ("migration_id", None),
        ("address", "b1.example.com"),
        ("address", None),
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("peer_name", "b 1"),
        ("own_name", None),
        ("domain", "../lab"),
        ("own_address", "x"),
        ("planes", ["udp"]),
        ("rejected", {"tcp": "no"}),
        ("limits", {"deadman": "soon"}),
        ("limits", [2]),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(option, value):
    with pytest.raises(SpecInvalid, match=rf"incoming\.{option}"):
        MeetingPoint.parse({**POINT, option: value})


def test_key_has_256_bits():
    assert is_key("0a" * 32)
    assert not any(is_key(text) for text in ("0a" * 31, "0A" * 32, None, "0a" * 32 + "\n"))
