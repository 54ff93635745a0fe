# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on the migration network learns nothing of the guest, unless clear text was asked for."""

from __future__ import annotations

import os
import secrets

import pytest

from e2e.capture import Capture
from e2e.direct import PORTS, over
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

MIB = 1 << 20
HANDSHAKE = b"\x16\x03"  # a TLS record of the handshake, of any version (RFC 8446 5.1)


def between_workers(streams):
    """The bytes of each direction of each connection to the port of an incoming worker."""
    return [data for (_, source, _, target), data in streams.items() if source in PORTS or target in PORTS]


def mark(vm):
    """Put a random text of its own into the guest's RAM and one onto its disk; gives both."""
    ram, disk = (f"marker-{secrets.token_hex(16)}" for _ in range(2))
    vm.guest.command("m" + ram)
    image = os.open(vm.source.image(vm.vm.volumes["scsi0"]), os.O_WRONLY)
    try:
        os.pwrite(image, disk.encode().ljust(4096, b"\0"), 48 * MIB)  # the guest has nothing there
        os.fsync(image)
    finally:
        os.close(image)
    return ram.encode(), disk.encode()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_capture_shows_the_guest_only_where_clear_text_was_asked_for(mover, certificates, tmp_path, transport):
    """``tcp`` is the control: there the capture must find both markers."""
    vm = mover().create([Disk(size_mib=64)])
    markers = mark(vm)
    with Capture(vm.target_host, Segment.MIGRATION.value, tmp_path / "packets") as capture:
        run = vm.controller.run("migrate", extra=over(vm, transport)).expect(0)
    vm.assert_moved()
    assert run.result()["transport"] == transport
    carried = between_workers(capture.streams)
    assert len(carried) >= 6, "control, disk and RAM, each in both directions"
    assert sum(map(len, carried)) > run.result()["bytes"]
    seen = [any(marker in data for data in capture.streams.values()) for marker in markers]
    secured = [data.startswith(HANDSHAKE) for data in carried]
    if transport == "tcp":
        assert seen == [True, True]
        assert not any(secured)
    else:
        assert seen == [False, False]
        assert all(secured)
