# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's proxy has no back-pressure (mtunnel-protocol 3.6): what it cannot pass on piles up in its memory.

So the source paces itself by what the disks' NBD servers acknowledged. One worker process serves all streams of the
move here, and passes on only so many bytes per second.

Two queues are looked at: the one there is, and the one that the bytes which came would have made in a target that takes
exactly its rate. The first also holds what the target's QEMU could not take because this machine had other work: so
the target's processes go first here, and only the second is judged when QEMU still was the slower of the two.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from e2e.controller import Controller
from e2e.moves import Mover
from lab import faults
from lab.api import stats
from lab.hosts import namespace_pids
from lab.instance import Lab
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(420)]

QUEUE_BOUND = 16 << 20  # bytes, summed over the streams of a move
LOOK = 0.05  # seconds; the proxy writes its figures every 0.1 s
FIRST = -10  # niceness of the target, which is a machine of its own in real life
MB = 1_000_000


@dataclass
class Queue:
    """What waited in the target's proxy while it was watched; bytes."""

    peak: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    story: list[tuple[float, dict[str, tuple[int, int]]]] = field(default_factory=list)

    def look(self, root: str, vmid: int) -> None:
        streams = [each for worker in stats.read(root) for each in worker["open"] if each["vmid"] == vmid]
        self.peak = max(self.peak, sum(each["queued"] for each in streams))
        self.story.append((time.monotonic(), {each["kind"]: (each["from_client"], each["queued"]) for each in streams}))
        for each in streams:
            self.by_kind[each["kind"]] = max(self.by_kind.get(each["kind"], 0), each["peak"])

    @property
    def told(self) -> str:
        kinds = ", ".join(f"{kind} {peak / 2**20:.1f}" for kind, peak in sorted(self.by_kind.items()))
        return f"peak {self.peak / 2**20:.1f} MiB together; alone: {kinds}"

    def ideal(self, rate: float) -> int:
        """The longest queue of a target that takes exactly ``rate`` bytes/s of what came."""
        longest = waits = 0.0
        at, came = 0.0, 0
        for now, streams in self.story:
            total = sum(sent for sent, _queued in streams.values())
            waits = max(0.0, waits - rate * (now - at)) + max(0, total - came)
            longest, at, came = max(longest, waits), now, total
        return int(longest)

    def slowest(self) -> float:
        """The lowest rate at which the target passed RAM on for a second in which RAM waited; bytes/s."""
        found, since = float("inf"), None
        for now, streams in self.story:
            sent, queued = streams.get("ram", (0, 0))
            if queued < 1 << 20:
                since = None
            elif since is None:
                since = (now, sent - queued)
            elif now - since[0] >= 1.0:
                found, since = min(found, (sent - queued - since[1]) / (now - since[0])), None
        return found


class Watch:
    """Looks at the proxy of a host as long as the block lasts."""

    def __init__(self, host, vmid: int) -> None:
        self.queue = Queue()
        self._host, self._vmid = host, vmid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        renewed = 0.0
        while not self._over.wait(LOOK):
            self.queue.look(self._host.root, self._vmid)
            if time.monotonic() - renewed > 0.5:
                renewed = time.monotonic()
                self._go_first()

    def _go_first(self) -> None:
        for pid in namespace_pids(self._host.namespace):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.setpriority(os.PRIO_PROCESS, pid, FIRST)
                # Kernels that group processes by session weigh the groups first.
                Path(f"/proc/{pid}/autogroup").write_text(str(FIRST), encoding="ascii")

    def __enter__(self) -> Queue:
        self._thread.start()
        return self.queue

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def narrow():
    with Lab.up(personality={"workers": 1}) as running:
        yield running


@pytest.fixture
def narrow_vm(narrow, tmp_path):
    vm = Mover(narrow, Controller(narrow, tmp_path))
    yield vm
    faults.clear(vm.target_host.root)
    vm.destroy()


@pytest.mark.parametrize(
    ("drain_mb", "dirty_mib"),
    [(20, 4), pytest.param(100, 20, marks=pytest.mark.slow), pytest.param(400, 20, marks=pytest.mark.slow)],
)
def test_queue_of_the_target_stays_short(narrow_vm, record_property, drain_mb, dirty_mib):
    vm = narrow_vm.create([Disk("scsi0", "fast", 128, fill_mib=80)], memory=160, guest_words=f"rate={dirty_mib} set=24")
    faults.set(vm.target_host.root, "drain", rate=drain_mb * MB)
    with Watch(vm.target_host, vm.vmid) as queue:
        run = vm.migrate()
    ideal, slowest = queue.ideal(drain_mb * MB), queue.slowest()
    record_property("queue_peak_mib", round(queue.peak / 2**20, 2))
    record_property("ideal_queue_peak_mib", round(ideal / 2**20, 2))
    print(
        f"drain {drain_mb} MB/s: {queue.told}; ideal {ideal / 2**20:.1f}; RAM slowest at {slowest / MB:.0f} MB/s",
        end="",
    )
    print(f"; {run.result().get('bytes', 0) / 2**20:.0f} MiB, {run.seconds:.0f} s")
    run.expect(0)
    vm.assert_guest_went_on()
    assert {"nbd", "ram"} <= queue.by_kind.keys()
    assert ideal <= QUEUE_BOUND
    assert queue.peak <= QUEUE_BOUND or slowest < 0.5 * drain_mb * MB, "the proxy itself was the narrow place"
