# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands: exactly the keys of the reference, nothing else, as one ASCII line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import commands
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import CommandInvalid

DRIVE = {"interface": "scsi", "index": "0", "size": 1 << 30}
NBD = {"scsi0": {"volid": "local:200/vm-200-disk-0.raw", "drivestr": "local:200/vm-200-disk-0.raw,size=1G"}}
ALL = [
    commands.version(),
    commands.config("cores: 1\n"),
    commands.bwlimit(["local"]),
    commands.disk("local", DRIVE, "raw"),
    commands.disk_import("vm-200-disk-0.raw", "raw", "local", ["raw+size"], False),
    commands.query_disk_import(),
    commands.start("a1", "b1", "pc-q35-9.0+pve0", NBD),
    commands.fstrim(),
    commands.stop(),
    commands.nbdstop(),
    commands.resume(),
    commands.unlock(),
    commands.ticket("/run/qemu-server/200.migrate"),
    commands.quit_tunnel(True),
]


def test_there_is_a_builder_for_each_of_the_14_commands():
    assert {command.name for command in ALL} == set(commands.Name)
    assert len(ALL) == 14


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name.value)
def test_line_is_one_ascii_json_object(command):
    line = command.line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == command.request()


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name.value)
def test_timeout_is_longer_than_the_config_lock_of_the_target(command):
    assert command.timeout > 10


@pytest.mark.parametrize(
    "command",
    [command for command in ALL if command.name.value in
     ("version", "query-disk-import", "fstrim", "stop", "nbdstop", "resume", "unlock")],
    ids=lambda command: command.name.value,
)  # fmt: skip
def test_command_without_parameters_sends_none(command):
    assert command.request() == {"cmd": command.name.value}


def test_quit_always_says_whether_to_clean_up():
    assert commands.quit_tunnel(True).request() == {"cmd": "quit", "cleanup": 1}
    assert commands.quit_tunnel(False).request() == {"cmd": "quit", "cleanup": 0}


def test_start_always_asks_for_nbd_on_a_unix_socket():
    options = commands.start("a1", "b1", "q35", {}).request()["migrate_opts"]
    assert options["nbd_proto_version"] == 1
    assert options["type"] == "websocket"
    assert commands.start("a1", "b1", "q35", {}).request()["start_params"]["statefile"] == "unix"


def test_start_sends_only_what_strict_targets_know():
    request = commands.start("a1", "b1", "q35", NBD, "net0=1500", "host").request()
    assert set(request) == {"cmd", "start_params", "migrate_opts"}
    assert set(request["start_params"]) == {"statefile", "forcemachine", "skiplock", "nets-host-mtu", "forcecpu"}
    assert set(request["migrate_opts"]) == {"type", "migratedfrom", "remote_node", "nbd_proto_version", "nbd"}
    assert request["migrate_opts"]["nbd"] == NBD


def test_start_leaves_out_what_there_is_not():
    assert set(commands.start("a1", "b1", "q35", NBD).request()["start_params"]) == {
        "statefile", "forcemachine", "skiplock",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "nics", "seconds"), [(512, 0, 40), (512, 2, 50), (65536, 0, 74)], ids=["small", "nics", "large"]
)
def test_start_timeout_grows_with_memory_and_nics(memory, nics, seconds):
    assert commands.start_timeout(memory, nics) == seconds


@pytest.mark.parametrize("size", ["64M", 0, -1, 1.5, True, None], ids=str)
def test_disk_refuses_size(size):
    with pytest.raises(CommandInvalid):
        commands.disk("local", {**DRIVE, "size": size}, "raw")


@pytest.mark.parametrize("changes", [{"index": 0}, {"file": "x"}, {"volume": "x"}, {"format": "raw"}], ids=str)
def test_disk_refuses_drive(changes):
    with pytest.raises(CommandInvalid):
        commands.disk("local", {**DRIVE, **changes}, "raw")


def test_config_refuses_text_that_is_not_ascii():
    with pytest.raises(CommandInvalid):
        commands.config("#übung\n")


def test_config_knows_the_secrets_in_its_text():
    command = commands.config("cipassword: $5$canary\nsshkeys: ssh-ed25519%20canary\ncores: 1234\n")
    assert command.redact == ("$5$canary", "ssh-ed25519%20canary")
    assert "canary" not in repr(command)


def test_line_over_one_mebibyte_is_refused():
    with pytest.raises(CommandInvalid):
        commands.config("#" + "x" * (1 << 20)).line()


@given(st.text(max_size=200))
def test_line_survives_any_text(text):
    assert json.loads(commands.ticket(text).line())["path"] == text


def test_start_in_clear_text_names_the_network():
    request = commands.start("a1", "b1", "q35", NBD, network="198.51.100.0/24").request()
    options = request["migrate_opts"]
    assert request["start_params"]["statefile"] == "tcp"
    assert (options["type"], options["network"], options["nbd_proto_version"]) == ("insecure", "198.51.100.0/24", 1)
