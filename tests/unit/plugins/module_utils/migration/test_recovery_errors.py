# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import recovery_errors


def test_every_error_is_about_the_target_and_documented():
    for name in recovery_errors.__all__:
        kind = getattr(recovery_errors, name)
        error = kind("a sentence", object="VM 117")
        assert error.side is Side.TARGET
        assert name == "RecoveryRefused" or error.code in recovery_errors.__doc__
