# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The integration targets of every module, check mode and second run included, on a VM of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

INTEGRATION = Path(__file__).resolve().parents[1] / "integration"
TARGETS = sorted(path.name for path in (INTEGRATION / "targets").iterdir() if not path.name.startswith("setup_"))

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_target_passes(mover, certificates, target):
    vm = mover().create(watch=False)
    extra = {"target": target, "integration_vmid": vm.vmid}
    vm.controller.run(str(INTEGRATION / "targets.yml"), extra=extra).expect(0)
