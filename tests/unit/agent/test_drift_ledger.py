"""Which findings are news. The looking itself is tested on the real kernel (tests/netns/kernel/test_drift_*.py)."""

from __future__ import annotations

from agent.plan import PlanSettings, RedirectPlan, build_plan
from agent.plan.drift import Form
from agent.pods import NetnsId, PodRef
from agent.supervisor.drift_ledger import Finding, Forget, Hold, Ledger, News, Release, Watch

UID = "uid-1"
PLAN: RedirectPlan = build_plan(PodRef(UID, "default", "a"), PlanSettings())
GONE = ("table inet headgate is gone",)
OTHER = ("rule out-capture is missing",)


def watched(ledger: Ledger) -> Watch:
    return ledger.watch(UID, "/run/netns/a", NetnsId(4, 1), PLAN, Form.STEERING)


def found(
    epoch: int, changes: tuple[str, ...] = GONE, *, foreign: tuple[str, ...] = (), routine: bool = False
) -> Finding:
    return Finding(UID, epoch, changes, "nft (pid 7)", foreign, routine)


def test_drift_is_told_once() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    assert ledger.judge(found(epoch, ())) == News()
    assert ledger.judge(found(epoch)) == News(drifted=True)
    assert ledger.judge(found(epoch)) == News()


def test_drift_that_becomes_another_is_told_anew() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    assert ledger.judge(found(epoch)).drifted
    assert ledger.judge(found(epoch, OTHER)).drifted


def test_drift_that_was_undone_and_done_again_is_told_again() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    assert ledger.judge(found(epoch)).drifted
    assert not ledger.judge(found(epoch, ())).drifted
    assert ledger.judge(found(epoch)).drifted


def test_the_minutes_own_look_tells_what_still_is_so() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    ledger.judge(found(epoch))
    assert ledger.judge(found(epoch, routine=True)).drifted


def test_what_is_seen_while_the_agent_changes_the_namespace_does_not_count() -> None:
    ledger = Ledger()
    before = watched(ledger).epoch
    assert ledger.begin(UID) == (Hold(UID),)
    assert ledger.judge(found(before)) == News()
    (release,) = ledger.end(UID)
    assert release.uid == UID and release.epoch > before
    assert ledger.judge(found(before)) == News(), "a look that began before the change ended"
    assert ledger.judge(found(release.epoch)).drifted


def test_a_refused_heal_makes_no_hot_loop() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    assert ledger.judge(found(epoch)).drifted
    ledger.begin(UID)
    (release,) = ledger.end(UID)
    assert not ledger.judge(found(release.epoch)).drifted


def test_after_a_heal_the_same_drift_is_news() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    assert ledger.judge(found(epoch)).drifted
    ledger.begin(UID)
    again = watched(ledger)
    assert again.held, "not to be looked at before the change has ended"
    (release,) = ledger.end(UID)
    assert release.epoch > again.epoch
    assert ledger.judge(found(release.epoch)).drifted


def test_changes_of_ours_that_overlap_end_with_the_last() -> None:
    ledger = Ledger()
    watched(ledger)
    assert ledger.begin(UID) == (Hold(UID),)
    assert ledger.begin(UID) == ()
    assert ledger.end(UID) == ()
    assert [type(command) for command in ledger.end(UID)] == [Release]


def test_a_pod_that_nobody_watches_costs_nothing() -> None:
    ledger = Ledger()
    assert ledger.begin(UID) == ()
    assert ledger.end(UID) == ()
    assert ledger.forget(UID) == ()
    assert ledger.judge(found(1)) == News()


def test_a_first_install_is_looked_at_when_it_has_ended() -> None:
    ledger = Ledger()
    ledger.begin(UID)
    watch = watched(ledger)
    assert watch.held
    (release,) = ledger.end(UID)
    assert release.epoch > watch.epoch


def test_forgotten_within_a_change_of_ours_it_stays_forgotten() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    ledger.begin(UID)
    assert ledger.forget(UID) == (Forget(UID),)
    assert ledger.end(UID) == ()
    assert ledger.judge(found(epoch)) == News()


def test_foreign_chains_are_told_when_the_list_changes() -> None:
    ledger = Ledger()
    epoch = watched(ledger).epoch
    chains = ("table ip istio: chain OUTPUT (nat hook output, priority -101)",)
    assert ledger.judge(found(epoch, ())) == News()
    assert ledger.judge(found(epoch, (), foreign=chains)) == News(foreign=chains)
    assert ledger.judge(found(epoch, (), foreign=chains)) == News()
    again = watched(ledger).epoch
    assert ledger.judge(found(again, (), foreign=chains)) == News(), "a new expectation forgets no foreign chain"
    assert ledger.judge(found(again, ())) == News(foreign=())
