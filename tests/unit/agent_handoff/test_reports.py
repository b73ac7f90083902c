"""agent.handoff.reports: the reports of several proof connections are waited for together."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

from agent.handoff.reports import Reports
from proxy.api import stream

ONE, TWO = "1" * 32, "2" * 32
PROOF = stream.Proof(ONE, 4711, "outbound", ip_address("10.0.0.9"), 15002)


def test_done_when_none_is_missing() -> None:
    async def run() -> None:
        reports = Reports()
        expected = reports.expect((ONE, TWO))
        reports.heard(PROOF)
        assert not expected.done.done()
        reports.heard(replace(PROOF, nonce=TWO))
        assert expected.done.done() and set(expected.reports) == {ONE, TWO}

    asyncio.run(run())


def test_one_that_will_not_come_is_not_waited_for() -> None:
    async def run() -> None:
        reports = Reports()
        expected = reports.expect((ONE, TWO))
        expected.give_up(TWO)
        reports.heard(PROOF)
        assert expected.done.done() and set(expected.reports) == {ONE}
        reports.heard(replace(PROOF, nonce=TWO))
        assert set(expected.reports) == {ONE}

    asyncio.run(run())


def test_the_first_report_of_a_nonce_counts_and_nobodys_is_dropped() -> None:
    async def run() -> None:
        reports = Reports()
        expected = reports.expect((ONE,))
        reports.heard(PROOF)
        reports.heard(replace(PROOF, netns_cookie=1))
        reports.heard(replace(PROOF, nonce=TWO))
        assert expected.reports == {ONE: PROOF}
        reports.forget((ONE,))
        assert reports.awaited == 0

    asyncio.run(run())
