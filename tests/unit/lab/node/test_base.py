# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which missing privilege a refusal names."""

from __future__ import annotations

from typing import Sequence

import pytest

from lab.node.base import Denied, may_all


def only_audit(path: str, privileges: Sequence[str], any_of: bool) -> bool:
    held = [privilege == "VM.Audit" for privilege in privileges]
    return any(held) if any_of else all(held)


def test_the_first_missing_one_or_all_alternatives() -> None:
    may_all(None, "/", ["Sys.Modify"])
    may_all(only_audit, "/vms/1", ["VM.Audit", "VM.Console"], True)
    with pytest.raises(Denied) as refused:
        may_all(only_audit, "/vms/1", ["VM.Audit", "VM.Console", "VM.Migrate"])
    assert refused.value.reason == "Permission check failed (/vms/1, VM.Console)"
    with pytest.raises(Denied) as refused:
        may_all(only_audit, "/vms/1", ["VM.Console", "VM.Migrate"], True)
    assert refused.value.reason == "Permission check failed (/vms/1, VM.Console|VM.Migrate)"
