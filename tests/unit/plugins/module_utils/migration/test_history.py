# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts that the records of a journal tell."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import JournalUnreadable
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.history import fold
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import FORMAT
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase

OPENED = {
    "kind": "opened",
    "format": FORMAT,
    "migration_id": "a" * 32,
    "spec": spec_of().to_dict(),
    "spec_digest": spec_of().digest,
    "uuid": "u",
    "phase": "preflight",
}


def test_volume_that_was_asked_for_but_not_answered_has_no_name():
    facts = fold([OPENED, {"kind": "allocating", "key": "scsi0", "storage": "fast"}])
    assert facts.volumes["scsi0"].volid is None
    facts = fold(
        [
            OPENED,
            {"kind": "allocating", "key": "scsi0", "storage": "fast"},
            {"kind": "volume", "key": "scsi0", "storage": "fast", "volid": "fast:1/a", "drive": "fast:1/a,size=1G"},
        ]
    )
    assert facts.volumes["scsi0"].volid == "fast:1/a"


def test_number_that_was_refused_is_not_ours():
    facts = fold([OPENED, {"kind": "reserving", "vmid": 200, "volumes_before": []}, {"kind": "not_reserved"}])
    assert facts.target_vmid is None


def test_new_attempt_forgets_the_mirrors_and_keeps_the_volumes():
    facts = fold(
        [
            OPENED,
            {"kind": "volume", "key": "scsi0", "storage": "fast", "volid": "fast:1/a"},
            {"kind": "phase", "phase": "allocated"},
            {"kind": "starting"},
            {"kind": "mirror", "key": "scsi0", "job": "j", "node": "n"},
            {"kind": "phase", "phase": "allocated", "outcome": "not_synced"},
        ]
    )
    assert (facts.attempts, facts.mirrors, list(facts.volumes)) == (1, {}, ["scsi0"])


def test_unknown_kind_of_a_later_version_is_passed_over():
    assert fold([OPENED, {"kind": "news", "text": "x"}]).phase is Phase.PREFLIGHT


@pytest.mark.parametrize(
    "record",
    [
        {**OPENED, "format": 99},
        {"kind": "reserving"},
        {"kind": "phase", "phase": "nowhere"},
        {"kind": "limits", "limits": 3},
    ],
    ids=["format", "field", "phase", "type"],
)
def test_record_without_its_fields_is_told(record):
    with pytest.raises(JournalUnreadable):
        fold([OPENED, record])
