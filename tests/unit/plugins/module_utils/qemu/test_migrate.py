# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migration values: all statuses of all versions, the capabilities of a safe switchover."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import migrate
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import CapabilityMissing, QmpInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.migrate import MigrationInfo, MigrationStatus

ACTIVE = {
    "expected-downtime": 100, "status": "active", "setup-time": 1, "total-time": 14,
    "ram": {"total": 202121216, "dirty-sync-count": 1, "page-size": 4096, "remaining": 141418496, "mbps": 80.0,
            "transferred": 231911, "dirty-pages-rate": 10},
}  # fmt: skip


def test_info_carries_bytes_and_rates():
    info = MigrationInfo.parse(ACTIVE)
    assert (info.status, info.total, info.remaining, info.transferred) == (
        MigrationStatus.ACTIVE, 202121216, 141418496, 231911,
    )  # fmt: skip
    assert (info.dirty_rate_bytes, info.bandwidth) == (40960, 10_000_000)
    assert info.downtime_ms is None


def test_info_of_a_qemu_that_never_migrated_is_none():
    assert MigrationInfo.parse({}).status is MigrationStatus.NONE


@pytest.mark.parametrize("text", ["postcopy-device", "postcopy-recover-setup", "invented-in-2030"])
def test_status_of_a_later_qemu_is_kept_as_text(text):
    info = MigrationInfo.parse({"status": text})
    assert (info.status, info.status_text) == (MigrationStatus.UNKNOWN, text)
    assert not info.status.is_final


def test_failure_carries_qemus_words():
    info = MigrationInfo.parse({"status": "failed", "error-desc": "Unable to write to socket: Broken pipe"})
    assert info.status.has_failed
    assert info.error == "Unable to write to socket: Broken pipe"


@pytest.mark.parametrize(
    "raw",
    [None, [], {"status": 1}, {"status": "active", "ram": []}, {"status": "active", "ram": {"total": "1"}},
     {"status": "active", "ram": {"remaining": -1}}, {"status": "completed", "downtime": "x"}],
)  # fmt: skip
def test_malformed_answer_is_refused(raw):
    with pytest.raises(QmpInvalid):
        MigrationInfo.parse(raw)


def test_source_names_every_capability_and_sets_four():
    names = ["xbzrle", "auto-converge", "events", "postcopy-ram", "return-path", "multifd", "pause-before-switchover"]
    listed = [{"capability": name, "state": True} for name in names]
    told = migrate.source_capabilities(listed)["capabilities"]
    assert [entry["capability"] for entry in told] == names
    assert {entry["capability"] for entry in told if entry["state"]} == {
        "xbzrle", "auto-converge", "return-path", "pause-before-switchover",
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["return-path", "pause-before-switchover"])
def test_qemu_without_a_safe_switchover_is_refused(missing):
    listed = [{"capability": name, "state": False} for name in migrate.NEEDED if name != missing]
    with pytest.raises(CapabilityMissing, match=missing):
        migrate.source_capabilities(listed)


def test_parameters_say_no_limit_as_proxmox_does():
    assert migrate.parameters(downtime_limit_ms=300) == {"max-bandwidth": 16 * 1024**3, "downtime-limit": 300}


@pytest.mark.parametrize(("ram", "cache"), [(2 << 30, 1 << 28), (1 << 30, 1 << 27), (1 << 20, 1 << 17), (0, 65536)])
def test_cache_is_a_tenth_of_the_ram_rounded_up_to_a_power_of_two(ram, cache):
    assert migrate.parameters(downtime_limit_ms=1, ram_bytes=ram)["xbzrle-cache-size"] == cache


def test_parameters_stay_inside_what_qemu_takes():
    values = migrate.parameters(downtime_limit_ms=10**9, bandwidth=0)
    assert values == {"max-bandwidth": 1, "downtime-limit": 2_000_000}


def test_switchover_is_continued_in_one_state_only():
    assert migrate.continue_arguments() == {"state": "pre-switchover"}
    assert migrate.uri("/run/x/ram.sock") == {"uri": "unix:/run/x/ram.sock"}
