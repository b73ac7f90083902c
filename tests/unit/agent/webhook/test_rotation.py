"""When certificates are made anew; every case of a year, by the day."""

import pytest

from agent.webhook.rotation import (
    AUTHORITY_LIFE_S,
    BACKDATED_S,
    DAY_S,
    OVERLAP_S,
    SERVING_LIFE_S,
    Held,
    Span,
    Step,
    due,
)

_HOST = "headgate-webhook.headgate-system.svc"
_MADE_S = 1_800_000_000.0
_SOON_S = OVERLAP_S + 1


def _authority(made_s: float = _MADE_S) -> Span:
    return Span(made_s - BACKDATED_S, made_s + AUTHORITY_LIFE_S)


def _serving(made_s: float = _MADE_S) -> Span:
    return Span(made_s - BACKDATED_S, made_s + SERVING_LIFE_S)


def _held(authorities: tuple[Span, ...] = (_authority(),), serving: Span | None = None, signer: int | None = 0) -> Held:
    return Held(authorities, serving or _serving(), signer, frozenset({_HOST}))


@pytest.mark.parametrize(
    ("after_s", "step"),
    [
        (0.0, Step.NOTHING),
        (19 * DAY_S, Step.NOTHING),
        (20 * DAY_S + 1, Step.SERVING),
        (29 * DAY_S, Step.SERVING),
        (31 * DAY_S, Step.SERVING),
        (274 * DAY_S, Step.SERVING),
        (366 * DAY_S, Step.ALL),
    ],
)
def test_certificates_by_their_age(after_s: float, step: Step) -> None:
    assert due(_held(), _HOST, _MADE_S + after_s).step is step


def test_an_authority_is_replaced_before_its_last_quarter_and_signs_no_more_by_itself() -> None:
    now_s = _MADE_S + 276 * DAY_S
    held = _held(serving=_serving(now_s - DAY_S))
    assert due(held, _HOST, now_s).step is Step.AUTHORITY


def test_a_new_authority_is_known_everywhere_before_it_signs() -> None:
    now_s = _MADE_S + 276 * DAY_S
    held = _held((_authority(now_s), _authority()), _serving(now_s - DAY_S), signer=1)
    assert due(held, _HOST, now_s + 60).step is Step.NOTHING
    after = due(held, _HOST, now_s + _SOON_S)
    assert (after.step, after.why) == (Step.SERVING, "a new authority is known to the API servers")


def test_a_serving_certificate_in_its_last_days_waits_for_the_overlap_too() -> None:
    now_s = _MADE_S + 276 * DAY_S
    held = _held((_authority(now_s), _authority()), _serving(now_s - 29 * DAY_S), signer=1)
    assert due(held, _HOST, now_s).step is Step.NOTHING
    assert due(held, _HOST, now_s + _SOON_S).step is Step.SERVING


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (_held(serving=Span(0, 1)), "the serving certificate has ended"),
        (_held(signer=None), "no authority of ours has signed the serving certificate"),
        (_held((_authority(), Span(0, 1)), signer=1), "the authority of the serving certificate has ended"),
        (Held((_authority(),), _serving(), 0, frozenset({"other.svc"})), f"the serving certificate is not for {_HOST}"),
    ],
    ids=["ended", "signed by nobody", "its authority ended", "another name"],
)
def test_what_no_api_server_takes_is_not_waited_for(held: Held, why: str) -> None:
    found = due(held, _HOST, _MADE_S + 1)
    assert (found.step, found.why) == (Step.SERVING, why)


def test_all_is_new_after_a_year_switched_off() -> None:
    held = _held((Span(0, 1), Span(0, 2)), Span(0, 1), signer=1)
    assert due(held, _HOST, _MADE_S).step is Step.ALL
