# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The node's commands and the probes it sends: an edge file (processes, sockets, clock, /proc).

Everything a probe brings home is plain data of :mod:`.evidence`; nothing here decides whether it is good. Never a port
of QEMU is touched (safety 1.6): only the responder's own.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from typing import Callable, Optional, Sequence, Set, Tuple

from .addresses import ADDR_COMMAND, Address, parse_links
from .checks import NodeFacts
from .errors import ExchangeBroken, NetworkFactsInvalid
from .evidence import Answers, Conversation, KnockOutcome, PacketSizes, Quality
from .exchange import ANSWER, ASK, MAX_LINE, SMALLEST_ECHO, Asker, echo_key, echo_packet, echo_sequence
from .neighbours import (
    BRIDGE_COMMAND,
    NEIGH_COMMAND,
    TAKEN_COMMAND,
    parse_bridge_ports,
    parse_neighbours,
    parse_taken,
)
from .routes import ROUTES_COMMAND, WAY_COMMAND, Route, Way, parse_routes, parse_way
from .rules import RULES_COMMAND, deciding_rule, parse_rules
from .ruleset import RULESET_COMMAND, Ruleset, parse_ruleset
from .solicitation import ETH_ARP, ETH_IPV6, answer_of, question
from .xfrm import POLICY_COMMAND, STATE_COMMAND, parse_policies, parse_states

__all__ = [
    "Completed",
    "Pair",
    "Run",
    "ask_owners",
    "converse",
    "echo",
    "gather",
    "knock",
    "read_ruleset",
    "read_way",
    "run_command",
    "unfragmented",
]

COMMAND_TIME = 20.0  # seconds; a rule set of some ten thousand rules takes nft about one
CONNECT_TIME = 3.0
EXCHANGE_TIME = 5.0  # direct-transports 7: one deadline for the whole exchange
OWNER_TIME = 1.0  # an ARP answer takes less than a millisecond on a wire; a host that sleeps may take longer
ECHO_TIME = 0.3
ECHO_TRIES = 3
SMALL_PACKETS = 10
# What is tried when a full packet does not pass: common MTUs of Ethernet, tunnels and their mistakes.
LADDER = (9000, 8950, 4000, 1504, 1500, 1492, 1450, 1420, 1400, 1280, 576)
_HEADERS = {4: 28, 6: 48}  # IP and UDP
_LARGEST = 65535
# linux/in.h, linux/in6.h: the packet goes as it is or not at all, whatever path MTU the kernel believes in. Python has
# no names for them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE, _IPV6_DONTFRAG = 10, 23, 3, 62
_PACKET_OUTGOING = 4  # linux/if_packet.h


@dataclass(frozen=True)
class Completed:
    """A command that ended; ``returncode`` -1 when it could not be run or did not end in time."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[[Sequence[str], str], Completed]


@dataclass(frozen=True)
class Pair:
    """Who asks whom, by which names, and with which key."""

    own_name: str
    peer_name: str
    own: Address
    peer: Address
    port: int
    key: bytes

    def __repr__(self) -> str:
        return f"Pair({self.own_name}, {self.peer_name})"


def run_command(argv: Sequence[str], stdin: str = "") -> Completed:
    """Runs a command of the node, without a shell; ``stdin`` for what is to be read."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            list(argv), input=stdin.encode(), capture_output=True, timeout=COMMAND_TIME, env=environment, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return Completed(-1, "", f"{argv[0]} cannot be run: {error}")
    return Completed(done.returncode, *(data.decode("utf-8", "replace") for data in (done.stdout, done.stderr)))


