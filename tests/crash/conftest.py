# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick crash cases use the lab of the end-to-end tests."""

from e2e.conftest import certificates, controller, lab, mover

__all__ = ["certificates", "controller", "lab", "mover"]
