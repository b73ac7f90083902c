"""proxy.supervisor.pulse: a stopped worker is noticed within 2 s, a slow one is left alone for 5 s."""

from proxy.supervisor.pulse import PING_EVERY_S, START_AFTER_S, Pulse, Verdict


def beats(pulse: Pulse, from_s: float, seconds: float, state: str, answers: bool) -> tuple[float, Verdict] | None:
    """What becomes of a process in this state: when it is given up (from `from_s`), and why."""
    now_s = from_s
    while now_s < from_s + seconds:
        now_s += PING_EVERY_S
        verdict = pulse.judge(now_s, state)
        if verdict is not None:
            return now_s - from_s, verdict
        sequence = pulse.ping(now_s)
        if answers:
            pulse.pong(sequence, now_s + 0.001)
    return None


def started() -> Pulse:
    pulse = Pulse(100.0)
    pulse.spoke()
    assert beats(pulse, 100.0, 3.0, "S", answers=True) is None
    return pulse


def test_a_worker_that_answers_lives_on_whatever_the_kernel_says() -> None:
    assert beats(started(), 103.0, 600.0, "T", answers=True) is None


def test_a_stopped_worker_is_given_up_within_two_seconds() -> None:
    given_up = beats(started(), 103.0, 60.0, "T", answers=False)
    assert given_up is not None
    assert given_up[0] + PING_EVERY_S <= 2.0, "stopped at any instant between two beats"
    assert given_up[1] is Verdict.STOPPED


def test_a_slow_worker_is_not_given_up_before_five_seconds() -> None:
    given_up = beats(started(), 103.0, 60.0, "R", answers=False)
    assert given_up is not None
    assert 5.0 <= given_up[0] <= 6.0
    assert given_up[1] is Verdict.UNRESPONSIVE


def test_a_worker_that_answers_late_but_again_and_again_is_left_alone() -> None:
    """Pongs that trail the pings by seconds: it is slow, not dead."""
    pulse = started()
    sent: list[int] = []
    for beat in range(1, 100):
        now_s = 103.0 + beat * PING_EVERY_S
        assert pulse.judge(now_s, "R") is None
        sent.append(pulse.ping(now_s))
        if len(sent) > 6:
            pulse.pong(sent.pop(0), now_s)


def test_a_process_has_time_to_start() -> None:
    given_up = beats(Pulse(100.0), 100.0, 60.0, "D", answers=False)
    assert given_up is not None
    assert START_AFTER_S <= given_up[0] <= START_AFTER_S + 1


def test_a_process_that_is_stopped_while_it_starts_does_not_get_that_time() -> None:
    given_up = beats(Pulse(100.0), 100.0, 60.0, "T", answers=False)
    assert given_up is not None
    assert given_up[0] <= 2.0


def test_a_supervisor_that_did_not_run_itself_blames_nobody() -> None:
    pulse = started()
    pulse.ping(103.1)
    assert pulse.judge(140.0, "T") is None, "whoever was stopped with it may go on now as well"
    assert beats(pulse, 140.0, 1.0, "S", answers=True) is None
