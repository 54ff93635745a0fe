# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the websocket plane."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import websocket
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import SettingsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind

ENDPOINT = Endpoint("b1.example", 8006, "b1", "mig@pve", "t1", fingerprint="ab" * 32)
RAM = ("ram", Kind.RAM)
TPM = ("import-tpmstate0", Kind.IMPORT)


def test_settings_carry_the_endpoint_and_the_path():
    settings = websocket.settings(*RAM, ENDPOINT, "/x?ticket=y", listen="/run/x/ram.sock", rate=5)
    assert Endpoint(**settings.endpoint) == ENDPOINT
    assert (settings.path, settings.listen, settings.rate, settings.kind) == (
        "/x?ticket=y", "/run/x/ram.sock", 5, Kind.RAM,
    )  # fmt: skip


def test_importer_has_time_to_write_what_is_queued():
    assert websocket.settings(*TPM, ENDPOINT, "/x", input_fd=3).drain_timeout > 60


@pytest.mark.parametrize(
    ("stream", "near"),
    [(RAM, {}), (RAM, {"input_fd": 3}), (TPM, {}), (TPM, {"listen": "/x"}), (RAM, {"listen": "/x", "input_fd": 3})],
)
def test_near_end_must_fit_the_kind(stream, near):
    with pytest.raises(SettingsInvalid):
        websocket.settings(*stream, ENDPOINT, "/x", **near)
