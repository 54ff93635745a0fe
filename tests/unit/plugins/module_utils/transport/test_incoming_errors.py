# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import incoming_errors


def test_every_error_is_about_the_target_and_documented():
    for name in incoming_errors.__all__:
        error = getattr(incoming_errors, name)("a sentence", object="10.77.0.21")
        assert error.side is Side.TARGET
        assert name == "IncomingError" or error.code in incoming_errors.__doc__
