"""Rules that change while they are traced: what is certain is kept, what is not is marked."""

from dataclasses import replace

from agent.tracing.known import Known, KnownRule

A = KnownRule("nft", "unknown", "accept", "", 1)
B = KnownRule("nft", "unknown", "drop", "", 2)
KEY, OTHER = ("ip", "t", 4), ("ip", "t", 5)


def test_a_rule_that_only_moved_is_the_same_rule() -> None:
    before, now = Known(rules={KEY: A}), Known(rules={OTHER: B, KEY: replace(A, place=2)})
    found = before.later(now)
    assert (found.rules[KEY].changed, found.rules[OTHER]) == (False, B)


def test_a_rule_that_went_is_still_known_and_marked() -> None:
    found = Known(rules={KEY: A}).later(Known())
    assert found.rules[KEY] == replace(A, changed=True)


def test_a_handle_that_stands_for_another_rule_now_is_marked_and_told_as_it_was() -> None:
    found = Known(rules={KEY: A}).later(Known(rules={KEY: B}))
    assert found.rules[KEY] == replace(A, changed=True)


def test_another_trace_that_came_is_no_change_of_the_rules() -> None:
    trace = KnownRule("nft", "headgate rules trace", "meta nftrace set 1", "", 1)
    assert not Known(rules={KEY: A}).differs(Known(rules={KEY: A, ("inet", "headgate-trace-1-1", 2): trace}))
    assert Known(rules={KEY: A}).differs(Known(rules={KEY: B}))
