# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts of the conformance runner: reader, placeholders, comparison, frames."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from conformance import replay, run
from conformance.bind import Bindings
from conformance.capture import Capture
from conformance.drivers import control, data
from conformance.normalise import Comparer
from conformance.preconditions import needs
from conformance.session import Session
from conformance.wire import frame

CAPTURES = Path(__file__).resolve().parents[2] / "conformance" / "captures"
UPID = "UPID:target:0000002A:0003F8B1:6B01DE31:qmtunnel:200:mig@pve!t1:"


def comparer(**values: str) -> Comparer:
    return Comparer(Bindings([(re.compile(r"11\.1\.3"), "7.2.22")], values))


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_recording_can_be_read(path: Path) -> None:
    capture = Capture.read(path)
    assert capture.scenario["name"] == path.stem
    assert capture.events


def test_volatile_text_is_accepted_and_other_text_is_not() -> None:
    same = comparer().same_text
    assert same("688+230 records in\n", "1+0 records in\n")
    assert same(
        "8384 bytes (8.4 kB, 8.2 KiB) copied, 0.000124526 s, 67.3 MB/s\n", "8384 bytes copied, 0.1 s, 84 kB/s\n"
    )
    assert not same("688+230 records in\n", "688+230 records out\n")
    assert same("QEMU version '11.1.3' is too old", "QEMU version '7.2.22' is too old")


def test_progress_of_a_slow_copy_does_not_count() -> None:
    end = "16384+0 records in\n16384+0 records out\n67108864 bytes (67 MB, 64 MiB) copied, 0.3 s, 219 MB/s\n"
    shown = "\r35651584 bytes (36 MB, 34 MiB) copied, 1 s, 35.6 MB/s"
    assert comparer().same_text(end, shown + shown.replace("1 s", "2 s") + "\n" + end)


def test_only_the_text_before_a_perl_location_counts() -> None:
    same = comparer().same_text
    assert same("Not a HASH reference at {{PERL_LOCATION}}\n", "Not a HASH reference at /usr/x.pm line 7.\n")
    assert not same("Not a HASH reference at {{PERL_LOCATION}}\n", "Not an ARRAY reference at /usr/x.pm line 7.\n")


def test_errors_of_several_parameters_come_in_any_order() -> None:
    head = "400 Parameter verification failed.\n"
    assert comparer().same_text(head + "a: x\nb: y\n", head + "b: y\na: x\n")
    assert not comparer().same_text(head + "a: x\nb: y\n", head + "b: y\n")


def test_types_and_keys_must_be_equal() -> None:
    differences = comparer().differences
    assert differences({"bwlimit": 1000}, {"bwlimit": "1000"})
    assert differences({"success": True}, {"success": 1})
    assert differences({"success": True}, {"success": True, "extra": None})
    assert differences({"success": True, "api": 2}, {"success": True})
    assert not differences({"success": True}, {"success": True, "extra": None}, partial=True)


def test_a_ticket_is_bound_where_it_is_first_seen() -> None:
    bindings = Bindings([], {})
    assert not Comparer(bindings).differences({"ticket": "{{TICKET:1}}"}, {"ticket": "PVETUNNEL:6B::a+b/c="})
    assert bindings.fill_text("ticket={{TICKET:1|urlencoded}}") == "ticket=PVETUNNEL%3A6B%3A%3Aa%2Bb%2Fc%3D"
    with pytest.raises(KeyError):
        bindings.fill_text("{{TICKET:2}}")


def test_a_task_named_by_placeholders_is_the_last_one_of_its_kind() -> None:
    bindings = Bindings([], {})
    bindings.note(UPID.replace("0000002A", "00000001"))
    bindings.note(UPID)
    quoted = "UPID%3Atarget%3A{{PID}}%3A{{PSTART}}%3A{{STARTTIME}}%3Aqmtunnel%3A200%3Amig%40pve%21t1%3A"
    assert bindings.fill_text("UPID:target:{{PID}}:{{PSTART}}:{{STARTTIME}}:qmtunnel:200:mig@pve!t1:") == UPID
    assert "0000002A" in bindings.fill_text(f"/tasks/{quoted}/status")


def test_log_lines_of_the_qemu_build_are_left_out() -> None:
    warning = "QEMU: kvm: -mon chardev=qmp,mode=control: warning: '-mon' is deprecated, use '-object'"
    assert not comparer().same_lines(["mtunnel started", warning, "TASK OK"], ["mtunnel started", "TASK OK"])
    assert comparer().same_lines(["mtunnel started"], ["mtunnel started", "TASK OK"])


def test_illegal_frames_can_be_made() -> None:
    assert frame(2, b"x") == b"\x82\x81\0\0\0\0x"
    assert frame(3, b"", masked=False) == b"\x83\x00"
    assert frame(2, b"", fin=False, rsv=4) == b"\x42\x80\0\0\0\0"
    assert frame(2, b"x" * 200000)[:10] == b"\x82\xff\x00\x00\x00\x00\x00\x03\x0d\x40"


