# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines between worker and pump: they come back as they went, and the secret never leaves its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import SettingsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    EventName,
    Kind,
    PumpEvent,
    PumpSettings,
    kind_of,
)

SECRET = "1234-secret"
SETTINGS = PumpSettings(
    name="ram", kind=Kind.RAM, endpoint={"host": "b1"}, path="/x?ticket=y", listen="/run/x/ram.sock"
)


def test_settings_come_back_with_the_secret_beside_them():
    line = SETTINGS.to_line(SECRET)
    assert line.count(b"\n") == 1
    assert PumpSettings.parse(line) == (SETTINGS, SECRET)


def test_secret_is_no_part_of_the_settings():
    assert SECRET not in repr(SETTINGS)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b'{"settings": {}, "secret": "1234-secret"}',
     SETTINGS.to_line(SECRET).replace(b'"ram"', b'"x"'),
     SETTINGS.to_line(SECRET).replace(b'"rate"', b'"tare"')],
    ids=["nothing", "list", "empty", "no-settings", "kind", "unknown-key"],
)  # fmt: skip
def test_settings_that_cannot_be_read_never_repeat_the_line(line):
    with pytest.raises(SettingsInvalid) as caught:
        PumpSettings.parse(line)
    assert SECRET not in str(caught.value.to_dict())


@pytest.mark.parametrize(("listen", "input_fd"), [(None, None), ("/x", 3)])
def test_exactly_one_near_end_is_given(listen, input_fd):
    values = {**vars(SETTINGS), "listen": listen, "input_fd": input_fd}
    with pytest.raises(SettingsInvalid):
        PumpSettings.parse(PumpSettings(**values).to_line(SECRET))


@given(
    st.sampled_from(EventName), st.dictionaries(st.text(max_size=5).filter(lambda key: key != "event"), st.integers())
)
def test_events_come_back(name, facts):
    line = PumpEvent(name, facts).to_line()
    assert line.count(b"\n") == 1
    assert PumpEvent.parse(line) == PumpEvent(name, facts)


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"event": "dance"}'])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011  the type is the contract
        PumpEvent.parse(line)


KEY = "ab" * 32
DIRECT = DirectSettings(
    name="scsi0", kind=Kind.NBD, plane="tcp", address="192.0.2.2", port=60100, peer_name="b1", own_name="a1",
    migration_id="0" * 32, stream="disk/scsi0", limits={"deadman": 3.0},
)  # fmt: skip


def test_direct_settings_come_back_with_the_key_beside_them():
    line = DIRECT.to_line(KEY)
    assert line.count(b"\n") == 1
    assert DirectSettings.parse(line) == (DIRECT, KEY)
    assert KEY not in repr(DIRECT)


def test_first_line_says_which_pump_is_meant():
    assert DirectSettings.is_meant(DIRECT.to_line(KEY))
    assert not DirectSettings.is_meant(SETTINGS.to_line(SECRET))
    assert not DirectSettings.is_meant(b"no settings")


@pytest.mark.parametrize(
    ("changes", "key"),
    [({}, ""), ({"plane": "tls"}, ""), ({"plane": "tls", "credentials": "/pki"}, KEY), ({"plane": "udp"}, KEY),
     ({"stream": "ram"}, KEY), ({"stream": "tape/0"}, KEY), ({"input_fd": 3}, KEY),
     ({"kind": Kind.IMPORT, "stream": "import/tpm"}, KEY), ({"credentials": "/pki"}, KEY),
     ({"kind": Kind.CONTROL, "stream": "control", "opaque": True}, KEY),
     ({"plane": "tls", "credentials": "/pki", "opaque": True}, "")],
)  # fmt: skip
def test_direct_settings_that_contradict_each_other_are_refused(changes, key):
    with pytest.raises(SettingsInvalid) as caught:
        DirectSettings.parse(DirectSettings(**{**vars(DIRECT), **changes}).to_line(key))
    assert KEY not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    ("stream", "kind"),
    [("ram", Kind.RAM), ("ram.2", Kind.RAM), ("disk/scsi0", Kind.NBD), ("disk/scsi0.3", Kind.NBD),
     ("import/tpmstate0", Kind.IMPORT), ("control", Kind.CONTROL), ("disk", None), ("ram/0", None), ("", None)],
)  # fmt: skip
def test_name_of_a_stream_says_what_it_carries(stream, kind):
    assert kind_of(stream) is kind
