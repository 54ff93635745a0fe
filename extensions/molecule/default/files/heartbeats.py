# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends well when the lab's guest in a VM of this node is heard to count on: heartbeats.py VMID [SECONDS [moved]].

With `moved` its clock must be older than the QEMU that runs it: a guest that was booted here is younger.
"""

import os
import re
import socket
import sys
import time

WANTED = 20  # heartbeats in a row; one in 10 ms, slower on a loaded machine
VMID = int(sys.argv[1])
TIMEOUT = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0  # seconds


def emulator_seconds() -> float:
    """Since when the VM's QEMU runs."""
    with open("/run/qemu-server/%d.pid" % VMID) as file:
        pid = int(file.read())
    with open("/proc/%d/stat" % pid) as file:
        started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - started


link = socket.socket(socket.AF_UNIX)
link.connect("/run/qemu-server/%d.serial0" % VMID)
link.settimeout(TIMEOUT)
end = time.monotonic() + TIMEOUT
heard = b""
beats = []
while len(beats) < WANTED and time.monotonic() < end:
    data = link.recv(4096)
    if not data:
        sys.exit("the serial port closed after %d heartbeats" % len(beats))
    heard += data
    beats = [(int(number), int(clock)) for number, clock in re.findall(rb"HB (\d+) (\d+) \d+\r?\n", heard)]
if len(beats) < WANTED or any(after <= before for (before, _), (after, _) in zip(beats, beats[1:])):
    sys.exit("heartbeats heard: %r" % beats)
print("heartbeats %d to %d" % (beats[0][0], beats[-1][0]))
if sys.argv[3:] == ["moved"]:
    runs, lived = emulator_seconds(), beats[-1][1] / 1000
    print("the guest is %.1f s old, its QEMU %.1f s" % (lived, runs))
    if lived <= runs:
        sys.exit("the guest was booted here")
