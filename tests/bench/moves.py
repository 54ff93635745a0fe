# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a move costs beside its bytes: seconds of the play, and milliseconds of the guest's pause.

Moves by the product and by a bare script (QMP only, TCP between the two QEMUs) take turns, with the same kind of VM:
no guest system, one tiny disk. A pause is RESUME on the target minus STOP on the source as QEMU itself stamped them:
QEMU's own ``downtime`` contains the wait in ``pre-switchover`` and does not serve.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Dict, List, Tuple

from e2e.controller import Controller
from e2e.moves import Mover

from lab.instance import Lab
from lab.vms import Disk, Vm

from .events import Events
from .figure import Figure, median

__all__ = ["measure"]

REPETITIONS = 5
DISK_MIB = 8
MEMORY_MIB = 64
BARE_VMID = 700
JOB, NODE = "mirror-bare", "bare"
PATIENCE = 60.0  # seconds for anything QEMU does here
POLL = 0.001
START = """
from lab.node.base import Node
from lab.node import vm
vm.start(Node(), {vmid}, incoming=vm.Incoming(migratedfrom="bare", nbd={nbd!r}, node_address={address!r},
         plain=True, ram_by_tcp=True))
"""


def measure() -> List[Figure]:
    """Both figures from the same moves."""
    overheads: List[float] = []
    added: List[float] = []
    with Lab.up() as lab, tempfile.TemporaryDirectory(prefix="bench-") as directory:
        controller = Controller(lab, Path(directory))
        with Events(lab.host("alpha1")) as source, Events(lab.host("beta1")) as target:
            for number in range(REPETITIONS):
                overhead, vmid = by_product(lab, controller)
                overheads.append(overhead)
                ours = pause_ms(source, target, vmid)
                bare = by_hand(lab, BARE_VMID + number)
                theirs = pause_ms(source, target, bare)
                added.append(ours - theirs)
                print(f"  play without the bytes {overhead:.2f} s; pause {ours:.0f} ms, bare {theirs:.0f} ms")
    return [
        Figure("play_overhead_s", median(overheads), "s", 6),
        Figure("pause_added_ms", median(added), "ms", 150),
    ]


def pause_ms(source: Events, target: Events, vmid: int) -> float:
    """From the last STOP here to the last RESUME there."""
    return (target.wait(vmid, "RESUME") - source.wait(vmid, "STOP")) * 1000


def by_product(lab: Lab, controller: Controller) -> Tuple[float, int]:
    """One play; its seconds without those from the journal's ``mirroring`` to its ``committed``, and the VM."""
    mover = Mover(lab, controller).create([Disk(size_mib=DISK_MIB)], watch=False, guest=False, memory=MEMORY_MIB)
    run = mover.migrate().expect(0)
    times = {record["phase"]: record["time"] for record in mover.records() if "phase" in record and "time" in record}
    mover.destroy()
    return run.seconds - (times["committed"] - times["mirroring"]), mover.vmid


# -- the bare script -----------------------------------------------------------------------------------------------


class Qmp:
    """One monitor connection, held for the whole move."""

    def __init__(self, host: Any, vmid: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(host.path(f"/run/qemu-server/{vmid}.qmp"))
        self._stream = self._socket.makefile("rwb")
        self._stream.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        request = {"execute": command.replace("_", "-") if command != "qmp_capabilities" else command}
        self._stream.write(json.dumps({**request, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def until(self, command: str, done: Any) -> None:
        """Ask until the answer is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not done(answer := self(command)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command}: {answer}")
            time.sleep(POLL)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def by_hand(lab: Lab, vmid: int) -> int:
    """The same kind of VM, moved by QMP alone."""
    here, there = lab.host("alpha1"), lab.host("beta1")
    options: Dict[str, Any] = {"guest": False, "memory": MEMORY_MIB, "disks": [Disk(size_mib=DISK_MIB)]}
    vm: Vm = lab.create_vm(here, vmid, f"bare{vmid}", **options)
    copy: Vm = lab.create_vm(there, vmid, vm.name, uuid=vm.uuid, start=False, **options)
    address = there.migration_address
    nbd = {"scsi0": {"volid": copy.volumes["scsi0"], "drivestr": copy.volumes["scsi0"]}}
    told = there.api_python(["-c", START.format(vmid=vmid, nbd=nbd, address=address)])
    ports = _ports(told.stdout + told.stderr, address)
    with closing(Qmp(here, vmid)) as source, closing(Qmp(there, vmid)) as target:
        _mirror(source, address, ports["nbd"])
        _hand_over(source, target, address, ports["tcp"])
    for host in (here, there):
        for argv in (["qm", "stop", str(vmid)], ["qm", "destroy", str(vmid)]):
            host.run(argv)
    return vmid


def _ports(text: str, address: str) -> Dict[str, str]:
    """Ports from what the start said: ``tcp:ADDRESS:PORT`` and ``nbd:ADDRESS:PORT:exportname=...``."""
    return {plan: text.split(f"{plan}:{address}:")[1].split()[0].split(":")[0] for plan in ("tcp", "nbd")}


def _mirror(source: Qmp, address: str, port: str) -> None:
    server = {"type": "inet", "host": address, "port": port}
    source("blockdev-add", **{"driver": "nbd", "node-name": NODE, "server": server, "export": "drive-scsi0"})
    device = next(each for each in source("query-block") if each["device"] == "drive-scsi0")
    mirror = {"job-id": JOB, "device": device["device"], "target": NODE, "sync": "full", "auto-dismiss": False}
    source("blockdev-mirror", **mirror)
    source.until("query-block-jobs", lambda jobs: all(job["ready"] for job in jobs))


def _hand_over(source: Qmp, target: Qmp, address: str, port: str) -> None:
    wanted = [{"capability": name, "state": True} for name in ("return-path", "pause-before-switchover")]
    source("migrate-set-capabilities", capabilities=wanted)
    source("migrate", uri=f"tcp:{address}:{port}")
    source.until("query-migrate", lambda info: info.get("status") == "pre-switchover")
    source("block-job-cancel", device=JOB)
    source.until("query-jobs", lambda jobs: all(job["status"] == "concluded" for job in jobs))
    source("job-dismiss", id=JOB)
    source("blockdev-del", **{"node-name": NODE})
    target("nbd-server-stop")
    source("migrate-continue", state="pre-switchover")
    source.until("query-migrate", lambda info: info["status"] == "completed")
    target.until("query-status", lambda status: status["status"] == "paused")
    target("cont")
