# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of a migration, the newest of a VM, and the lock of its only worker."""

from __future__ import annotations

import os

import pytest
from unit.fakes.migration_run import spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import places
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import JournalUnreadable, NotFound
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import FORMAT, Journal


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))


def write(migration_id, opened_at, uuid="u", vmid=100):
    directory = places.migration_directory(migration_id)
    os.makedirs(directory)
    journal = Journal(places.journal_path(migration_id))
    spec = spec_of(source={"vmid": vmid})
    journal.record(
        "opened",
        format=FORMAT,
        migration_id=migration_id,
        spec=spec.to_dict(),
        spec_digest=spec.digest,
        uuid=uuid,
        time=opened_at,
        phase="preflight",
    )
    journal.close()


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n", 7])
def test_only_an_id_becomes_a_path(text):
    with pytest.raises(NotFound):
        places.journal_path(text)


def test_newest_migration_of_a_vm_counts():
    write("a" * 32, 1.0)
    write("b" * 32, 3.0)
    write("c" * 32, 2.0)
    write("d" * 32, 9.0, uuid="other", vmid=101)
    assert places.newest(vmid=100).migration_id == "b" * 32
    assert places.newest(uuid="u").migration_id == "b" * 32
    assert places.newest(vmid=100, uuid="other") is None
    assert places.newest(vmid=102) is None


def test_damaged_journal_is_not_passed_over(tmp_path):
    write("a" * 32, 1.0)
    with open(places.journal_path("a" * 32), "r+b") as stream:
        stream.write(b"99999999")
        stream.seek(0, 2)
        stream.write(b"2 00000000 {}\n")
    with pytest.raises(JournalUnreadable) as caught:
        places.newest(vmid=100)
    assert caught.value.object == places.journal_path("a" * 32)


def test_damaged_journal_of_another_vm_does_not_stand_in_the_way():
    write("a" * 32, 1.0, vmid=101)
    with open(places.journal_path("a" * 32), "ab") as stream:
        stream.write(b"2 00000000 {}\n2 00000000 {}\n")
    assert places.newest(vmid=100) is None


def test_journals_of_a_vm_are_given_oldest_first():
    write("a" * 32, 3.0)
    write("b" * 32, 1.0)
    write("c" * 32, 2.0, vmid=101)
    assert [facts.migration_id for facts in places.of_vm(100)] == ["b" * 32, "a" * 32]


def test_directory_without_a_record_is_no_migration(tmp_path):
    os.makedirs(places.migration_directory("a" * 32))
    assert places.newest(vmid=100) is None


def test_vm_lock_is_held_by_one():
    first, second = places.VmLock(100), places.VmLock(100)
    assert first.take()
    assert not second.take()
    assert places.VmLock(101).take()
    first.release()
    assert second.take()


def test_vm_lock_tells_whose_it_is():
    first, second = places.VmLock(100), places.VmLock(100)
    assert first.take("a" * 32)
    assert not second.take("b" * 32)
    assert second.holder() == "a" * 32
    first.release()
    assert second.take("b" * 32)
    assert first.holder() == "b" * 32
