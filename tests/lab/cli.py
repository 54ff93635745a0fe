# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab from a shell: cli.py up | down | status | guest | run.

cli.py up [--cluster alpha=1 --cluster beta=1] [--instance N] [--target-root] [--personality hardened]
cli.py status
cli.py guest alpha1 100 web01 [--disk fast:64:raw ...] [--no-start]   a VM that boots the lab's guest
cli.py run alpha1 -- qm list                                          a command inside a host
cli.py down [--instance N] [--force]                                  all labs of this checkout, or one
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

from lab.hosts import HostError  # noqa: E402 - the path is set above
from lab.instance import STATE, Lab, LabError, down, in_use, instances  # noqa: E402
from lab.network import NetworkError  # noqa: E402
from lab.vms import Disk, create_vm  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="cli.py", description="The lab: clusters of hosts that answer as Proxmox VE.")
    actions = top.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="start an instance")
    up.add_argument("--cluster", action="append", default=[], metavar="NAME=NODES")
    up.add_argument("--instance", type=int)
    up.add_argument("--target-root", action="store_true", help="declare root on the target nodes in the inventory")
    up.add_argument("--personality", help="classic, transitional, hardened, seed or insecure")
    up.add_argument("--slow-mib", type=int, default=256, help="size of the storage slow")
    up.add_argument("--no-api", action="store_true")
    up.add_argument("--no-guest", action="store_true", help="do not build the guest")
    stop = actions.add_parser("down", help="remove an instance, or all of this checkout")
    stop.add_argument("--instance", type=int)
    stop.add_argument("--force", action="store_true", help="also an instance of another checkout")
    actions.add_parser("status", help="what is there")
    guest = actions.add_parser("guest", help="make a VM with the lab's guest and start it")
    guest.add_argument("host")
    guest.add_argument("vmid", type=int)
    guest.add_argument("name")
    guest.add_argument("--disk", action="append", default=[], metavar="STORAGE:MIB[:FORMAT]")
    guest.add_argument("--memory", type=int, default=128)
    guest.add_argument("--no-start", action="store_true")
    guest.add_argument("--instance", type=int)
    run = actions.add_parser("run", help="run a command inside a host")
    run.add_argument("--instance", type=int)
    run.add_argument("host")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    return top


def clusters(words: list[str]) -> dict[str, int] | None:
    """NAME=NODES words as a mapping."""
    found = {}
    for word in words:
        name, _, count = word.partition("=")
        found[name] = int(count or 1)
    return found or None


def do_up(given: argparse.Namespace) -> None:
    lab = Lab.up(
        clusters(given.cluster),
        given.instance,
        api=not given.no_api,
        target_root=given.target_root,
        slow_mib=given.slow_mib,
        guest={} if given.no_guest else None,
        personality={"personality": given.personality} if given.personality else None,
    )
    facts = json.loads((lab.directory / "lab.json").read_text(encoding="utf-8"))
    print("lab %d is up in %.1f s: %s" % (lab.instance, facts["up_seconds"], lab.directory))
    for host in lab.hosts.values():
        print(
            "  %-14s ssh -F %s/ssh_config %s   https://%s:8006"
            % (host.inventory_host, lab.directory, host.name, host.api_host)
        )


def do_down(given: argparse.Namespace) -> None:
    for number in instances() if given.instance is None else [given.instance]:
        user = in_use(number)
        if user and given.instance is None and not given.force:
            print("lab %d is in use by process %d, left alone (--instance %d removes it)" % (number, user, number))
            continue
        print("lab %d %s" % (number, "removed" if down(number, force=given.force) else "was not there"))


def do_status(_: argparse.Namespace) -> None:
    for number in instances():
        try:
            lab = Lab.attach(number)
        except LabError as error:
            print("lab %d: %s" % (number, error))
            continue
        for host in lab.hosts.values():
            vms = ", ".join("%d" % vmid for vmid in sorted(host.qemu_pids())) if host.pid else "down"
            print(
                "lab %d  %-10s %-16s pid %-8d running VMs: %s"
                % (number, host.name, host.api_host, host.pid, vms or "none")
            )


def do_guest(given: argparse.Namespace) -> None:
    host = Lab.attach(given.instance).host(given.host)
    disks = [Disk.parse(word, number) for number, word in enumerate(given.disk or ["fast:64:raw"])]
    vm = create_vm(host, given.vmid, given.name, disks=disks, memory=given.memory, start=not given.no_start)
    print("VM %d (%s) on %s, uuid %s" % (vm.vmid, vm.name, host.name, vm.uuid))


def do_run(given: argparse.Namespace) -> None:
    argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
    done = Lab.attach(given.instance).host(given.host).run(argv, check=False, timeout=None)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


def main() -> None:
    given = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `up` cleans up behind itself
    actions = {"up": do_up, "down": do_down, "status": do_status, "guest": do_guest, "run": do_run}
    try:
        actions[given.action](given)
    except (LabError, HostError, NetworkError, ValueError) as error:
        sys.exit("lab: %s" % error)


if __name__ == "__main__":
    assert STATE
    main()
