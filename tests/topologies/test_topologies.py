# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks that look private and are not, built of network namespaces, and a few that are: no false `private-proven`.

Each topology says which checks must find it. The namespaces are a and b, the nodes; o, a host outside; sw, the switch
between; c, somebody else; r, a router. Network is 10.5.0.0/24 and fd00:5::/64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from topologies.audit import audit
from topologies.spaces import Net

V4, V6 = "10.5.0.0/24", "fd00:5::/64"
Build = Callable[[Net], None]
TAP = "tuntap add tap100i0 mode tap"


def address(network: str, last: int, prefix: str = "") -> str:
    base, _slash, length = network.partition("/")
    return f"{base.rstrip('0') if ':' not in base else base}{last}/{prefix or length}"


def settle(net: Net, network: str, prefix_b: str = "") -> None:
    """The address 1 for a and 2 for b, on the interface mig."""
    net.ip("a", f"addr add {address(network, 1)} dev mig")
    net.ip("b", f"addr add {address(network, 2, prefix_b)} dev mig")


def switched(network: str = V4, *others: str, settled: bool = True) -> Build:
    """Nodes at a switch, beside it one interface of each to the outside host."""

    def build(net: Net) -> None:
        net.add("a", "b", "o", "sw", *others)
        net.switch("sw", ("a", "mig"), ("b", "mig"), *((other, "mig") for other in others))
        net.switch("o", ("a", "api"), ("b", "api"), bridge="mgmt")
        for last, name in enumerate("abo", 1):
            link = "mgmt" if name == "o" else "api"
            net.ip(name, f"addr add 192.0.2.{last}/24 dev {link}", f"addr add 2001:db8::{last}/64 dev {link}")
        if settled:
            settle(net, network)

    return build


def with_more(*changes: Callable[[Net], None], network: str = V4, others: tuple[str, ...] = ()) -> Build:
    def build(net: Net) -> None:
        switched(network, *others)(net)
        for change in changes:
            change(net)

    return build


def ip(name: str, *lines: str) -> Build:
    return lambda net: net.ip(name, *lines)


def nft(name: str, text: str) -> Build:
    return lambda net: net.nft(name, text)


def kernel(name: str, *settings: str) -> Build:
    return lambda net: net.set(name, *settings)


