# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange: who proves what, and who cannot."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network import exchange
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import (
    ExchangeBroken,
    NetworkInvalid,
)

KEY, OTHER_KEY = bytes(32), bytes([1]) * 32
N1, N2 = "1" * 64, "2" * 64
A, B = ("10.5.0.1", 40000), ("10.5.0.2", 60150)


def asker(key=KEY, own="a", peer="b", local=A, remote=B):
    return exchange.Asker(key, own, peer, N1, local, remote)


def answerer(key=KEY, own="b", peer="a", local=B, remote=A):
    return exchange.Answerer(key, own, peer, N2, local, remote)


def talk(one, other):
    found, proof = one.take(other.take(one.hello()))
    last = other.take(proof) if proof else b""
    return found, last


def test_both_prove_themselves_and_see_the_same_addresses():
    other = answerer()
    found, last = talk(asker(), other)
    assert found.proven
    assert (found.local, found.remote) == (found.seen, found.answered) == (A, B)
    assert other.proven
    assert json.loads(last) == {"done": True}


def test_translation_shows_to_the_asker_and_breaks_no_proof():
    seen = ("10.5.0.254", 1024)
    found, last = talk(asker(), answerer(remote=seen))
    assert found.proven
    assert (found.local, found.seen) == (A, seen)
    assert last


@pytest.mark.parametrize(
    "other", [answerer(key=OTHER_KEY), answerer(own="c"), answerer(peer="c"), answerer(own="a", peer="b")]
)
def test_who_has_not_the_key_or_another_name_is_not_proven(other):
    """The last one is a node's own answer, sent back to it."""
    found, last = talk(asker(), other)
    assert not found.proven
    assert last == b""


def test_asker_without_the_key_is_not_proven():
    other = answerer()
    other.take(asker(OTHER_KEY).hello())
    line = json.dumps({"proof": "0" * 64, "local": A, "remote": B}).encode()
    assert other.take(line) == b""
    assert not other.proven


def test_answer_to_another_nonce_is_not_proven():
    old = answerer()
    replayed = old.take(exchange.Asker(KEY, "a", "b", "3" * 64, A, B).hello())
    assert not asker().take(replayed)[0].proven


@pytest.mark.parametrize("field", ["seen", "local"])
def test_changed_address_is_not_proven(field):
    answer = json.loads(answerer().take(asker().hello()))
    answer[field] = ["10.5.0.9", 1]
    assert not asker().take(json.dumps(answer).encode())[0].proven


@given(st.binary(max_size=300) | st.dictionaries(st.text(), st.text()).map(lambda one: json.dumps(one).encode()))
def test_any_line_is_understood_or_refused(line):
    for side in (asker(), answerer()):
        try:
            side.take(line)
        except ExchangeBroken:
            pass


def test_line_that_is_too_long_is_refused():
    with pytest.raises(ExchangeBroken):
        answerer().take(json.dumps({"nonce": N1, "more": "x" * exchange.MAX_LINE}).encode())


@pytest.mark.parametrize(
    "end", [None, [], ["a"], ["a", 0], ["a", 65536], ["a", True], [1, 1], ["a\n", 1], ["a" * 65, 1]]
)
def test_end_that_is_none_is_refused(end):
    answer = json.loads(answerer().take(asker().hello()))
    with pytest.raises(ExchangeBroken):
        asker().take(json.dumps({**answer, "seen": end}).encode())


@given(st.integers(exchange.SMALLEST_ECHO, 9000), st.integers(0, 1 << 31))
def test_datagram_has_its_size_and_number(size, number):
    packet = exchange.echo_packet(KEY, exchange.ASK, number, size)
    assert len(packet) == size
    assert exchange.echo_sequence(KEY, exchange.ASK, packet) == number
    assert exchange.echo_sequence(KEY, exchange.ANSWER, packet) is None
    assert exchange.echo_sequence(OTHER_KEY, exchange.ASK, packet) is None


@given(st.binary(max_size=100))
def test_any_datagram_but_ours_is_none(packet):
    assert exchange.echo_sequence(KEY, exchange.ASK, packet) is None


def test_directions_have_keys_of_their_own():
    assert exchange.echo_key(KEY, "a", "b") != exchange.echo_key(KEY, "b", "a")


@pytest.mark.parametrize("text", [None, "", "0" * 63, "0" * 65, "g" * 64, b"0" * 64, "0" * 64 + "\n"])
def test_key_that_is_none_is_refused_and_not_told(text):
    with pytest.raises(NetworkInvalid) as caught:
        exchange.parse_key(text)
    assert "0000" not in str(caught.value)
