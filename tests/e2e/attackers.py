# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of somebody on the migration network: strangers, one who replays, and one in the middle.

They run inside a host of the lab and share nothing with the collection. Each tells at its end what it has heard.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any, Iterator

from e2e.direct import PORTS
from lab.network import Segment

PKI = "/etc/crosscluster/pki/crosscluster"
MIDDLE_PORT = 60200
_STOLEN = "/root/stolen"
_MARK = 1  # of what the one in the middle sends himself

_LISTEN = """
import json, secrets, socket, ssl, struct, sys, threading, time

def listen(link):
    data = b""
    try:
        link.settimeout(20.0)
        while more := link.recv(65536):
            data += more
    except OSError:
        pass
    return data
"""

# Waits for the port on its standard input, is there before the source, and tells what it heard.
STRANGERS = (
    _LISTEN
    + """
address, foreign, pki, known = sys.argv[1:]
heard = {}

def connect():
    return socket.create_connection((address, port), 5.0)

port = int(sys.stdin.readline())
for _ in range(3):
    connect().close()
hello = json.dumps({"v": 1, "mid": "0" * 32, "stream": "control", "nonce": "0" * 64}).encode()
rubbish = (
    b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\x16\\x03\\x01" + secrets.token_bytes(4096), b"NBDMAGIC",
    struct.pack(">BBHI", 1, 0, 0, len(hello)) + hello,
)
garbage = [connect() for _ in rubbish]
for link, data in zip(garbage, rubbish):
    link.sendall(data)
context = ssl.create_default_context(cafile=pki + "/ca-cert.pem")
context.check_hostname = False
context.load_cert_chain(pki + "/client-cert.pem", pki + "/client-key.pem")
link = context.wrap_socket(connect(), server_hostname=known)
heard["version"] = link.version()
heard["wrong name"] = listen(link).hex()
silent = [connect() for _ in range(20)]  # more than are let in at a time
try:
    socket.create_connection((address, port), 5.0, (foreign, 0)).close()
    heard["other address"] = "let in"
except OSError:
    heard["other address"] = "kept out"
heard["garbage"] = [listen(link).hex() for link in garbage]
heard["silent"] = [listen(link).hex() for link in silent]
print(json.dumps(heard))
"""
)

# Listens to the first connection to one of the ports, for a second, and says the same once more.
REPLAY = (
    _LISTEN
    + """
device, address, first, last = sys.argv[1:]
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
packets.bind((device, 0))
packets.settimeout(120.0)
print("ready", file=sys.stderr, flush=True)
flow, said, end = None, {}, None
while end is None or time.monotonic() < end:
    try:
        packet = packets.recv(1 << 18)
    except TimeoutError:
        break
    if packet[0] >> 4 != 4 or packet[9] != 6 or packet[16:20] != socket.inet_aton(address):
        continue
    tcp = (packet[0] & 15) * 4
    source, target, sequence = struct.unpack_from(">HHI", packet, tcp)
    data = packet[tcp + (packet[tcp + 12] >> 4) * 4 : struct.unpack_from(">H", packet, 2)[0]]
    if data and int(first) <= target <= int(last) and flow in (None, (source, target)):
        if flow is None:
            flow, end = (source, target), time.monotonic() + 1.0
            packets.settimeout(1.0)
        said[sequence] = data
said = b"".join(said[sequence] for sequence in sorted(said))
link = socket.create_connection((address, flow[1]), 5.0)
try:
    link.sendall(said)
except OSError:
    pass  # refused before it has said all
print(json.dumps({"said": said.hex(), "heard": listen(link).hex()}))
"""
)

# Takes every connection of the source; tells at the end of its standard input what was said to it.
MIDDLE = (
    _LISTEN
    + """
address, port, how, pki = sys.argv[1:]
said = []

def take(link, number):
    link.settimeout(10.0)
    said[number] = link.recv(65536, socket.MSG_PEEK)
    if how == "reset":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
    elif how == "plain":
        link.recv(65536)
        for kind, fields in ((2, {"nonce": "1" * 64, "mac": "2" * 64}), (4, {"v": 1})):
            text = json.dumps(fields).encode()
            link.sendall(struct.pack(">BBHI", kind, 0, 0, len(text)) + text)
        said[number] += listen(link)
    elif how == "older TLS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(pki + "/server-cert.pem", pki + "/server-key.pem")
        said[number] += listen(context.wrap_socket(link, server_side=True))
    elif how == "passes on":
        onward = socket.socket()
        onward.setsockopt(socket.SOL_SOCKET, 36, %d)  # SO_MARK
        onward.bind((link.getpeername()[0], 0))
        onward.connect((address, target_port(link)))
        threading.Thread(target=pass_on, args=(onward, link), daemon=True).start()
        pass_on(link, onward)

def target_port(link):
    return struct.unpack(">H", link.getsockopt(socket.SOL_IP, 80, 16)[2:4])[0]  # SO_ORIGINAL_DST

def pass_on(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def safely(link, number):
    try:
        take(link, number)
    except OSError:
        pass

server = socket.create_server(("", int(port)))
print("ready", file=sys.stderr, flush=True)

def serve():
    while True:
        link = server.accept()[0]
        said.append(b"")
        threading.Thread(target=safely, args=(link, len(said) - 1), daemon=True).start()

threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
print(json.dumps([data.hex() for data in said]))
"""
    % _MARK
)


class Attacker:
    """One of the programs in a host, until the end of the block."""

    def __init__(self, host: Any, program: str, *argv: str, announces: bool = True) -> None:
        self._process = host.popen(
            ["/usr/bin/python3", "-I", "-c", program, *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if announces:
            assert self._process.stderr.readline() == "ready\n"

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def told(self, words: str = "") -> Any:
        """Say the words to it and wait for what it tells at its end."""
        told, failed = self._process.communicate(words, timeout=120)
        assert not failed, failed
        return json.loads(told)


def steal_certificate(source: Any, target: Any) -> str:
    """The target's own certificate in the source's host; its directory there."""
    Path(source.path(_STOLEN)).mkdir(exist_ok=True)
    for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem", "server-cert.pem", "server-key.pem"):
        Path(source.path(f"{_STOLEN}/{name}")).write_bytes(Path(target.path(f"{PKI}/{name}")).read_bytes())
    return _STOLEN


@contextlib.contextmanager
def in_the_middle(source: Any, target: Any, how: str) -> Iterator[Attacker]:
    """What the source says to an incoming worker goes to the attacker."""
    own, pki = source.migration_address, steal_certificate(source, target)
    rule = f"meta mark != {_MARK} ip daddr {target.migration_address} tcp dport {PORTS[0]}-{PORTS[-1]}"
    rules = ["table ip middle {", "chain out {", "type nat hook output priority -100;"]
    rules += [f"{rule} dnat to {own}:{MIDDLE_PORT}", "}", "}", ""]
    source.run(["nft", "-f", "-"], text_input="\n".join(rules))
    try:
        with Attacker(source, MIDDLE, target.migration_address, str(MIDDLE_PORT), how, pki) as attacker:
            yield attacker
    finally:
        source.run(["nft", "delete", "table", "ip", "middle"])


def replaying(source: Any, target: Any) -> Attacker:
    """Somebody in the source's host who says what its worker said."""
    where = (Segment.MIGRATION.value, target.migration_address, str(PORTS[0]), str(PORTS[-1]))
    return Attacker(source, REPLAY, *where)
