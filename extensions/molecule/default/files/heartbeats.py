# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends well when the lab's guest in a VM of this node is heard to count on: heartbeats.py VMID."""

import re
import socket
import sys
import time

WANTED = 20  # heartbeats in a row; one in 10 ms, slower on a loaded machine
TIMEOUT = 60.0  # seconds

link = socket.socket(socket.AF_UNIX)
link.connect("/run/qemu-server/%d.serial0" % int(sys.argv[1]))
link.settimeout(TIMEOUT)
end = time.monotonic() + TIMEOUT
heard = b""
numbers = []
while len(numbers) < WANTED and time.monotonic() < end:
    data = link.recv(4096)
    if not data:
        sys.exit("the serial port closed after %d heartbeats" % len(numbers))
    heard += data
    numbers = [int(number) for number in re.findall(rb"HB (\d+) \d+ \d+\r?\n", heard)]
if len(numbers) < WANTED or any(after <= before for before, after in zip(numbers, numbers[1:])):
    sys.exit("heartbeats heard: %r" % numbers)
print("heartbeats %d to %d" % (numbers[0], numbers[-1]))
