"""Which proof connections reached the proxy, as it reports them, and who waits to hear of them."""

import asyncio
from collections.abc import Iterable

from proxy.api import stream


class Expected:
    """The reports of some proof connections: `done` when none is missing any more."""

    __slots__ = ("_missing", "done", "reports")

    def __init__(self, nonces: Iterable[str]) -> None:
        self._missing = set(nonces)
        self.reports: dict[str, stream.Proof] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._check()

    def give_up(self, nonce: str) -> None:
        """That one will not come."""
        self._missing.discard(nonce)
        self._check()

    def hear(self, proof: stream.Proof) -> None:
        """The first report of a nonce counts."""
        if proof.nonce in self._missing:
            self._missing.discard(proof.nonce)
            self.reports[proof.nonce] = proof
            self._check()

    def _check(self) -> None:
        if not self._missing and not self.done.done():
            self.done.set_result(None)


class Reports:
    """Expectations by nonce. A report that nobody expects is dropped, so that strangers who find the proof port cannot
    fill the agent's memory: expect before connecting."""

    def __init__(self) -> None:
        self._by_nonce: dict[str, Expected] = {}

    def expect(self, nonces: Iterable[str]) -> Expected:
        """To be ended with `forget`, whatever comes."""
        named = tuple(nonces)
        expected = Expected(named)
        for nonce in named:
            self._by_nonce[nonce] = expected
        return expected

    def forget(self, nonces: Iterable[str]) -> None:
        for nonce in nonces:
            self._by_nonce.pop(nonce, None)

    def heard(self, proof: stream.Proof) -> None:
        expected = self._by_nonce.get(proof.nonce)
        if expected is not None:
            expected.hear(proof)

    async def wait_for(self, nonce: str, timeout_s: float) -> stream.Proof | None:
        """The report of one nonce; None when none came within `timeout_s` seconds."""
        expected = self.expect((nonce,))
        try:
            await asyncio.wait((expected.done,), timeout=timeout_s)
            return expected.reports.get(nonce)
        finally:
            self.forget((nonce,))

    @property
    def awaited(self) -> int:
        return len(self._by_nonce)
