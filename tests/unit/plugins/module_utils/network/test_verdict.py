# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The class follows from the evidence and from nothing else."""

from __future__ import annotations

import datetime
import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network.addresses import HeldAddress, Link
from ansible_collections.crosscluster.migration.plugins.module_utils.network.checks import NodeFacts, check_own_address
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import Check, State
from ansible_collections.crosscluster.migration.plugins.module_utils.network.verdict import (
    CLOCK_SKEW,
    ENCRYPTION,
    LIFETIME,
    REQUIRED,
    Statement,
    Trust,
    Verdict,
    judge,
)

NOW = 1_800_000_000.0
STATEMENT = Statement("operator", datetime.date(2099, 1, 1))
KEYS = (*REQUIRED, ENCRYPTION, (13, ""))
NODES = ("a", "b")


def proven(state=State.PASSED, encryption=State.NOTED):
    return [
        Check(number, node, encryption if (number, part) == ENCRYPTION else state, "x", part=part)
        for number, part in KEYS
        for node in NODES
    ]


def trust(checks, statement=None, now=NOW):
    return judge("a", "b", "10.5.0.0/24", checks, now=now, statement=statement).trust


def test_all_passed_is_private_proven():
    assert trust(proven()) is Trust.PRIVATE_PROVEN


def test_all_passed_and_both_ends_encrypted_is_encrypted():
    assert trust(proven(encryption=State.PASSED)) is Trust.ENCRYPTED


def test_one_end_encrypted_is_not_encrypted():
    checks = [c for c in proven(encryption=State.PASSED) if (c.number, c.node) != (11, "b")]
    assert trust([*checks, Check(11, "b", State.NOTED, "x")]) is Trust.PRIVATE_PROVEN


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(("number", "part"), [*REQUIRED, ENCRYPTION])
@pytest.mark.parametrize("encryption", [State.NOTED, State.PASSED])
def test_each_check_counts_on_each_node(number, part, node, encryption):
    others = [c for c in proven(encryption=encryption) if (c.number, c.part, c.node) != (number, part, node)]
    assert trust([*others, Check(number, node, State.FAILED, "x", part=part)], STATEMENT) is Trust.UNKNOWN
    for rest in (others, [*others, Check(number, node, State.NOT_RUN, "x", part=part)]):
        assert trust(rest) is Trust.UNKNOWN
        assert trust(rest, STATEMENT) is Trust.PRIVATE_CLAIMED


@pytest.mark.parametrize(("number", "part"), REQUIRED)
def test_noted_is_not_passed(number, part):
    others = [c for c in proven() if (c.number, c.part, c.node) != (number, part, "a")]
    assert not trust([*others, Check(number, "a", State.NOTED, "x", part=part)], STATEMENT).clear_text_allowed


def test_nothing_known_is_unknown_and_claimed_on_ones_word():
    assert trust([]) is Trust.UNKNOWN
    assert trust([], STATEMENT) is Trust.PRIVATE_CLAIMED


def test_word_that_has_run_out_is_none():
    assert trust([], Statement("operator", datetime.date(2020, 1, 1))) is Trust.UNKNOWN


def test_checks_of_other_nodes_do_not_count():
    assert trust([Check(c.number, "c", c.state, c.finding, part=c.part) for c in proven()]) is Trust.UNKNOWN


def test_node_is_no_pair_with_itself():
    found = judge("a", "a", "10.5.0.0/24", proven(), now=NOW)
    assert found.trust is Trust.UNKNOWN


def test_what_is_missing_is_shown():
    found = judge("a", "b", "10.5.0.0/24", [], now=NOW)
    assert {(c.number, c.part, c.node) for c in found.checks} == {
        (number, part, node) for number, part in (*REQUIRED, ENCRYPTION) for node in NODES
    }


CHECKS = st.lists(
    st.builds(
        lambda key, node, state: Check(key[0], node, state, "x", part=key[1]),
        st.sampled_from(KEYS),
        st.sampled_from(NODES),
        st.sampled_from(State),
    ),
    max_size=4,
)
STATEMENTS = st.sampled_from([None, STATEMENT])
BEST_FIRST = [Trust.ENCRYPTED, Trust.PRIVATE_PROVEN, Trust.PRIVATE_CLAIMED, Trust.UNKNOWN]


