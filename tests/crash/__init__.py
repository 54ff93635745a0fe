# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crashes of every part at every point of the protocol, on real QEMU, judged by what is left."""
