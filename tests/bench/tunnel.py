# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel's figures: feeder | pump | sink, three processes, only the pump is measured.

CPU is what the kernel charged the pump from its event ``listening`` to its end (wait4 minus schedstat), so
that starting Python counts for neither side. Cases are interleaved; the comparison is always of one run.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .figure import Figure, median

__all__ = ["measure"]

GIB = 1024**3
PEERS = str(Path(__file__).with_name("peers.py"))
ROUND_TRIPS = 3000
PUMP = "from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump import main"
# The same pump with every send() of its sockets counted; not used where CPU is measured.
COUNTED = f"""
import socket, sys
class Counting(socket.socket):
    sends = 0
    def send(self, *arguments):
        if self.family != socket.AF_UNIX:
            Counting.sends += 1
        return super().send(*arguments)
socket.socket = Counting
{PUMP}
status = main()
print(Counting.sends, file=sys.stderr)
"""


class Case:
    """One run of one tunnel."""

    def __init__(self, directory: Path, certificate: str, mode: str) -> None:
        self._path = str(Path(tempfile.mkdtemp(dir=directory)) / "s")
        self.sink = subprocess.Popen(
            [sys.executable, PEERS, "sink", certificate, mode], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._line(self.sink))
        self.tunnel: subprocess.Popen[Any]
        self.rss_kib = 0
        self._cpu_before = 0.0

    @staticmethod
    def _line(process: subprocess.Popen[Any]) -> str:
        line: str = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"{process.args} said nothing")
        return line

    def start_copy(self) -> None:
        self.tunnel = subprocess.Popen(
            [sys.executable, PEERS, "copy", self._path, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        self._line(self.tunnel)
        self._note()

    def start_pump(self, program: str = PUMP + "; main()", **settings: Any) -> None:
        endpoint = {"host": "127.0.0.1", "port": self.port, "node": "target", "user": "mig@pve", "token_id": "t1"}
        values = {
            "name": "ram",
            "kind": "ram",
            "endpoint": {**endpoint, "validate_certs": False},
            "path": "/bench",
            "listen": self._path,
            **settings,
        }
        self.tunnel = subprocess.Popen(
            [sys.executable, "-B", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if program is COUNTED else None,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        if self.tunnel.stdin is None:
            raise RuntimeError("no pipe")
        self.tunnel.stdin.write(json.dumps({"settings": values, "secret": "x"}) + "\n")
        self.tunnel.stdin.flush()
        line = self._line(self.tunnel)
        if json.loads(line)["event"] != "listening":
            raise RuntimeError(line)
        self._note()

    def _note(self) -> None:
        self._cpu_before = int(Path(f"/proc/{self.tunnel.pid}/schedstat").read_text().split()[0]) / 1e9
        status = Path(f"/proc/{self.tunnel.pid}/status").read_text()
        self.rss_kib = int(status.split("VmRSS:")[1].split()[0])

    def feed(self, size: int) -> subprocess.Popen[Any]:
        return subprocess.Popen([sys.executable, PEERS, "feeder", self._path, str(size)])

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(self._path)
        return client

    def end(self) -> Tuple[float, int, Dict[str, int]]:
        """CPU seconds, peak RSS in KiB, and the sink's counts."""
        if self.tunnel.stdout:
            self.tunnel.stdout.read()
        _pid, status, usage = os.wait4(self.tunnel.pid, 0)
        self.tunnel.returncode = status
        counts = json.loads(self._line(self.sink))
        self.sink.wait()
        return usage.ru_utime + usage.ru_stime - self._cpu_before, usage.ru_maxrss, counts


def make_certificate(directory: Path) -> str:
    path = directory / "bench.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run([*command, "-subj", "/CN=bench", "-days", "2", *files], check=True, capture_output=True)
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return str(path)


class Bench:
    def __init__(self, directory: Path, repetitions: int, size: int) -> None:
        self.directory, self.repetitions, self.size = directory, repetitions, size
        self.certificate = make_certificate(directory)
        self.peak_kib = 0

    def bulk(self, name: str, size: Optional[int] = None, **settings: Any) -> Tuple[float, Dict[str, int], int, float]:
        """CPU-s/GiB, counts, RSS growth in KiB, seconds."""
        size = size or self.size
        case = Case(self.directory, self.certificate, "plain" if name == "copy" else "frames")
        case.start_copy() if name == "copy" else case.start_pump(**settings)
        began = time.monotonic()
        feeder = case.feed(size)
        cpu, peak, counts = case.end()
        seconds = time.monotonic() - began
        feeder.wait()
        self.peak_kib = peak
        if counts["bytes"] != size:
            raise RuntimeError(f"{name}: {counts['bytes']} of {size} bytes arrived")
        return cpu * GIB / size, counts, peak - case.rss_kib, seconds

    def cpu_and_records(self) -> List[Figure]:
        ratios: List[float] = []
        records: List[float] = []
        for _round in range(self.repetitions):
            costs: Dict[str, float] = {}
            for name in random.sample(["copy", "pump"], 2):
                costs[name], counts, _rss, seconds = self.bulk(name)
                if name == "pump":
                    records.append(counts["records"] * GIB / self.size)
                print(f"  {name:5} {costs[name]:.3f} CPU-s/GiB {self.size / seconds / GIB:.2f} GiB/s {counts}")
            ratios.append(costs["pump"] / costs["copy"])
        return [
            Figure("tunnel_cpu_ratio", median(ratios), "x", 1.25),
            Figure("tls_records_per_gib", median(records), "records/GiB", 72000),
        ]

    def sends(self) -> List[Figure]:
        values = []
        for _round in range(self.repetitions):
            case = Case(self.directory, self.certificate, "frames")
            case.start_pump(COUNTED)
            feeder = case.feed(self.size)
            if case.tunnel.stdout and case.tunnel.stderr:
                case.tunnel.stdout.read()
                values.append(int(case.tunnel.stderr.read().split()[-1]) * GIB / self.size)
            case.end()
            feeder.wait()
        return [Figure("sends_per_gib", median(values), "sends/GiB", 20000)]

    def round_trip(self) -> List[Figure]:
        """64 bytes there and back: through the tunnel to an echo, against a bare echo over a UNIX socket.

        The far end's own service time (its TLS is not the tunnel's) is taken off. All processes share one
        core, so that the distance between two cores, which changes from run to run, is in neither figure.
        """
        ratios = []
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        try:
            for _round in range(self.repetitions):
                bare = self._bare_echo()
                case = Case(self.directory, self.certificate, "echo")
                case.start_pump()
                client = case.connect()
                through = _echo_time(client)
                client.close()
                _cpu, _peak, counts = case.end()
                through -= counts["service_ns"] / 1e9
                print(f"  round trip {through * 1e6:.1f} us, bare {bare * 1e6:.1f} us")
                ratios.append(through / bare)
        finally:
            os.sched_setaffinity(0, cores)
        return [Figure("round_trip_ratio", median(ratios), "x", 5)]

    def _bare_echo(self) -> float:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child = os.fork()
        if child == 0:
            near.close()
            while data := far.recv(65536):
                far.sendall(data)
            os._exit(0)
        far.close()
        result = _echo_time(near)
        near.close()
        os.waitpid(child, 0)
        return result

    def rss(self) -> List[Figure]:
        _cpu, _counts, growth, seconds = self.bulk("pump", 4 * GIB)
        peak = self.peak_kib
        print(f"  4 GiB in {seconds:.1f} s, RSS + {growth} KiB")
        return [
            Figure("rss_growth_mib", round(growth / 1024, 2), "MiB", 16),
            Figure("pump_rss_mib", round(peak / 1024, 2), "MiB", 24),
        ]


def _echo_time(client: socket.socket) -> float:
    """Seconds of the median round trip."""
    times = []
    data = b"x" * 64
    for _at in range(ROUND_TRIPS):
        began = time.perf_counter()
        client.sendall(data)
        client.recv(64, socket.MSG_WAITALL)
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def measure(repetitions: int = 5) -> List[Figure]:
    """All figures of the tunnel."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = Bench(Path(name), repetitions, GIB // 2)
        return [*bench.cpu_and_records(), *bench.sends(), *bench.round_trip(), *bench.rss()]
