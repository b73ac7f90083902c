"""Each step fails once for each of its reasons; what an operator reads is in tests/golden/agent/why.txt, word by word.

To look at a change of it: `python -m tests.unit.agent.why.test_steps` prints the file anew.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from agent.why.facts import (
    Difference,
    Facts,
    Led,
    Netns,
    NoAnswer,
    NoNetns,
    Origin,
    Ours,
    Outside,
    PortHeld,
    Proved,
    Rejection,
    Silence,
    Unknown,
    Unopened,
    Wishes,
)
from agent.why.report import in_full
from agent.why.steps import first_failure, judge
from agent.why.verdict import Result, Step, Verdict
from tests.unit.agent.why.stories import (
    DROPPED,
    FAULTS,
    FOUR,
    NETNS,
    PROXY,
    THIEF,
    WELL,
    in_netns,
    of_agent,
    of_pod,
    out4,
    unenrolled,
    without_agent,
)

GOLDEN: Final = Path(__file__).parents[3] / "golden" / "agent" / "why.txt"
_HEAD: Final = "## "


def golden() -> dict[str, str]:
    """By fault: the failing step in full."""
    sections = GOLDEN.read_text().split(_HEAD)[1:]
    return {name: text.rstrip("\n") for name, _, text in (section.partition("\n") for section in sections)}


def told(facts: Facts) -> str:
    cause = first_failure(judge(facts))
    return "nothing fails" if cause is None else "\n".join(in_full(cause))


def step(facts: Facts, wanted: Step) -> Verdict:
    (found,) = [verdict for verdict in judge(facts) if verdict.step is wanted]
    return found


def results(facts: Facts) -> dict[Step, Result]:
    return {verdict.step: verdict.result for verdict in judge(facts)}


@pytest.mark.parametrize("fault", FAULTS)
def test_first_failing_step_is_told_with_what_was_found_why_and_the_remedy(fault: str) -> None:
    assert told(FAULTS[fault]) == golden()[fault]


def test_every_golden_text_is_of_a_fault_and_every_step_but_the_last_fails_somewhere() -> None:
    assert golden().keys() == FAULTS.keys()
    failing = {cause.step for facts in FAULTS.values() if (cause := first_failure(judge(facts))) is not None}
    assert failing == set(Step) - {Step.OUTSIDE}


def test_steps_are_judged_in_their_order_and_pass_where_nothing_is_wrong() -> None:
    verdicts = judge(WELL)
    assert [verdict.step for verdict in verdicts] == [step for step in Step if step is not Step.PROBES]
    assert {verdict.result for verdict in verdicts} == {Result.PASSED}


# ── What passes, and is noted ──────────────────────────────────────────────────────────────────────────────────────
def test_connections_outside_the_mesh_are_noted_and_no_failure() -> None:
    verdict = step(of_pod(outside=Outside(2, 0, 1, ("10.0.0.5:4000 - 10.0.0.9:80",))), Step.OUTSIDE)
    assert verdict.result is Result.NOTED
    assert verdict.found == (
        "3 connections live outside the mesh: 2 older than the rules, 1 left alone by the rules before"
    )
    assert verdict.notes == (
        "10.0.0.5:4000 - 10.0.0.9:80 …",
        "they end in their own time; all of them: headgate conn default/web --unsteered",
    )


def test_overruled_annotations_are_noted() -> None:
    origin = Origin("ports", "headgate.io/exclude-uids", "5", (("config.linkerd.io/skip-x", "6"),))
    node = Origin("dns", "node-wide default", "on")
    verdict = step(of_pod(wishes=Wishes("", (origin, node), ("istio.io/x: y: not known",))), Step.ANNOTATIONS)
    assert verdict.found == "understood: headgate.io/exclude-uids"
    assert verdict.notes == (
        "headgate.io/exclude-uids: 5 wins over config.linkerd.io/skip-x: 6",
        "without effect: istio.io/x: y: not known",
    )


def test_misspelt_label_is_noted() -> None:
    verdict = step(of_pod(mesh_label="Disabled"), Step.SELECTION)
    assert verdict.result is Result.NOTED
    assert verdict.notes == ("only the word disabled takes a pod out: Disabled is none of enabled and disabled",)


def test_rejected_objects_are_noted_those_of_the_pods_namespace_first() -> None:
    rejected = (Rejection("VirtualService shop/a", "a: wrong"), Rejection("VirtualService default/b", "b: wrong"))
    verdict = step(replace(WELL, proxy=replace(PROXY, rejections=rejected)), Step.POLICY)
    assert verdict.result is Result.NOTED
    assert verdict.notes == ("not in force: b: wrong", "not in force: a: wrong")
    many = tuple(Rejection(f"VirtualService shop/{number}", "wrong") for number in range(8))
    verdict = step(replace(WELL, proxy=replace(PROXY, rejections=many)), Step.POLICY)
    assert len(verdict.notes) == 6 and verdict.notes[-1].startswith("and 3 more")


def test_foreign_chains_conflicts_and_healed_drift_are_noted_while_the_proofs_hold() -> None:
    told = of_pod(difference=Difference((), ("table ip nat: chain x",)), drifts=2, last_drift="a rule was missing")
    facts = replace(told, netns=replace(NETNS, conflicts=("somebody writes our mark",)))
    assert step(facts, Step.RULES).notes == (
        "somebody writes our mark",
        "others' rules may interfere: table ip nat: chain x",
        "found changed 2 times and healed; last: a rule was missing",
    )


def test_problems_of_the_source_are_noted() -> None:
    source = replace(of_agent().agent.source, problems=("pods.yaml: pod 2: wrong",))  # type: ignore[union-attr]
    assert step(of_agent(source=source), Step.POD).notes == ("problem of the source: pods.yaml: pod 2: wrong",)


# ── What is not known is not guessed ───────────────────────────────────────────────────────────────────────────────
def test_without_permission_the_namespace_is_unknown_and_the_agents_word_counts() -> None:
    facts = replace(WELL, netns=NoNetns(Unopened.DENIED, "/run/netns/web", "Operation not permitted"))
    assert step(facts, Step.NETNS).result is Result.UNKNOWN
    assert "CAP_SYS_ADMIN is needed" in step(facts, Step.NETNS).found
    assert results(facts)[Step.PORTS] is Result.SKIPPED
    assert results(facts)[Step.RULES] is Result.PASSED
    assert first_failure(judge(facts)) is None


def test_path_that_only_the_agent_has_is_unknown() -> None:
    facts = replace(WELL, netns=NoNetns(Unopened.MISSING, "/run/netns/web"))
    verdict = step(facts, Step.NETNS)
    assert verdict.result is Result.UNKNOWN and "is not there for this command" in verdict.found


def test_ports_whose_marks_the_kernel_does_not_tell_are_unknown() -> None:
    assert step(in_netns(ports=(PortHeld(15001, None),)), Step.PORTS).result is Result.UNKNOWN


def test_rules_that_cannot_be_compared_are_unknown() -> None:
    verdict = step(of_pod(difference=Unknown("Operation not permitted")), Step.RULES)
    assert (verdict.result, verdict.found) == (Result.UNKNOWN, "not compared: Operation not permitted")


def test_proofs_that_could_not_be_taken_are_unknown() -> None:
    assert step(of_pod(proofs=Unknown("no proof within 15 s")), Step.PROOFS).result is Result.UNKNOWN


def test_proxy_that_has_no_admin_socket_is_known_by_the_agents_word() -> None:
    facts = replace(WELL, proxy=NoAnswer(Silence.ABSENT, "/run/proxy-admin.sock"))
    verdict = step(facts, Step.PROXY)
    assert (verdict.result, verdict.found) == (Result.NOTED, "connected, and it took the pod")
    assert step(facts, Step.POLICY).result is Result.UNKNOWN


# ── Without the agent ──────────────────────────────────────────────────────────────────────────────────────────────
def test_without_an_agent_the_kernel_and_the_proxy_still_tell() -> None:
    found = results(without_agent())
    assert found[Step.AGENT] is Result.FAILED
    assert {found[one] for one in (Step.POD, Step.SELECTION, Step.ANNOTATIONS)} == {Result.SKIPPED}
    assert {found[one] for one in (Step.NETNS, Step.PORTS, Step.PROXY, Step.RULES)} == {Result.PASSED}
    assert {found[one] for one in (Step.PROOFS, Step.OUTSIDE)} == {Result.SKIPPED}


def test_without_an_agent_the_rules_are_judged_by_what_is_there() -> None:
    alone = without_agent()
    gone = replace(alone, netns=replace(NETNS, ours=Ours()))
    assert step(gone, Step.RULES).found == "no rule of ours is in /run/netns/web"
    half = Ours(("nft",), False, ("the rule of the way back is gone (ipv4)",), nothing=False)
    verdict = step(replace(alone, netns=replace(NETNS, ours=half)), Step.RULES)
    assert verdict.found == (
        "the kernel holds but a part of ours: the rules that lead to the proxy are gone; "
        "the rule of the way back is gone (ipv4)"
    )
    assert verdict.commands == ("headgate rules diff --netns /run/netns/web --identity mark --fix",)
    unread = replace(alone, netns=replace(NETNS, ours=Unknown("CAP_NET_ADMIN is needed there")))
    assert step(unread, Step.RULES).result is Result.UNKNOWN


def test_without_an_agent_a_rule_that_takes_connections_before_ours_is_named() -> None:
    verdict = step(replace(without_agent(), netns=replace(NETNS, led=(THIEF,))), Step.RULES)
    assert verdict.result is Result.FAILED and "nft table ip thief" in verdict.found


def test_without_an_agent_a_namespace_of_ones_own_is_the_nodes() -> None:
    verdict = step(replace(without_agent(), netns=replace(NETNS, own=True)), Step.NETNS)
    assert "the node's own network namespace" in verdict.found


def test_listener_without_our_mark_is_only_noted_where_nobody_knows_whose_pod_it_is() -> None:
    held = replace(NETNS, ports=(PortHeld(15001, False, 9, "envoy"),))
    verdict = step(replace(without_agent(), netns=held), Step.PORTS)
    assert verdict.notes == ("process 9 (envoy) listens on 15001 without headgate's mark",)


# ── One fault is not taken for another ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("result", ["ok", "exempt", "absent"])
def test_rule_that_leads_elsewhere_what_is_not_to_be_steered_is_nobodys_fault(result: str) -> None:
    proofs = (Proved("out4", result, "as the pod wishes"), *FOUR[1:])
    facts = replace(of_pod(proofs=proofs), netns=replace(NETNS, led=(THIEF,)))
    assert results(facts)[Step.RULES] is Result.PASSED


def test_drop_behind_our_redirect_is_the_proofs_failure_and_not_the_rules() -> None:
    facts = replace(of_pod(proofs=out4("failed", "no answer")), netns=replace(NETNS, led=(DROPPED,)))
    assert (results(facts)[Step.RULES], results(facts)[Step.PROOFS]) == (Result.PASSED, Result.FAILED)


def test_led_to_our_port_is_well_whoever_decides() -> None:
    ours = Led("out4", "a new connection", "--to 10.0.0.9:15002", 15001, "redirect", 15001, "rule 9", ours=True)
    facts = replace(of_pod(proofs=out4("failed", "no report")), netns=replace(NETNS, led=(ours,)))
    assert results(facts)[Step.RULES] is Result.PASSED


def test_conntrack_that_was_full_a_moment_ago_is_told_as_full() -> None:
    """Between two that are refused there may be room for a moment."""
    assert results(of_pod(conntrack_full=True))[Step.RULES] is Result.FAILED


def test_what_follows_a_failure_is_skipped_where_it_can_mean_nothing() -> None:
    found = results(FAULTS["port taken"])
    skipped = {one for one, result in found.items() if result is Result.SKIPPED}
    assert skipped == {Step.PROXY, Step.RULES, Step.POLICY, Step.PROOFS, Step.OUTSIDE}


def test_every_failure_says_why_and_what_to_do() -> None:
    for facts in (*FAULTS.values(), unenrolled()):
        for verdict in judge(facts):
            assert (verdict.result is Result.FAILED) is bool(verdict.why and verdict.remedy), verdict


def test_path_of_a_namespace_is_quoted_in_commands() -> None:
    facts = replace(WELL, netns=Netns("/run/netns/a; rm -rf x", "4:101", False))
    hostile = replace(facts, pod=replace(of_pod().pod, netns_id="4:101"))  # type: ignore[type-var]
    (command,) = judge(hostile)[4].commands
    assert command == "nsenter --net='/run/netns/a; rm -rf x' ip address"


if __name__ == "__main__":
    print("\n".join(f"{_HEAD}{name}\n{told(facts)}" for name, facts in FAULTS.items()))
