# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task ids and the status a last log line means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.node.base import Die
from lab.node.tasks import Upid, status_of_line


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("TASK OK", "OK"),
        ("TASK WARNINGS: 3", "WARNINGS: 3"),
        ("TASK ERROR: VM is locked (migrate)", "VM is locked (migrate)"),
        ("TASK ERROR: Exiting mtunnel", "Exiting mtunnel"),
        ("received command 'resume'", "unexpected status"),
        ("a stray line after TASK OK", "unexpected status"),
        ("", "unexpected status"),
    ],
)
def test_status_of_the_last_line(line: str, status: str) -> None:
    assert status_of_line(line) == status


NUMBER = st.integers(min_value=0, max_value=0xFFFFFFFF)


@given(
    NUMBER,
    NUMBER,
    NUMBER,
    st.sampled_from(["root@pam", "root@pam!migration", "mig@pve!t1"]),
    st.sampled_from(["100", "113@local", ""]),
)
def test_a_task_id_reads_back(pid: int, pstart: int, starttime: int, user: str, ident: str) -> None:
    upid = Upid("alpha1", pid, pstart, starttime, "qmtunnel", ident, user)
    assert Upid.parse(str(upid)) == upid
    assert str(upid).endswith(":")
    assert upid.file.startswith("/var/log/pve/tasks/")


@pytest.mark.parametrize(
    "text", ["", "UPID:x", "UPID:alpha1:1:2:3:a:b:c:", "UPID:alpha1:00000001:00000001:00000001:a:b:c"]
)
def test_other_text_is_no_task_id(text: str) -> None:
    with pytest.raises(Die, match="unable to parse worker upid"):
        Upid.parse(text)