@pytest.mark.parametrize(
    ("shape", "bad"),
    [
        ({"opcode": 2, "payload_len": 131072}, False),
        ({"opcode": 2, "payload_len": 131073}, True),
        ({"opcode": 9}, False),
        ({"opcode": 0}, True),
        ({"opcode": 3}, True),
        ({"opcode": 2, "fin": False}, True),
        ({"opcode": 2, "rsv": 1}, True),
        ({"opcode": 2, "masked": False}, True),
    ],
)
def test_frames_that_end_a_worker_are_known(shape: "dict[str, Any]", bad: bool) -> None:
    payload = b"x" * shape.get("payload_len", 5)
    wire = frame(shape["opcode"], payload, shape.get("fin", True), shape.get("rsv", 0), shape.get("masked", True))
    assert control.illegal(shape, wire) == bad


def test_volumes_are_freed_in_any_order() -> None:
    lines = ["received command 'quit'", "freeing volume 'local:1/a' as part of cleanup"]
    other = "freeing volume 'local:1/b' as part of cleanup"
    end = "switching to exit-mode, waiting for client to disconnect"
    assert not comparer().same_lines([*lines, other, end], [lines[0], other, lines[1], end])
    assert comparer().same_lines([*lines, other, end], [*lines, end, other])


def recording(directory: Path, *events: "dict[str, Any]", version: str = "9.2.6") -> Capture:
    first = {"kind": "scenario", "name": "x", "title": "x", "target_pve": version}
    bodies = [{"t": 0, "channel": "note", "dir": None, "body": first}, *events]
    path = directory / "x.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in bodies), encoding="utf-8")
    return Capture.read(path)


def test_what_a_recording_tells_about_roles_and_storages(tmp_path: Path) -> None:
    told = "Sys.Incoming on /; VM.Allocate,VM.Config.{CPU,Disk} on /vms"
    case = {"kind": "case", "text": "token of user odd@pve", "privileges": told}
    reply = {"volid": "second:610/vm-610-disk-0.raw", "drivestr": "x", "success": True}
    found = needs(
        recording(
            tmp_path,
            {"t": 1, "channel": "note", "dir": None, "body": case},
            {"t": 2, "channel": "control", "dir": "S>C", "conn": "ctrl:610", "body": reply},
        )
    )
    assert found.privileges["odd@pve"] == [
        (False, "/", "Sys.Incoming"),
        (True, "/vms", "VM.Allocate,VM.Config.CPU,VM.Config.Disk"),
    ]
    assert found.storages == {"second": "images"}


def test_no_recording_is_left_out_silently(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no recordings"):
        run.files(tmp_path, [])
    (tmp_path / "deeper").mkdir()
    recording(tmp_path / "deeper")
    assert [path.name for path in run.files(tmp_path, [])] == ["x.jsonl"]


def test_events_that_nothing_knows_are_failures_with_a_reason(tmp_path: Path) -> None:
    strange = {"t": 1, "channel": "smoke", "dir": "C>S", "body": {}}
    note = {"t": 2, "channel": "note", "dir": None, "body": {"kind": "weather", "text": "rain"}}
    action = {"t": 3, "channel": "note", "dir": None, "body": {"kind": "action", "text": "it rains"}}
    capture = recording(tmp_path, strange, note, action)
    session = Session(capture, cast(Any, None), Bindings([], {}), comparer())
    for event in capture.events:
        replay._one(session, event)
    assert [each.line for each in session.mismatches] == [2, 3, 4]
    assert all("nothing here knows how to replay" in each.text for each in session.mismatches)


def test_lines_of_an_import_may_come_earlier_than_recorded(tmp_path: Path) -> None:
    capture = recording(tmp_path, {"t": 1, "channel": "control", "dir": "S>C", "conn": "ctrl:1", "body": {}})
    session = Session(capture, cast(Any, None), Bindings([], {}), comparer())
    quiet, line = ({"status": "pending", "msg": msg, "success": True} for msg in ("", "Formatting\n"))
    done = {"status": "complete", "volid": "local:1/x.raw", "success": True}
    gone = {"success": False, "msg": "failed to handle 'query-disk-import' command - no disk import running\n"}
    recorded, here = [quiet, line, quiet, done], [line, done, gone, gone]
    got = [data.import_progress(session, capture.events[0], each, reply) for each, reply in zip(recorded, here)]
    assert got == recorded
    assert not session.facts["import ahead"]


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        ("9.2.6 (qemu-server 9.2.6, unmodified)", "hardened"),
        ("8.4.10", "hardened"),
        ("8.4.8", "classic"),
        ("qemu-server 9.1.10", "classic"),
        ("9.2.3", "transitional"),
        ("qemu-server 9.1.10 with the insecure-remote patch series v2", "seed"),
        ("9.2.6 with the insecure-remote patch series", "insecure"),
    ],
)
def test_the_generation_follows_the_recorded_version(tmp_path: Path, version: str, generation: str) -> None:
    assert needs(recording(tmp_path, version=version)).personality["personality"] == generation
