"""Blocks as other programs read them: lengths, padding, options, ends."""

import random

import pytest

from agent.capture import pcapng
from tests.unit.agent.capture.reader import Packet, read

WHOLE = pcapng.section("headgate", "a pod") + pcapng.interface("eth0", pcapng.ETHERNET, 100)


def test_a_packet_is_read_back_with_all_that_was_said_of_it() -> None:
    packet = pcapng.packet(
        0, 1_795_422_824_905_096_949, b"12345", 60, direction=pcapng.OUTBOUND, addressed=1, comment="to é", dropped=3
    )
    file = read(WHOLE + packet)
    assert file.comment == "a pod" and file.interfaces == [("eth0", 1)]
    assert file.packets == [Packet("eth0", 1_795_422_824_905_096_949, b"12345", 60, "to é", 2, 3)]


@pytest.mark.parametrize("size", range(9))
def test_data_of_every_length_is_padded(size: int) -> None:
    assert read(WHOLE + pcapng.packet(0, 1, b"x" * size, size)).packets[0].data == b"x" * size


def test_a_packet_of_which_nothing_is_said_has_no_options() -> None:
    assert len(pcapng.packet(0, 1, b"1234", 4)) == 12 + 20 + 4


def test_a_comment_longer_than_an_option_may_be_is_cut_between_characters() -> None:
    comment = read(WHOLE + pcapng.packet(0, 1, b"", 0, comment="é" * 40_000)).packets[0].comment
    assert comment == "é" * 32_767


def test_what_was_seen_and_lost_in_all_is_told_at_the_end() -> None:
    assert read(WHOLE + pcapng.statistics(0, 5, 7, 2)).statistics == {0: (7, 2)}


def test_a_file_that_ends_anywhere_is_read_so_far() -> None:
    data = WHOLE + b"".join(pcapng.packet(0, n, b"x" * n, n, comment="c" * n) for n in range(20))
    chance = random.Random(6)
    for _ in range(200):
        read(data[: chance.randrange(len(data))])