@given(CHECKS, st.sets(st.integers(0, 40), max_size=3), STATEMENTS, st.sampled_from([State.NOTED, State.PASSED]))
def test_less_or_worse_evidence_never_raises_the_class(extra, holes, statement, encryption):
    """Some evidence is missing, some was added: neither taking one more away nor failing one more helps."""
    checks = [c for at, c in enumerate(proven(encryption=encryption)) if at not in holes] + extra
    before = BEST_FIRST.index(trust(checks, statement))
    for at, check in enumerate(checks):
        worse = [*checks[:at], Check(check.number, check.node, State.FAILED, "x", part=check.part), *checks[at + 1 :]]
        assert BEST_FIRST.index(trust(worse, statement)) >= before
        if check.state is State.PASSED:
            assert BEST_FIRST.index(trust(checks[:at] + checks[at + 1 :], statement)) >= before


@given(CHECKS, STATEMENTS)
def test_clear_text_needs_every_required_check(checks, statement):
    assert not trust(checks, statement).clear_text_allowed


@pytest.mark.parametrize(
    ("age", "worth"),
    [(0, True), (LIFETIME, True), (LIFETIME + 1, False), (-CLOCK_SKEW, True), (-CLOCK_SKEW - 1, False)],
)
def test_verdict_is_worth_something_for_a_quarter_of_an_hour(age, worth):
    found = judge("a", "b", "10.5.0.0/24", proven(), now=NOW)
    assert found.trust_at(NOW + age).clear_text_allowed is worth


@pytest.mark.parametrize("statement", [None, STATEMENT])
def test_verdict_comes_back_as_it_went(statement):
    found = judge("a", "b", "10.5.0.0/24", proven(), now=NOW, statement=statement)
    assert Verdict.parse(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "encrypted"}, {"checks": []}, {"checks": None}, {"checked_at": "now"}, {"checked_at": True},
        {"source": ""}, {"target": None}, {"checked_at": -1},
    ],
)  # fmt: skip
def test_verdict_that_its_evidence_does_not_carry_is_refused(change):
    raw = judge("a", "b", "10.5.0.0/24", proven(), now=NOW).to_dict()
    with pytest.raises(NetworkInvalid):
        Verdict.parse({**raw, **change})


@pytest.mark.parametrize(
    "raw",
    [
        None, "me", {}, {"accepted_by": "me"}, {"until": "2026-12-31"}, {"accepted_by": " ", "until": "2026-12-31"},
        {"accepted_by": "me", "until": "soon"}, {"accepted_by": "me", "until": "2026-12-31", "more": 1},
        {"accepted_by": "me", "until": None},
    ],
)  # fmt: skip
def test_statement_that_says_nothing_is_refused(raw):
    with pytest.raises(NetworkInvalid):
        Statement.parse(raw)


@pytest.mark.parametrize("until", ["2026-12-31", datetime.date(2026, 12, 31)])
def test_statement_holds_through_its_day(until):
    found = Statement.parse({"accepted_by": "me", "until": until})
    last = datetime.datetime(2026, 12, 31, 23, 59, tzinfo=datetime.timezone.utc).timestamp()
    assert found.holds_at(last)
    assert not found.holds_at(last + 60)


@pytest.mark.parametrize("text", ["10.5.0.7/24", "fd00:5::7/64"])
def test_address_of_a_node_is_what_check_2_has_found(text):
    """In the very words of the check, so that neither changes without the other."""
    interface = ipaddress.ip_interface(text)
    link = Link("mig", "", True, 1500, "", "", "", "ether", False, (HeldAddress(interface, True),))
    facts = NodeFacts(**{**dict.fromkeys(NodeFacts.__dataclass_fields__), "links": (link,)})
    found = check_own_address(facts, interface.network, "b")
    others = [check for check in proven() if (check.number, check.part, check.node) != (2, "", "b")]
    verdict = judge("a", "b", str(interface.network), [*others, found], now=NOW)
    assert verdict.address_of("b") == interface.ip
    assert verdict.address_of("a") is None  # evidence that tells no address
    assert verdict.address_of("c") is None
