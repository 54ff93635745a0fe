# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for all end-to-end tests of a session; it goes away however the session ends.

LAB_INSTANCE in the environment uses a lab that is up already and leaves it up (for people who write tests).
"""

from __future__ import annotations

import os
import signal

import pytest

from e2e.controller import Controller
from e2e.direct import certify
from e2e.moves import Mover
from lab import faults
from lab.instance import Lab


@pytest.fixture(scope="session")
def lab():
    # SystemExit would be one more failed test, and the session would go on.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by SIGTERM", 143))
    kept = os.environ.get("LAB_INSTANCE")
    if kept:
        yield Lab.attach(int(kept))
        return
    running = Lab.up()
    try:
        yield running
    finally:
        running.down()


@pytest.fixture(scope="session")
def controller(lab, tmp_path_factory):
    return Controller(lab, tmp_path_factory.mktemp("controller"))


@pytest.fixture(scope="session")
def certificates(controller):
    """Both nodes have certificates of one trust domain, made by the public playbook."""
    certify(controller)


@pytest.fixture
def mover(lab, controller):
    """Makes movers, and takes their VMs and every fault of the lab away after the test."""
    made = []

    def make(**options):
        made.append(Mover(lab, controller, **options))
        return made[-1]

    yield make
    for host in lab.hosts.values():
        faults.clear(host.root)
    for each in made:
        each.destroy()
