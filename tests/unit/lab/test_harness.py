# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the serial ports say, and what is concluded from it."""

from __future__ import annotations

from lab.harness import Transcript


def beats(transcript: Transcript, host: str, numbers: range, start: float, step: float = 0.01) -> float:
    """Feed heartbeats; returns the time after the last."""
    for number in numbers:
        transcript.feed(start, host, b"HB %d %d 0\n" % (number, number * 10))
        start += step
    return start


def test_a_move_shows_its_gap_and_no_violation() -> None:
    transcript = Transcript()
    end = beats(transcript, "alpha1", range(1, 101), 0.0)
    beats(transcript, "beta1", range(101, 151), end + 0.29)
    switch = transcript.switches()[0]
    assert (switch.source, switch.target, switch.last_seq, switch.first_seq, switch.missing) == (
        "alpha1",
        "beta1",
        100,
        101,
        0,
    )
    assert round(switch.gap_ms) == 300
    assert round(switch.worst_before_ms) == 10
    assert transcript.violations() == []


def test_two_running_copies_are_seen() -> None:
    transcript = Transcript()
    end = beats(transcript, "alpha1", range(1, 11), 0.0)
    beats(transcript, "beta1", range(11, 21), end)
    beats(transcript, "alpha1", range(11, 21), end + 0.005)
    assert any("came from beta1 and from alpha1" in text for text in transcript.violations())


def test_a_guest_set_back_is_seen() -> None:
    transcript = Transcript()
    beats(transcript, "beta1", range(50, 60), 0.0)
    beats(transcript, "alpha1", range(40, 42), 1.0)
    assert transcript.violations() == ["heartbeat 40 of alpha1 came after 59", "heartbeat 41 of alpha1 came after 59"]


def test_a_reboot_is_no_violation() -> None:
    transcript = Transcript()
    end = beats(transcript, "alpha1", range(1, 30), 0.0)
    beats(transcript, "alpha1", range(1, 30), end + 5)
    assert transcript.violations() == []


def test_a_line_split_by_the_switch_is_joined() -> None:
    transcript = Transcript()
    transcript.connected("alpha1")
    transcript.connected("beta1")
    transcript.feed(0.0, "alpha1", b"HB 1 10 0\nHB 2 2")
    transcript.feed(0.5, "beta1", b"0 0\nACK 0 7\n")
    assert [(beat.seq, beat.host) for beat in transcript.heartbeats] == [(1, "alpha1"), (2, "beta1")]
    assert transcript.acknowledged() == {0: 7}


def test_bytes_may_come_in_any_pieces() -> None:
    transcript = Transcript()
    for byte in b"BOOT 12\nHB 1 10 0\nACK 1 5\nACK 0 3\n":
        transcript.feed(1.0, "alpha1", bytes([byte]))
    assert [text for _, _, text in transcript.lines] == ["BOOT 12"]
    assert (len(transcript.heartbeats), transcript.acknowledged()) == (1, {1: 5, 0: 3})


def test_the_longest_time_without_a_write_is_per_disk() -> None:
    transcript = Transcript()
    for at, line in ((0.0, b"ACK 0 1"), (0.1, b"ACK 1 1"), (0.2, b"ACK 0 2"), (1.2, b"ACK 1 2"), (0.3, b"ACK 0 3")):
        transcript.feed(at, "alpha1", line + b"\n")
    assert round(transcript.write_gap_ms()) == 1100
    assert round(transcript.write_gap_ms(disk=0)) == 200
