# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: whole lines only, a torn tail cut off, damage told, room missing told."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import journal
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    JournalUnreadable,
    JournalUnwritable,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import Journal, decode, encode

RECORDS = st.lists(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4),
    max_size=6,
)


@given(RECORDS)
def test_journal_gives_back_what_was_written(records):
    data = b"".join(encode(record) for record in records)
    assert decode(data) == (records, len(data))


@given(RECORDS, st.data())
def test_journal_cut_at_any_byte_keeps_its_whole_lines(records, data):
    whole = b"".join(encode(record) for record in records)
    cut = data.draw(st.integers(0, len(whole)))
    found, length = decode(whole[:cut])
    assert found == records[: len(found)]
    assert length == len(b"".join(encode(record) for record in found))


@given(st.integers(0, 39))
def test_damaged_line_in_the_middle_is_told(position):
    first, second = encode({"kind": "opened", "number": 123456789}), encode({"kind": "next"})
    damaged = bytearray(first)
    damaged[position % (len(first) - 1)] ^= 0x01
    if bytes(damaged) == first:
        return
    with pytest.raises(JournalUnreadable):
        decode(bytes(damaged) + second)


def test_writer_cuts_a_torn_tail_off_and_goes_on(tmp_path):
    path = str(tmp_path / "journal")
    first = Journal(path)
    first.record("opened", number=1)
    first.close()
    with open(path, "ab") as stream:
        stream.write(b"57 0000")
    second = Journal(path)
    second.record("next")
    second.close()
    assert [record["kind"] for record in journal.read(path)] == ["opened", "next"]


def test_record_that_finds_no_room_leaves_whole_lines(tmp_path, monkeypatch):
    path = str(tmp_path / "journal")
    writer = Journal(path)
    writer.record("opened")
    write = os.write

    def short(descriptor, data):
        return write(descriptor, data[:5])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(JournalUnwritable):
        writer.record("next")
    monkeypatch.undo()
    assert [record["kind"] for record in journal.read(path)] == ["opened"]
    assert [record["kind"] for record in writer.records] == ["opened"]


def test_record_whose_fsync_fails_does_not_count(tmp_path, monkeypatch):
    path = str(tmp_path / "journal")
    writer = Journal(path)
    writer.record("opened")

    def broken(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JournalUnwritable):
        writer.record("COMMIT_INTENT")
    monkeypatch.undo()
    assert [record["kind"] for record in journal.read(path)] == ["opened"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path, data):
    path = tmp_path / "journal"
    path.write_bytes(data)
    with contextlib.suppress(JournalUnreadable):
        assert isinstance(journal.read(str(path)), list)


def test_missing_journal_is_empty(tmp_path):
    assert journal.read(str(tmp_path / "none")) == []


def test_journal_is_readable_by_root_only(tmp_path):
    writer = Journal(str(tmp_path / "journal"))
    writer.record("opened")
    assert os.stat(writer.path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("crash", ["write", "fsync", "rename"])
def test_crash_at_the_first_record_leaves_no_journal(tmp_path, monkeypatch, crash):
    path = str(tmp_path / "journal")

    def dies(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, crash, dies)
    with pytest.raises(KeyboardInterrupt):
        Journal.create(path, "opened", vmid=100)
    monkeypatch.undo()
    assert not os.path.exists(path)


def test_created_journal_has_its_first_record(tmp_path):
    path = str(tmp_path / "journal")
    Journal.create(path, "opened", vmid=100)
    assert journal.read(path) == [{"kind": "opened", "vmid": 100}]
    assert os.listdir(tmp_path) == ["journal"]
