# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick crash cases use the lab of the end-to-end tests."""

from e2e.conftest import controller, lab

__all__ = ["controller", "lab"]
