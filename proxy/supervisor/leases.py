"""Hands the tokens of pods' ledgers (proxy.policy.lease) to workers and takes them back."""

from collections.abc import Callable, Sequence
from typing import Final

from proxy.policy.lease import MAX_IDLE_A_POD, Grant, Ledger, Recall, batch_of
from proxy.workerlink import IDLE_CONNECTIONS, GrantLease, LeaseKey, RecallLease

_BATCH: Final = batch_of(MAX_IDLE_A_POD)

Tell = Callable[[int, GrantLease | RecallLease], None]
"""To the worker of this number."""


class Leases:
    """Of each served pod one ledger: its idle upstream connections. Others will be keyed alike."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._ledgers: dict[str, Ledger] = {}

    def open(self, uid: str, worker: int) -> int:
        """What a worker that begins to serve the pod gets with the hand-over. When the others have all, some is
        recalled for it at once."""
        ledger = self._ledgers.setdefault(uid, Ledger(MAX_IDLE_A_POD, _BATCH))
        tokens = ledger.open(worker)
        if not tokens and (recall := ledger.ask(worker)) is not None:
            self._say(uid, (recall,))
        return tokens

    def asked(self, worker: int, key: LeaseKey) -> None:
        if (ledger := self._ledgers.get(key.uid)) is not None and (answer := ledger.ask(worker)) is not None:
            self._say(key.uid, (answer,))

    def returned(self, worker: int, key: LeaseKey, tokens: int) -> None:
        if (ledger := self._ledgers.get(key.uid)) is not None:
            self._say(key.uid, ledger.give_back(worker, tokens))

    def let_go(self, uid: str, worker: int) -> None:
        """The worker holds nothing of the pod any more: it ended, or the pod did there."""
        if (ledger := self._ledgers.get(uid)) is not None:
            self._say(uid, ledger.reclaim(worker))

    def drop(self, uid: str) -> None:
        self._ledgers.pop(uid, None)

    def _say(self, uid: str, answers: Sequence[Grant | Recall]) -> None:
        key = LeaseKey(IDLE_CONNECTIONS, uid)
        for answer in answers:
            message = GrantLease if isinstance(answer, Grant) else RecallLease
            self._tell(answer.holder, message(key, answer.tokens))
