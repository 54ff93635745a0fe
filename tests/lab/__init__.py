# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: clusters of hosts with real QEMU that answer as Proxmox VE does. Shares no code with the collection."""
