# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet capture inside a host of the lab, joined to TCP streams again; a lost packet is an error, not a gap."""

from __future__ import annotations

import collections
import json
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Runs in the host. Ends with its standard input, after what came before that; each packet goes out after its length.
_PROGRAM = """
import json, select, socket, struct, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
packets.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
packets.bind((sys.argv[1], 0))
out = sys.stdout.buffer
print("ready", file=sys.stderr, flush=True)
open_ = True
while True:
    ready = select.select([packets, sys.stdin] if open_ else [packets], [], [], None if open_ else 0.2)[0]
    if sys.stdin in ready:
        open_ = False
    if packets in ready:
        data = packets.recv(1 << 18)
        out.write(struct.pack(">I", len(data)) + data)
    elif not open_:
        break
out.flush()
seen, lost = struct.unpack("II", packets.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
print(json.dumps({"seen": seen, "lost": lost}), file=sys.stderr, flush=True)
"""
_TCP = 6
_SYN = 0x02
_PATIENCE = 60.0  # seconds for what is still to be written

Flow = tuple[bytes, int, bytes, int]  # address and port of the sender, then of the receiver


@dataclass
class _Half:
    first: int | None = None  # sequence number of the first byte
    parts: dict[int, bytes] = field(default_factory=dict)  # by sequence number


class Capture:
    """Everything that passes a device of a host, within the block; afterwards ``streams``.

    Attributes:
        streams: Each direction of each connection that began within the block, and the bytes sent in it.
    """

    def __init__(self, host: Any, device: str, file: Path) -> None:
        self._host, self._device, self._file = host, device, file
        self.streams: dict[Flow, bytes] = {}

    def __enter__(self) -> Capture:
        with open(self._file, "wb") as out:
            self._process = self._host.popen(
                ["/usr/bin/python3", "-I", "-c", _PROGRAM, self._device],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE,
            )  # fmt: skip
        assert self._process.stderr.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        told = json.loads(self._process.stderr.read())
        assert self._process.wait(_PATIENCE) == 0
        assert told["seen"]
        assert not told["lost"]
        self.streams = _streams(self._file.read_bytes())
        self._file.unlink()


def _streams(recorded: bytes) -> dict[Flow, bytes]:
    halves: dict[Flow, _Half] = collections.defaultdict(_Half)
    at = 0
    while at < len(recorded):
        (size,) = struct.unpack_from(">I", recorded, at)
        _take(recorded[at + 4 : at + 4 + size], halves)
        at += 4 + size
    return {flow: _joined(flow, half) for flow, half in halves.items() if half.first is not None}


def _take(packet: bytes, halves: dict[Flow, _Half]) -> None:
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return
    tcp = (packet[0] & 15) * 4
    source, target, sequence = struct.unpack_from(">HHI", packet, tcp)
    half = halves[packet[12:16], source, packet[16:20], target]
    if packet[tcp + 13] & _SYN:
        half.first = sequence + 1
    (total,) = struct.unpack_from(">H", packet, 2)
    data = packet[tcp + (packet[tcp + 12] >> 4) * 4 : total]
    if data and len(data) > len(half.parts.get(sequence, b"")):
        half.parts[sequence] = data


def _joined(flow: Flow, half: _Half) -> bytes:
    assert half.first is not None
    joined = bytearray()
    parts = {(sequence - half.first) % (1 << 32): data for sequence, data in half.parts.items()}
    for offset in sorted(parts):
        if offset == (1 << 32) - 1:  # the byte before the next one: a probe whether the peer lives
            continue
        assert offset <= len(joined), f"{flow}: bytes are missing from {len(joined)} to {offset}"
        joined[offset : offset + len(parts[offset])] = parts[offset]
    return bytes(joined)
