# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening end in a process of its own, with the directories of a test and a target node of plain values.

``python incoming_process.py DIRECTORY incoming ID``: as ``worker.pyz incoming ID``, below DIRECTORY. The one VM, 117,
is what ``DIRECTORY/vm.json`` says; its sockets are in DIRECTORY.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from pathlib import Path

from unit.fakes.tls_monitor import TlsMonitor

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import (
    incoming,
    incoming_requests,
    incoming_start,
    places,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import network_proof
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.accept import AcceptLimits, Door
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import NetworkChanged

UUID = "6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11"


def socket_of(directory, kind):
    return str(Path(directory, f"117.{kind}"))


class Node:
    """A target node; the file is read anew each time, as a configuration is."""

    def __init__(self, directory):
        self.path = Path(directory, "vm.json")

    def vm(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def config(self, _vmid):
        vm = self.vm()
        return VmConfig.read(f"lock: {vm['lock']}\nsmbios1: uuid={UUID}\n".encode()) if vm else None

    def task_running(self, _upid, _vmid):
        return False

    def task_log(self, _upid):
        return None

    def owner(self, _vmid):
        return None

    def written_by_task(self, _vmid, _upid):
        return False

    def run_state(self, _vmid):
        return self.vm().get("run_state")

    def loaded(self, _vmid):
        return True

    def exists(self, _volume, _vmid):
        return False

    def referrer(self, _volume, _vmid):
        return None

    def carry_out(self, step, _vmid):
        if step.action.value == "destroy":
            self.path.unlink()

    def run(self, _command):
        return {"status": "active"}

    @contextlib.contextmanager
    def within(self, _seconds):
        """The TLS settings of its QEMU, which outlive every process that asks for them."""
        kept, qemu = self.path.with_name("qemu.json"), TlsMonitor(exports={"drive-scsi0": "#block1"})
        if kept.exists():
            vars(qemu).update(json.loads(kept.read_text()))
        yield qemu
        kept.write_text(json.dumps(vars(qemu)))


def prove(kept, addresses, side):
    """One machine is no network: what the checks say stands in a file, and nothing when they pass."""
    if kept.exists():
        raise NetworkChanged(f"{kept.read_text()} at {addresses.target}", side=side, object="network")


def use(directory):
    """Take the directories of a test."""
    places.RUN, places.LIBRARY = str(Path(directory, "run")), str(Path(directory, "lib"))


def main():
    directory, words = sys.argv[1], sys.argv[2:]
    use(directory)
    deadline = float(os.environ.get("DOOR_DEADLINE", AcceptLimits.deadline))
    incoming.Door = functools.partial(Door, limits=AcceptLimits(deadline=deadline))
    for name, kind in (("ram_socket", "ram"), ("nbd_socket", "nbd"), ("import_socket", "storage")):
        setattr(incoming_requests, name, lambda _vmid, kind=kind: socket_of(directory, kind))
    network_proof.prove = functools.partial(prove, Path(directory, "network"))
    node = Node(directory)
    incoming._real_world = lambda settings: incoming_requests.World(
        node, lambda _vmid: node, incoming._is_socket, os.unlink, settings.credentials, settings.peer_name
    )
    return incoming_start.main(words)


if __name__ == "__main__":
    sys.exit(main())