def gather(run: Run, version: int) -> NodeFacts:
    """What the node says about its network, for one version of IP.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    states, policies = run(STATE_COMMAND.split(), ""), run(POLICY_COMMAND.split(), "")
    other = 10 - version
    others = run(["ip", f"-{other}", *ROUTES_COMMAND.split()[1:]], "")
    ports, taken = run(BRIDGE_COMMAND.split(), ""), run(TAKEN_COMMAND.split(), "")
    return NodeFacts(
        links=parse_links(_said(run, ADDR_COMMAND.split())),
        bridge_ports=None if ports.returncode or taken.returncode else parse_bridge_ports(ports.stdout or "[]"),
        taken=() if taken.returncode else parse_taken(taken.stdout or "[]"),
        # A kernel without the other version of IP has no routes for it.
        routes=_routes(run, version) + (() if others.returncode else parse_routes(others.stdout or "[]", other)),
        neighbours=parse_neighbours(_said(run, NEIGH_COMMAND.split())),
        ruleset=read_ruleset(run),
        forwards=_forwards(version),
        hidden_translation=_hidden_translation(version),
        # A kernel without IPsec has none.
        protections=() if states.returncode else parse_states(states.stdout),
        policies=() if policies.returncode else parse_policies(policies.stdout),
    )


def read_way(run: Run, peer: Address) -> Optional[Way]:
    """How packets to the peer leave now; None when they do not.

    The kernel looks twice: for an address to send from, and then with it, where policy rules may say something else.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    way = _ask_way(run, str(peer))
    if way is not None and way.source is not None:
        own = way.source
        way = _ask_way(run, str(peer), "from", str(own))
        if way is not None:
            rules = parse_rules(_said(run, ["ip", f"-{peer.version}", *RULES_COMMAND.split()[1:]]), peer.version)
            rule = deciding_rule(rules, _routes(run, peer.version), own, peer, way.interface)
            way = way if rule is None else replace(way, unless=f"rule {rule.priority} asks {', '.join(rule.narrowed)}")
    return way


def _ask_way(run: Run, *words: str) -> Optional[Way]:
    done = run([*WAY_COMMAND.split(), *words], "")
    return None if done.returncode else parse_way(done.stdout)


def _routes(run: Run, version: int) -> Tuple[Route, ...]:
    return parse_routes(_said(run, ["ip", f"-{version}", *ROUTES_COMMAND.split()[1:]]), version)


def read_ruleset(run: Run) -> Optional[Ruleset]:
    """The packet filter as it is now; None without nft."""
    done = run(RULESET_COMMAND.split(), "")
    return None if done.returncode else parse_ruleset(done.stdout)


def converse(pair: Pair) -> Conversation:
    """Checks 5 and 6: one exchange over TCP."""
    deadline = time.monotonic() + EXCHANGE_TIME
    try:
        with socket.socket(_family(pair.own), socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT_TIME)
            sock.bind((str(pair.own), 0))
            sock.connect((str(pair.peer), pair.port))
            local, remote = sock.getsockname()[:2], sock.getpeername()[:2]
            asker = Asker(pair.key, pair.own_name, pair.peer_name, secrets.token_hex(32), local, remote)
            sock.sendall(asker.hello())
            talk, proof = asker.take(_read_line(sock, deadline))
            if proof:
                sock.sendall(proof)
                _read_line(sock, deadline)
            return talk
    except ExchangeBroken as error:
        return Conversation(error.message)
    except OSError as error:
        return Conversation(f"{pair.peer} port {pair.port}: {_words(error)}")


