"""proxy.policy.lease: a bound that spans workers is never exceeded, and no token is lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.policy.lease import MAX_IDLE_A_POD, Grant, Ledger, Recall, batch_of

BATCH = batch_of(MAX_IDLE_A_POD)


def test_a_worker_that_is_alone_holds_the_whole_bound() -> None:
    ledger = Ledger(256, 32)
    assert ledger.open(0) == 256
    assert ledger.ask(0) is None


def test_what_a_second_worker_needs_is_recalled_from_the_first() -> None:
    ledger = Ledger(256, 32)
    ledger.open(0)
    assert ledger.open(1) == 0
    assert ledger.ask(1) == Recall(0, 32)
    assert ledger.give_back(0, 20) == [Grant(1, 20)]
    assert ledger.held == {0: 236, 1: 20}


def test_what_a_dead_worker_held_goes_to_those_that_wait() -> None:
    ledger = Ledger(256, 32)
    ledger.open(0)
    ledger.open(1)
    ledger.ask(1)
    assert ledger.reclaim(0) == [Grant(1, 32)]
    assert (ledger.free, ledger.waiting) == (224, ())


def test_two_workers_that_both_need_all_do_not_take_from_each_other_for_ever() -> None:
    ledger = Ledger(64, 8)
    ledger.open(0)
    ledger.open(1)
    for _ in range(100):
        for holder in (0, 1):
            answer = ledger.ask(holder)
            if isinstance(answer, Recall):
                ledger.give_back(answer.holder, answer.tokens)
    assert abs(ledger.held[0] - ledger.held[1]) <= 1
    assert ledger.ask(0) is None and ledger.ask(1) is None


def test_a_return_that_nobody_recalled_is_of_an_earlier_ledger() -> None:
    ledger = Ledger(256, 32)
    ledger.open(0)
    assert ledger.give_back(0, 32) == []
    assert ledger.give_back(7, 1) == []
    assert ledger.held == {0: 256}


class Leasing(RuleBasedStateMachine):
    """Workers that open, ask, use, give back when recalled and die, in any order; each keeps its own count."""

    def __init__(self) -> None:
        super().__init__()
        self.bound = 40
        self.ledger = Ledger(self.bound, batch_of(self.bound))
        self.granted: dict[int, int] = {}
        self.owed: dict[int, int] = {}
        self.used: dict[int, int] = {}

    @rule(worker=st.integers(0, 4))
    def opens(self, worker: int) -> None:
        self.granted[worker] = self.granted.get(worker, 0) + self.ledger.open(worker)

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def asks(self, data: st.DataObject) -> None:
        answer = self.ledger.ask(data.draw(st.sampled_from(sorted(self.granted))))
        if isinstance(answer, Grant):
            assert 0 < answer.tokens <= self.ledger.batch
            self.granted[answer.holder] += answer.tokens
        elif answer is not None:
            self.owed[answer.holder] = self.owed.get(answer.holder, 0) + answer.tokens

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def uses(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.granted)))
        self.used[worker] = data.draw(st.integers(0, self.granted[worker]))

    @precondition(lambda self: any(self.owed.values()))
    @rule(data=st.data())
    def gives_back(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker, tokens in self.owed.items() if tokens]))
        tokens = min(self.owed[worker], self.granted[worker] - self.used.get(worker, 0))
        self.owed[worker] -= tokens
        self.granted[worker] -= tokens
        self.take(self.ledger.give_back(worker, tokens))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.granted)))
        for table in (self.granted, self.owed, self.used):
            table.pop(worker, None)
        self.take(self.ledger.reclaim(worker))

    def take(self, grants: list[Grant]) -> None:
        for grant in grants:
            self.granted[grant.holder] += grant.tokens

    @invariant()
    def workers_together_never_exceed_the_bound(self) -> None:
        assert sum(self.granted.values()) <= self.bound
        assert self.ledger.held == self.granted, "both sides count alike"
        assert self.ledger.free == self.bound - sum(self.granted.values())

    @invariant()
    def nobody_waits_while_tokens_are_free(self) -> None:
        assert not self.ledger.waiting or not self.ledger.free


TestLeasing = Leasing.TestCase
TestLeasing.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