def routed_pair(net: Net) -> None:
    """Two segments with a router between them that answers for both sides (proxy ARP and NDP)."""
    net.add("a", "b", "o", "r")
    net.wire("a", "mig", "r", "ra")
    net.wire("b", "mig", "r", "rb")
    settle(net, V4)
    settle(net, V6)
    net.set("r", "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
    net.set("r", *(f"net/ipv4/conf/{port}/proxy_arp=1" for port in ("ra", "rb")))
    net.ip("r", "route add 10.5.0.1 dev ra", "route add 10.5.0.2 dev rb")
    net.set("r", *(f"net/ipv6/conf/{port}/proxy_ndp=1" for port in ("ra", "rb")))
    net.ip("r", "route add fd00:5::1 dev ra", "route add fd00:5::2 dev rb")
    net.ip("r", "neigh add proxy fd00:5::2 dev ra", "neigh add proxy fd00:5::1 dev rb")


def translated_pair(net: Net) -> None:
    routed_pair(net)
    net.nft("r", "table inet n { chain p { type nat hook postrouting priority 100; masquerade; }; }")
    # An address to hide behind, which the nodes' networks do not hold.
    net.ip("r", "addr add 192.0.2.9/32 dev ra", "addr add 192.0.2.9/32 dev rb")


def wrong_vlan(network: str) -> Build:
    """Two switches that know nothing of each other are what two VLANs are."""

    def build(net: Net) -> None:
        net.add("a", "b", "o", "sw", "sw2")
        net.switch("sw", ("a", "mig"))
        net.switch("sw2", ("b", "mig"))
        settle(net, network)

    return build


def bridged(port: str) -> Build:
    """The address of a lies on a bridge, as on most nodes; beside the cable the bridge has one more port."""

    def build(net: Net) -> None:
        switched(V4, settled=False)(net)
        make = TAP if port == "tap100i0" else f"link add {port} type veth peer name inner"
        net.ip("a", "link add vmbr1 type bridge", "link set mig master vmbr1", make, f"link set {port} master vmbr1 up")
        net.ip("a", "link set vmbr1 up", f"addr add {address(V4, 1)} dev vmbr1", f"addr add {address(V6, 1)} dev vmbr1")
        net.ip("b", f"addr add {address(V4, 2)} dev mig", f"addr add {address(V6, 2)} dev mig")

    return build


def wire_into_guests_bridge(net: Net) -> None:
    """The interface of a is one end of a pair, the other end a port of the guests' bridge."""
    net.add("a", "b", "o", "sw")
    net.switch("sw", ("a", "cable"), ("b", "mig"))
    net.ip("a", "link add vmbr0 type bridge", "link add mig type veth peer name migp", "link set migp master vmbr0 up")
    net.ip(
        "a",
        "link set cable master vmbr0",
        TAP,
        "link set tap100i0 master vmbr0 up",
        "link set vmbr0 up",
        "link set mig up",
    )
    settle(net, V4)


def container(net: Net) -> None:
    """A guest with an interface of its own on that of a, in the guest's network namespace."""
    net.ip("a", f"link add link mig name inner netns {net.spaces['c'].pid} type macvlan mode bridge")
    net.ip("c", "link set inner up")


def over_vxlan(net: Net) -> None:
    switched(V4, settled=False)(net)
    for name, own, other in (("a", 1, 2), ("b", 2, 1)):
        tunnel = f"link add vx type vxlan id 5 dstport 4789 local 192.0.2.{own} remote 192.0.2.{other}"
        net.ip(name, tunnel, "link set vx up", f"addr add {address(V4, own)} dev vx")


def jumbo(a: int, b: int, switch: int) -> Build:
    def build(net: Net) -> None:
        switched(V4)(net)
        net.ip("sw", f"link set sw-a mtu {switch}", f"link set sw-b mtu {switch}", f"link set sw mtu {switch}")
        net.ip("a", f"link set mig mtu {a}")
        net.ip("b", f"link set mig mtu {b}")

    return build


def way_back_elsewhere(net: Net) -> None:
    """b answers over another wire."""
    switched(V4)(net)
    net.wire("a", "other", "b", "other")
    net.ip("a", "addr add 10.6.0.1/24 dev other")
    net.ip("b", "addr add 10.6.0.2/24 dev other", "route add 10.5.0.1/32 via 10.6.0.1")
    net.set("a", "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/other/rp_filter=0")


def policy_routed(rule: str, family: str = "-4") -> Build:
    """The main table knows the direct way, a rule prefers another one: through a router beside the network."""
    inet6 = family == "-6"

    def build(net: Net) -> None:
        switched(V6 if inet6 else V4)(net)
        gateway, peer = ("2001:db8::2", "fd00:5::2/128") if inet6 else ("192.0.2.2", "10.5.0.2/32")
        route = f"{family} route add {peer} via {gateway} dev api table 200"
        # `ip -batch` takes no option within a line.
        for words in (route, f"{family} rule add {rule} lookup 200"):
            net.spaces["a"].run(["ip", *words.split()])
        net.set("b", "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/api/rp_filter=0")

    return build


def another_network_on_the_wire(net: Net) -> None:
    """c is on the wire with an address of another network, in which a has one too, and has talked to it."""
    switched(V4, "c")(net)
    net.ip("a", "addr add 10.6.0.1/24 dev mig")
    net.ip("c", "addr add 10.6.0.77/24 dev mig")
    net.spaces["c"].run(["bash", "-c", "echo x >/dev/udp/10.6.0.1/9"])


def stranger_inside(network: str, last: int = 77) -> Build:
    """c is in the network, and nobody has said so."""

    def build(net: Net) -> None:
        switched(network, "c")(net)
        net.ip("c", f"addr add {address(network, last)} dev mig")

    return build


def duplicate(network: str, last: int) -> Build:
    """c has the address of a node as well."""
    return with_more(ip("c", f"addr add {address(network, last)} dev mig nodad"), network=network, others=("c",))


def talks(net: Net) -> None:
    """c has talked to a not long ago."""
    stranger_inside(V4)(net)
    net.spaces["c"].run(["bash", "-c", "echo x >/dev/udp/10.5.0.1/9"])


def reached_from_outside(net: Net) -> None:
    """o has a way to the migration addresses through the nodes' other interface (weak host model)."""
    switched(V4)(net)
    net.ip("o", "route add 10.5.0.1/32 via 192.0.2.1", "route add 10.5.0.2/32 via 192.0.2.2")


def hides_ports(family: str) -> Build:
    """The first node's own rules change the port that it sends from."""
    rule = f"{family} daddr {{0}} meta l4proto tcp oifname mig masquerade to :2000-3000"
    peer = "10.5.0.2" if family == "ip" else "fd00:5::2"
    text = f"table {family} n {{ chain p {{ type nat hook postrouting priority 100; {rule.replace('{0}', peer)}; }}; }}"
    return with_more(nft("a", text), network=V4 if family == "ip" else V6)


MASQUERADE = "table ip n { chain p { type nat hook postrouting priority 100; %s masquerade; }; }"
FORWARDS = kernel("a", "net/ipv4/ip_forward=1")
SHUT = "table inet f { chain in { type filter hook input priority 0; policy accept; tcp dport 60150-60159 %s drop; }; }"

GOOD: dict[str, tuple[Build, str]] = {
    "switch": (switched(V4), V4),
    "switch, IPv6": (switched(V6), V6),
    "both versions, IPv4 audited": (with_more(lambda net: settle(net, V6)), V4),
    "large network": (switched("10.5.0.0/16"), "10.5.0.0/16"),
    "jumbo packets": (jumbo(9000, 9000, 9000), V4),
    "default route by another interface": (with_more(ip("a", "route add default via 192.0.2.3")), V4),
    "a router that hides nobody": (with_more(FORWARDS), V4),
    "a router that hides others elsewhere": (
        with_more(FORWARDS, nft("a", MASQUERADE % "oifname api ip saddr 172.17.0.0/16")),
        V4,
    ),
    "outside knows the way, the filter stops it": (reached_from_outside, V4),
    "rules that lead elsewhere": (
        with_more(
            ip(
                "a",
                "rule add from 192.0.2.1 lookup 201",
                "rule add fwmark 0x5 lookup 202",
                "rule add to 10.6.0.0/24 lookup 201",
            ),
            ip("a", "route add default via 192.0.2.3 table 201", "route add 10.6.0.0/16 via 192.0.2.3 table 202"),
        ),
        V4,
    ),
    "a tunnel for everything else": (
        # What wg-quick sets up: marked packets and those that only a default route would match go elsewhere.
        with_more(
            ip("a", "route add default via 192.0.2.3 table 51820", "rule add not fwmark 0xca6c lookup 51820"),
            ip("a", "rule add lookup main suppress_prefixlength 0"),
        ),
        V4,
    ),
    "firewall of the node's own lets the peer in": (with_more(nft("a", SHUT % "ip saddr != 10.5.0.2")), V4),
}

BAD: dict[str, tuple[Build, str, set[int]]] = {
    "public network": (switched("203.0.113.0/24"), "203.0.113.0/24", {1}),
    "public network, IPv6": (switched("2001:db8:5::/64"), "2001:db8:5::/64", {1}),
    "carrier's network": (switched("100.64.5.0/24"), "100.64.5.0/24", {1}),
    "no address": (switched(V4, settled=False), V4, {2}),
    "second address": (with_more(ip("a", "addr add 10.5.0.9/24 dev mig")), V4, {2}),
    "second address, IPv6": (with_more(ip("b", "addr add fd00:5::9/64 dev mig"), network=V6), V6, {2}),
    "prefixes differ": (with_more(ip("b", "addr del 10.5.0.2/24 dev mig", "addr add 10.5.0.2/16 dev mig")), V4, {2}),
    "prefixes differ, IPv6": (
        with_more(ip("b", "addr del fd00:5::2/64 dev mig", "addr add fd00:5::2/48 dev mig"), network=V6),
        V6,
        {2},
    ),
    "another interface overlaps": (with_more(ip("a", "addr add 10.4.0.1/15 dev api")), V4, {2}),
    "cable pulled": (with_more(ip("sw", "link set sw-b down")), V4, {2}),
    "way through a gateway": (with_more(ip("a", "route add 10.5.0.2/32 via 10.5.0.254 onlink dev mig")), V4, {3}),
    "way through a gateway, IPv6": (
        with_more(ip("a", "route add fd00:5::2/128 via fd00:5::254 onlink dev mig"), network=V6),
        V6,
        {3},
    ),
    "way back elsewhere": (way_back_elsewhere, V4, {3}),
    "rule for the own address": (policy_routed("from 10.5.0.1"), V4, {3}),
    "rule for the own address, IPv6": (policy_routed("from fd00:5::1", "-6"), V6, {3}),
    "rule for the ports of a migration": (policy_routed("ipproto tcp dport 60100-60149"), V4, {3}),
    "rule for the ports of a migration, IPv6": (policy_routed("ipproto tcp dport 60100-60149", "-6"), V6, {3}),
    "rule for marked packets": (policy_routed("fwmark 0x5"), V4, {3}),
    "rule for a user": (policy_routed("to 10.5.0.0/24 uidrange 1000-2000"), V4, {3}),
    "default route": (with_more(ip("a", "route add default via 10.5.0.254 dev mig")), V4, {4}),
    "default route in halves": (
        with_more(ip("b", "route add 0.0.0.0/1 via 10.5.0.254", "route add 128.0.0.0/1 via 10.5.0.254")),
        V4,
        {4},
    ),
    "default route of the other version": (
        with_more(ip("a", "addr add fd00:9::1/64 dev mig", "route add default via fd00:9::254 dev mig")),
        V4,
        {4},
    ),
    "default route, IPv6": (with_more(ip("a", "route add default via fd00:5::254 dev mig"), network=V6), V6, {4}),
    "router that hides others here": (with_more(FORWARDS, nft("a", MASQUERADE % "oifname mig")), V4, {4}),
    "router that hides this network": (with_more(FORWARDS, nft("a", MASQUERADE % "oifname api")), V4, {4}),
    "translated in between": (translated_pair, V4, {5, 7}),
    "port translated": (hides_ports("ip"), V4, {5}),
    "port translated, IPv6": (hides_ports("ip6"), V6, {5}),
    "wrong VLAN": (wrong_vlan(V4), V4, {5, 6}),
    "wrong VLAN, IPv6": (wrong_vlan(V6), V6, {5, 6}),
    "router that answers for others": (routed_pair, V4, {7}),
    "router that answers for others, IPv6": (routed_pair, V6, {7}),
    "the peer's address twice": (duplicate(V4, 2), V4, {7}),
    "our own address twice": (duplicate(V4, 1), V4, {7}),
    "the peer's address twice, IPv6": (duplicate(V6, 2), V6, {7}),
    "both nodes have one address": (
        with_more(ip("b", "addr del 10.5.0.2/24 dev mig", "addr add 10.5.0.1/24 dev mig")),
        V4,
        {7},
    ),
    "MTU hole": (jumbo(1500, 1500, 1400), V4, {8}),
    "MTUs differ": (jumbo(9000, 1500, 9000), V4, {8}),
    "firewall shuts the peer out": (with_more(nft("b", SHUT % "")), V4, {5, 6, 9}),
    "stranger inside": (talks, V4, {10}),
    "another network on the wire": (another_network_on_the_wire, V4, {10}),
    "over a tunnel": (over_vxlan, V4, {11}),
    "guest on the bridge": (bridged("tap100i0"), V4, {12}),
    "guest on the bridge, IPv6": (bridged("tap100i0"), V6, {12}),
    "container on the bridge": (bridged("veth101i0"), V4, {12}),
    "pair into the guests' bridge": (wire_into_guests_bridge, V4, {12}),
    "macvlan of a container": (with_more(container, others=("c",)), V4, {12}),
}


@pytest.fixture
def net():
    """Everything ends with its processes."""
    found = Net()
    yield found
    found.close()


def failed(verdict) -> set[int]:
    return {check["number"] for check in verdict["checks"] if check["state"] == "failed"}


def shown(verdict) -> str:
    return "\n".join(f"{c['number']} {c['node']} {c['state']}: {c['finding']}" for c in verdict["checks"])


@pytest.mark.parametrize("name", GOOD)
def test_private_network_is_proven(net, name):
    build, network = GOOD[name]
    build(net)
    verdict = audit(net, network)
    assert verdict["verdict"] == "private-proven", shown(verdict)


@pytest.mark.parametrize("name", BAD)
def test_other_network_is_not_proven_and_the_cause_is_named(net, name):
    build, network, found = BAD[name]
    build(net)
    verdict = audit(net, network)
    assert verdict["verdict"] == "unknown", shown(verdict)
    assert found <= failed(verdict), shown(verdict)


def test_missing_filter_is_found(net):
    switched(V4)(net)
    verdict = audit(net, V4, with_filter=False)
    assert verdict["verdict"] == "unknown"
    assert failed(verdict) == {9}, shown(verdict)


def test_stranger_that_gets_in_is_found(net):
    reached_from_outside(net)
    verdict = audit(net, V4, with_filter=False)
    assert {9, 10} <= failed(verdict), shown(verdict)


def test_outside_host_in_the_network_is_found(net):
    stranger_inside(V4)(net)
    verdict = audit(net, V4, outside=["c"])
    assert 10 in failed(verdict), shown(verdict)


def test_impostor_is_found(net):
    switched(V4)(net)
    verdict = audit(net, V4, impostor=True)
    assert {5, 6} <= failed(verdict), shown(verdict)


def test_without_an_outside_host_it_is_a_claim(net):
    switched(V4)(net)
    verdict = audit(net, V4, outside=[], statement={"accepted_by": "operator", "until": "2099-12-31"})
    assert verdict["verdict"] == "private-claimed", shown(verdict)
    assert failed(verdict) == set()
