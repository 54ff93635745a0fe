# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The journal: the only durable record of a migration, on the source node (safety 4, 5).

One record a line: ``<length> <crc32> <json>``. A record counts when its line is whole; a torn last line is what a
crash leaves and is cut off by the next writer. Every record is fsynced before the call returns, the directory too
when the file is made. Knows nothing of what the records mean; :mod:`history` does.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any, Dict, List, Tuple

from ..errors import Side
from .errors import JournalUnreadable, JournalUnwritable

__all__ = ["FORMAT", "Journal", "decode", "encode", "read", "sync_directory"]

FORMAT = 1
_LIMIT = 16 << 20  # bytes; a journal of some hundred records has a few 10 KiB


def encode(record: Dict[str, Any]) -> bytes:
    """One line of the journal."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")
    return b"%d %08x %s\n" % (len(text), zlib.crc32(text), text)


def _decode_line(line: bytes) -> Dict[str, Any]:
    length, checksum, text = line.split(b" ", 2)
    if int(length) != len(text) or int(checksum, 16) != zlib.crc32(text):
        raise ValueError("length or checksum does not fit")
    record = json.loads(text.decode("ascii"))
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def decode(data: bytes, name: str = "journal") -> Tuple[List[Dict[str, Any]], int]:
    """The records of a journal and the number of bytes they fill (a torn last line is not counted).

    Raises:
        JournalUnreadable: a line before the last one is damaged: not what a crash leaves.
    """
    records: List[Dict[str, Any]] = []
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        if end < 0:
            break
        try:
            records.append(_decode_line(data[position:end]))
        except ValueError as error:
            if end == len(data) - 1:
                break
            raise JournalUnreadable(
                f"the journal {name} is damaged at byte {position}: {error}",
                side=Side.SOURCE,
                object=name,
                remedy="Do not start either copy; compare both sides by hand (docs: recovery)",
            ) from error
        position = end + 1
    return records, position


def read(path: str) -> List[Dict[str, Any]]:
    """The records of the journal at ``path``; empty when there is none.

    Raises:
        JournalUnreadable: unreadable or damaged.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LIMIT + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalUnreadable(f"cannot read {path}: {error.strerror}", side=Side.SOURCE, object=path) from error
    if len(data) > _LIMIT:
        raise JournalUnreadable(f"{path} has more than {_LIMIT} bytes", side=Side.SOURCE, object=path)
    return decode(data, path)[0]


class Journal:
    """An append-only journal file; the writer holds the VM's lock, so there is only one.

    Raises:
        JournalUnwritable: the disk is full or the file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        fresh = not os.path.exists(path)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.records = self._load()
            if fresh:
                sync_directory(os.path.dirname(path))
        except OSError as error:
            raise self._unwritable(error) from error

    @classmethod
    def create(cls, path: str, kind: str, **fields: Any) -> None:
        """Make a journal of one record; a crash leaves none or a whole one: an empty one says nothing to anybody.

        Raises:
            JournalUnwritable: there is none.
        """
        draft = cls(path + ".new")
        draft.record(kind, **fields)
        draft.close()
        os.rename(draft.path, path)
        sync_directory(os.path.dirname(path))

    def _load(self) -> List[Dict[str, Any]]:
        data = os.pread(self._file, _LIMIT, 0)
        records, length = decode(data, self.path)
        if length < len(data):
            os.ftruncate(self._file, length)
            os.fsync(self._file)
        return records

    def record(self, kind: str, **fields: Any) -> Dict[str, Any]:
        """Append one record and fsync it. Returns the record.

        Raises:
            JournalUnwritable: nothing of it counts; the file is cut back to whole lines.
        """
        entry = dict(fields, kind=kind)
        line = encode(entry)
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            raise self._unwritable(error) from error
        self.records.append(entry)
        return entry

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _unwritable(self, error: OSError) -> JournalUnwritable:
        return JournalUnwritable(
            f"cannot write the journal {self.path}: {error.strerror}",
            side=Side.SOURCE,
            object=self.path,
            remedy="Make room on the file system of /var/lib/crosscluster and run the play again",
        )


def sync_directory(path: str) -> None:
    """Make new names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
