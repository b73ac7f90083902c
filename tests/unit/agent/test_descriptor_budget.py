"""How many pods a limit of descriptors is enough for (issue 5: RLIMIT_NOFILE raised and budgeted; istio #56888)."""

import resource
import subprocess
import sys

import pytest

from agent.supervisor.budget import MOST, Budget, raise_limit
from proxy.api.descriptor_needs import AGENT

TWO = AGENT.of(2)


def test_pods_are_admitted_up_to_the_budget_and_the_next_one_is_told_why_not() -> None:
    budget = Budget(TWO)
    assert budget.pods == 2
    assert [budget.admit("a"), budget.admit("b")] == ["", ""]
    assert budget.problem == ""
    reason = budget.admit("c")
    assert reason.startswith("the agent may open 264 files, which is enough for 2 pods: raise LimitNOFILE")
    assert budget.problem.startswith("the agent may open 264 files, which is enough for 2 pods; 1 more are refused: ")


def test_a_pod_that_is_admitted_is_looked_at_again_and_again() -> None:
    budget = Budget(TWO)
    for uid in ("a", "b", "a", "a"):
        assert budget.admit(uid) == ""


def test_who_is_refused_is_admitted_when_another_one_has_left() -> None:
    budget = Budget(TWO)
    for uid in ("a", "b", "c"):
        budget.admit(uid)
    budget.release("a")
    assert budget.admit("c") == ""
    assert budget.problem == ""


def test_a_refused_pod_that_leaves_is_no_problem_any_more() -> None:
    budget = Budget(TWO)
    for uid in ("a", "b", "c"):
        budget.admit(uid)
    budget.release("c")
    budget.release("unheard of")
    assert budget.problem == ""
    assert budget.admit("d"), "the budget is as full as before"


def test_a_limit_below_what_is_needed_beside_pods_admits_none() -> None:
    assert Budget(64).pods == 0
    assert "0 pods" in Budget(64).admit("a")


def test_usual_limits_are_enough() -> None:
    """systemd's and containerd's hard limits; 250 pods and twice that."""
    assert Budget(524_288).pods > 100_000
    assert Budget(4096).pods >= 500


@pytest.mark.parametrize(("soft", "hard", "raised"), [(64, 300, 300), (300, 300, 300), (128, 129, 129)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, raised: int) -> None:
    """In a process of its own: a hard limit that was lowered stays so."""
    body = (
        "import resource\n"
        "from agent.supervisor.budget import raise_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == [str(raised), str(raised), str(hard)]


def test_a_limit_is_never_lowered_and_no_process_is_given_more_than_the_kernels_default() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert before[0] <= raise_limit() or before[0] > MOST
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
