"""proxy.supervisor.cuts: each cut connection is counted once, here or by the successor."""

import asyncio

import pytest

from proxy.supervisor.cuts import Cut, Cuts, Why, decode, encode

SHOP = Cut("shop", "web-1", Why.DRAIN_OVER, 3)
HOSTILE = Cut("shop", 'a"} 1\n\x1b[31m', Why.WORKER_ENDED, 1)


@pytest.mark.parametrize("cut", [SHOP, HOSTILE])
def test_a_cut_is_one_line_and_the_same_at_the_other_end(cut: Cut) -> None:
    line = encode(cut)
    assert line.count(b"\n") == 1
    assert decode(line) == cut


@pytest.mark.parametrize(
    "line",
    [
        encode(SHOP)[:-1],
        b"\n",
        b"[]\n",
        b"\xff\n",
        b'{"namespace": "shop", "pod": "web-1", "why": "drain_over"}\n',
        b'{"namespace": 1, "pod": "web-1", "why": "drain_over", "number": 1}\n',
        b'{"namespace": "shop", "pod": null, "why": "drain_over", "number": 1}\n',
        b'{"namespace": "shop", "pod": "web-1", "why": "boredom", "number": 1}\n',
        b'{"namespace": "shop", "pod": "web-1", "why": "drain_over", "number": 0}\n',
        b'{"namespace": "shop", "pod": "web-1", "why": "drain_over", "number": true}\n',
        b'{"namespace": "shop", "pod": "web-1", "why": "drain_over", "number": 1.5}\n',
    ],
)
def test_a_line_that_is_no_cut_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


def test_a_cut_is_counted_here_until_the_hand_over_and_told_from_then_on() -> None:
    async def scenario() -> None:
        counted: list[Cut] = []
        cuts = Cuts(counted.append)
        with cuts.hear() as told:
            cuts.report(SHOP)
            assert told.empty()
            assert not cuts.heard
            cuts.hand_over()
            assert cuts.heard
            cuts.report(HOSTILE)
            cuts.end()
            assert [await told.get(), await told.get()] == [HOSTILE, None]
        assert counted == [SHOP]
        assert not cuts.heard

    asyncio.run(scenario())
