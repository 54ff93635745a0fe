# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are machines themselves: QEMU with a kernel and a Debian 13 of their own (see the lab's README)."""
