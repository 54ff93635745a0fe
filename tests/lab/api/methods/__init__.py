# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API methods, one module per area; importing a module registers its methods."""

from __future__ import annotations

import importlib
import pkgutil

__all__ = ["load"]


def load() -> None:
    """Import every module of methods."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(__name__ + "." + found.name)
