# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the parts of a Proxmox VE node that the collection touches, on real QEMU."""