def echo(pair: Pair, mtu: int) -> Tuple[Optional[PacketSizes], Quality]:
    """Checks 8 and 13: datagrams that come back as large as they went; no sizes when not even small ones do."""
    key = echo_key(pair.key, pair.own_name, pair.peer_name)
    headers = _HEADERS[pair.own.version]
    with socket.socket(_family(pair.own), socket.SOCK_DGRAM) as sock:
        unfragmented(sock)
        sock.settimeout(ECHO_TIME)
        try:
            sock.bind((str(pair.own), 0))
            sock.connect((str(pair.peer), pair.port))
        except OSError:
            return None, Quality(0, 0, 0)
        times = [_echo_once(sock, key, number, SMALLEST_ECHO) for number in range(SMALL_PACKETS)]
        back = sorted(took for took in times if took is not None)
        quality = Quality(len(times), len(back), int(back[len(back) // 2] * 1_000_000) if back else 0)
        if not back:
            return None, quality
        for step, size in enumerate([min(mtu, _LARGEST), *(size for size in LADDER if size < mtu)]):
            for number in range(ECHO_TRIES):
                if _echo_once(sock, key, 1000 + step * ECHO_TRIES + number, size - headers) is not None:
                    return PacketSizes(size if size < mtu else mtu), quality
        return PacketSizes(0), quality


def ask_owners(interface: str, mac: str, own: Address, peer: Address, table: str = "") -> Answers:
    """Check 7: everybody who answers for the peer's address, and for ours."""
    kind = ETH_ARP if own.version == 4 else ETH_IPV6
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as sock:
            sock.bind((interface, kind))
            questions = [question(peer, mac, own), question(own, mac, None)]
            found = _collect(sock, questions)
    except OSError as error:
        return Answers(f"nobody could be asked on {interface}: {_words(error)}")
    others = {(address, owner) for address, owner in found if owner != mac}
    return Answers(
        "",
        tuple(sorted(owner for address, owner in others if address == peer)),
        tuple(sorted(owner for address, owner in others if address == own)),
        table,
    )


def knock(address: Address, port: int) -> KnockOutcome:
    """Check 10: a host that is no peer tries to connect, and says nothing."""
    outcomes = {
        errno.ECONNREFUSED: KnockOutcome.REFUSED,
        errno.ECONNRESET: KnockOutcome.REFUSED,
        errno.EHOSTUNREACH: KnockOutcome.UNREACHABLE,
        errno.ENETUNREACH: KnockOutcome.UNREACHABLE,
        errno.ETIMEDOUT: KnockOutcome.SILENT,
    }
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT_TIME)
            sock.connect((str(address), port))
    except socket.timeout:
        return KnockOutcome.SILENT
    except OSError as error:
        return outcomes.get(error.errno or 0, KnockOutcome.NOT_SENT)
    return KnockOutcome.CONNECTED


def unfragmented(sock: socket.socket) -> None:
    """Datagrams leave whole or not at all."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)


def _said(run: Run, argv: Sequence[str]) -> str:
    done = run(argv, "")
    if done.returncode:
        raise NetworkFactsInvalid(
            f"'{' '.join(argv)}' failed: {done.stderr.strip()[:200]}",
            object=" ".join(argv),
            remedy="Install iproute2 on the node, and run the check as root.",
        )
    return done.stdout or "[]"


def _forwards(version: int) -> Optional[bool]:
    """Whether any interface of the node passes packets on; what comes in by one leaves by another."""
    place = f"/proc/sys/net/ipv{version}/conf"
    try:
        names = [name for name in os.listdir(place) if name != "default"]
        return any(_read(f"{place}/{name}/forwarding").strip() == "1" for name in names)
    except OSError:
        return False if version == 6 and not os.path.exists(place) else None


def _hidden_translation(version: int) -> Optional[bool]:
    """Whether iptables-legacy has a table for address translation, of which nft knows nothing."""
    try:
        return "nat" in _read({4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}[version]).split()
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(4096)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _read_line(sock: socket.socket, deadline: float) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) <= MAX_LINE:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        chunk = sock.recv(MAX_LINE)
        if not chunk:
            raise ExchangeBroken("the other end of the probe hung up", object="probe")
        data += chunk
    return data


def _echo_once(sock: socket.socket, key: bytes, number: int, size: int) -> Optional[float]:
    """Seconds there and back; None when it did not come back."""
    started = time.monotonic()
    packet = echo_packet(key, ASK, number, size)
    try:
        sock.send(packet)
        while time.monotonic() - started < ECHO_TIME:
            answer = sock.recv(_LARGEST)
            if len(answer) == len(packet) and echo_sequence(key, ANSWER, answer) == number:
                return time.monotonic() - started
    except OSError:
        # Too long for the interface, refused, or silence.
        return None
    return None


def _collect(sock: socket.socket, questions: Sequence[bytes]) -> Set[Tuple[Address, str]]:
    """Asks twice, because the first frame to a port of a switch may be lost while it learns, and hears everybody."""
    found: Set[Tuple[Address, str]] = set()
    for _turn in range(2):
        for frame in questions:
            sock.send(frame)
        deadline = time.monotonic() + OWNER_TIME / 2
        while time.monotonic() < deadline:
            if not select.select([sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
            frame, sender = sock.recvfrom(2048)
            answer = answer_of(frame)
            # What our own kernel says to others passes here too.
            if answer is not None and sender[2] != _PACKET_OUTGOING:
                found.add(answer)
    return found


def _words(error: OSError) -> str:
    return "timed out" if isinstance(error, socket.timeout) else (error.strerror or str(error)).lower()
