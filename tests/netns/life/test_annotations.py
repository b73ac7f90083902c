"""Annotations that change while connections live: new ones follow the new rules, living ones go on as they are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from agent.kernel import conntrack
from agent.kernel.refused import KernelRefused
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import FlowKey, OnUnsteered, PlanSettings, RedirectPlan, build_plan
from agent.pods import PodRef
from agent.supervisor import inside, unsteered
from agent.supervisor.unsteered import Unsteered
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address, outside, until

MESH = "headgate.io/mesh"
EXCLUDE_OUT = "headgate.io/exclude-outbound-ports"
EXCLUDE_IN = "headgate.io/exclude-inbound-ports"
OUT, IN = 15001, 15006
HERE, THERE = 9000, 9001
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
SETTINGS = PlanSettings()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """`client` is enrolled, `server` is not; tests change both back."""
    with Lab(LabSpec((PodSpec("client"), outside("server")))) as made:
        made.start_proxy()
        made.start_agent("--drain-s", "20")
        made.wait_ready()
        made.wait_proved("client")
        yield made


def annotate(lab: Lab, pod: str, key: str, value: str | None, rule: str) -> None:
    """Until the pod is proved with the rule, or without it when the annotation is taken away."""
    lab.set_annotation(pod, key, value)
    lab.wait(f"{rule} of {pod}", lambda: (rule in rule_ids(lab, pod)) is (value is not None))
    lab.wait_proved(pod)


def rule_ids(lab: Lab, pod: str) -> set[str]:
    tables = lab.agent_get(f"/rules/default/{pod}")["tables"]
    return {rule["id"] for table in tables for rule in table["rules"] if rule["packets"] is not None}


def unsteered_of(lab: Lab, pod: str) -> dict[str, int]:
    found: dict[str, int] = kernel.pod_state(lab, pod)["unsteered_connections"]
    return found


def events(lab: Lab, pod: str, reason: str) -> list[str]:
    found: list[dict[str, Any]] = lab.agent_get(f"/events/default/{pod}")["items"]
    return [event["message"] for event in found if event["reason"] == reason]


def steered_in(pod: LabPod, talk: Talk) -> int | None:
    """Where the called pod's kernel redirected the connection to."""
    entry = pod.call(conntrack.find, conntrack.Tuple(*talk.local, *talk.remote))
    return None if entry is None else entry.steered_to


# ── Under load, with agent and proxy ───────────────────────────────────────────────────────────────────────────────
@FAMILIES
def test_an_outbound_exclusion_comes_and_goes_and_cuts_nobody(lab: Lab, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    drifts = kernel.pod_state(lab, "client")["drifts"]
    try:
        with ExitStack() as stack:
            for port in (HERE, THERE):
                stack.enter_context(Echo(server, port=port))
            steered = stack.enter_context(Chatter(client, to, 4, HERE))
            others = stack.enter_context(Chatter(client, to, 4, THERE))
            annotate(lab, "client", EXCLUDE_OUT, str(HERE), "out-capture-skip-ports")
            assert steered.all_hear_more() and others.all_hear_more()
            assert [talk.steered_to() for talk in (*steered.talks, *others.talks)] == [OUT] * 8
            direct = stack.enter_context(Talk(client, to, HERE))
            elsewhere = stack.enter_context(Talk(client, to, THERE))
            for talk in (direct, elsewhere):
                talk.says()
            assert (direct.steered_to(), elsewhere.steered_to()) == (None, OUT)
            assert unsteered_of(lab, "client") == kernel.unsteered()  # direct as wished

            annotate(lab, "client", EXCLUDE_OUT, None, "out-capture-skip-ports")
            assert steered.all_hear_more() and others.all_hear_more()
            assert unsteered_of(lab, "client") == kernel.unsteered(rules_changed=1)
            (message,) = [
                told for told in events(lab, "client", "RedirectionChanged") if f":{direct.local[1]} - " in told
            ]
            assert "out-capture-skip-ports" in message and "1 connections that they would steer stay outside" in message
            client.call(conntrack.forget, [conntrack.Tuple(*direct.local, *direct.remote)])
            direct.says()  # in the set: not even a forgetful conntrack cuts it
            assert direct.steered_to() is None
            with Talk(client, to, HERE) as again:
                again.says()
                assert again.steered_to() == OUT
        lab.wait("its end to be seen", lambda: kernel.unsteered_now(lab, "client") == kernel.unsteered())
        assert kernel.pod_state(lab, "client")["drifts"] == drifts
    finally:
        lab.set_annotation("client", EXCLUDE_OUT, None)


@FAMILIES
def test_an_inbound_exclusion_comes_and_goes_and_cuts_nobody(lab: Lab, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    try:
        lab.set_label("server", MESH, None)
        lab.set_label("client", MESH, "disabled")
        lab.wait_proved("server")
        kernel.wait_state(lab, "client", "disabled")
        with ExitStack() as stack:
            stack.enter_context(Echo(server, port=HERE))
            steered = stack.enter_context(Chatter(client, to, 4, HERE))
            annotate(lab, "server", EXCLUDE_IN, str(HERE), "in-capture-skip-ports")
            assert steered.all_hear_more()
            assert [steered_in(server, talk) for talk in steered.talks] == [IN] * 4
            direct = stack.enter_context(Talk(client, to, HERE))
            direct.says()
            assert steered_in(server, direct) is None
            assert unsteered_of(lab, "server") == kernel.unsteered()

            annotate(lab, "server", EXCLUDE_IN, None, "in-capture-skip-ports")
            assert steered.all_hear_more()
            assert unsteered_of(lab, "server") == kernel.unsteered(rules_changed=1)
            direct.says()
            with Talk(client, to, HERE) as again:
                again.says()
                assert steered_in(server, again) == IN
    finally:
        lab.set_annotation("server", EXCLUDE_IN, None)
        lab.set_label("server", MESH, "disabled")
        lab.set_label("client", MESH, None)
        kernel.wait_state(lab, "server", "disabled")
        lab.wait_proved("client")


def test_a_bad_annotation_after_a_good_one_keeps_the_good_ones_rules_and_names_key_and_value(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    try:
        with Echo(server) as _, ExitStack() as stack:
            annotate(lab, "client", EXCLUDE_OUT, "9000", "out-capture-skip-ports")
            rules = kernel.rules(client.netns)
            direct = stack.enter_context(Talk(client, address(server, 4)))
            lab.set_annotation("client", EXCLUDE_OUT, "70000")
            complaint = f"annotation {EXCLUDE_OUT}: '70000' is no port: use 1 to 65535"
            lab.wait("it to be told", lambda: kernel.pod_state(lab, "client")["reason"] == complaint)
            assert kernel.pod_state(lab, "client")["state"] == "proved"
            assert kernel.rules(client.netns) == rules
            direct.says()
            assert [told for told in events(lab, "client", "AnnotationRefused") if complaint in told]
            assert f"pod default/client: {complaint}" in lab.log("agent")
            plan = lab.agent_get("/plan/default/client")
            assert plan["error"] == complaint
            assert "out-capture-skip-ports" in {rule["id"] for rule in plan["rules"]}  # what is in force

            lab.kill_agent()
            lab.start_agent("--drain-s", "20")
            lab.wait("the next agent to tell it", lambda: kernel.pod_state(lab, "client")["reason"] == complaint)
            assert kernel.rules(client.netns) == rules
            direct.says()
    finally:
        lab.set_annotation("client", EXCLUDE_OUT, None)
        lab.wait("the rules", lambda: "out-capture-skip-ports" not in rule_ids(lab, "client"))
        lab.wait_proved("client")


def test_a_bad_annotation_at_the_first_enrolment_leaves_the_pod_untouched(lab: Lab) -> None:
    server = lab.pod("server")
    try:
        lab.set_annotation("server", "traffic.sidecar.istio.io/excludeInterfaces", 'eth0" drop; #')
        lab.set_label("server", MESH, None)
        failed = kernel.wait_state(lab, "server", "failed")
        assert failed["reason"].startswith("annotation traffic.sidecar.istio.io/excludeInterfaces: 'eth0\" drop; #'")
        assert kernel.rules(server.netns) == kernel.NO_RULES
        assert events(lab, "server", "RedirectionFailed") == [failed["reason"]]
    finally:
        lab.set_annotation("server", "traffic.sidecar.istio.io/excludeInterfaces", None)
        lab.set_label("server", MESH, "disabled")
        kernel.wait_state(lab, "server", "disabled")


def test_the_plan_says_who_won_who_was_overruled_and_what_means_nothing_here(lab: Lab) -> None:
    try:
        lab.set_annotation("client", "config.linkerd.io/proxy-uid", "2102")
        lab.set_annotation("client", "config.linkerd.io/skip-outbound-ports", "25")
        annotate(lab, "client", "traffic.sidecar.istio.io/excludeOutboundPorts", "5432", "out-capture-skip-ports")
        plan = lab.agent_get("/plan/default/client")
        assert plan["origins"] == [
            {
                "what": "exclude-outbound-ports",
                "key": "traffic.sidecar.istio.io/excludeOutboundPorts",
                "value": "5432",
                "overruled": [["config.linkerd.io/skip-outbound-ports", "25"]],
            }
        ]
        assert [noted["key"] for noted in plan["noted"]] == ["config.linkerd.io/proxy-uid"]
        (rule,) = [rule for rule in plan["rules"] if rule["id"] == "out-capture-skip-ports"]
        assert "5432" in rule["rule"]
    finally:
        for key in ("config.linkerd.io/proxy-uid", "config.linkerd.io/skip-outbound-ports"):
            lab.set_annotation("client", key, None)
        annotate(lab, "client", "traffic.sidecar.istio.io/excludeOutboundPorts", None, "out-capture-skip-ports")


def test_b30_with_inbound_bypassed_the_pod_is_proved_by_what_is_steered(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    key = "ambient.istio.io/bypass-inbound-capture"
    try:
        lab.set_annotation("client", key, "true")
        lab.wait("the rules", lambda: "in-capture" not in rule_ids(lab, "client"))
        lab.wait_proved("client")
        proofs = kernel.pod_state(lab, "client")["proofs"]
        assert {name: proof["result"] for name, proof in proofs.items()} == {
            "out4": "ok", "out6": "ok", "in4": "exempt", "in6": "exempt",
        }  # fmt: skip
        assert "nothing inbound is to be steered" in proofs["in4"]["reason"]
        with Echo(client), Talk(server, address(client, 4)) as incoming:
            incoming.says()
            assert steered_in(client, incoming) is None
    finally:
        lab.set_annotation("client", key, None)
        lab.wait("the rules", lambda: "in-capture" in rule_ids(lab, "client"))
        lab.wait_proved("client")


def test_what_differs_is_told_and_put_right_when_asked(lab: Lab) -> None:
    assert lab.agent_get("/rules/default/client/diff", method="POST")["changes"] == []
    answer = lab.agent_get("/rules/default/client/diff?fix=1", method="POST", timeout_s=20)
    assert (answer["pod"], answer["changes"], answer["state"]) == ("default/client", [], "proved")


def test_the_nodes_defaults_hold_for_pods_that_say_nothing_and_an_empty_annotation_takes_them_away() -> None:
    with Lab(LabSpec((PodSpec("client"), outside("server")))) as lab:
        lab.start_proxy()
        lab.start_agent("--drain-s", "20", "--exclude-outbound-ports", str(HERE))
        lab.wait_ready()
        lab.wait_proved("client")
        client, server = lab.pod("client"), lab.pod("server")
        with Echo(server), Talk(client, address(server, 4)) as direct:
            direct.says()
            assert direct.steered_to() is None
            lab.set_annotation("client", EXCLUDE_OUT, "")
            lab.wait("the rules", lambda: "out-capture-skip-ports" not in rule_ids(lab, "client"))
            lab.wait_proved("client")
            with Talk(client, address(server, 4)) as steered:
                steered.says()
                assert steered.steered_to() == OUT
            assert unsteered_of(lab, "client") == kernel.unsteered(rules_changed=1)


# ── The kernel alone ───────────────────────────────────────────────────────────────────────────────────────────────
def plan_for(**annotations: str) -> RedirectPlan:
    pod = PodRef("uid-1", "default", "a")
    given = tuple((f"headgate.io/{key.replace('_', '-')}", value) for key, value in annotations.items())
    return build_plan(replace(pod, annotations=given), SETTINGS)


ALL = plan_for()
DIRECT = plan_for(exclude_outbound_ports=str(HERE))


def key_of(talk: Talk) -> FlowKey:
    return (*talk.local, *talk.remote)


@FAMILIES
@pytest.mark.parametrize("policy", list(OnUnsteered))
def test_what_is_excluded_has_not_slipped_past_missing_rules_and_is_never_reset(
    bare_lab: Lab, family: int, policy: OnUnsteered
) -> None:
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    to = address(server, family)
    with Echo(server, port=HERE), Echo(server, port=THERE):
        client.call(inside.install, DIRECT, SETTINGS)
        with Talk(client, to, HERE) as excluded:
            client.run(["nft", "delete", "table", "inet", "headgate"])
            with Talk(client, to, HERE) as late, Talk(client, to, THERE) as slipped:
                slipped.says()
                healed = client.call(inside.restore, DIRECT, SETTINGS, Unsteered(), policy)
                assert (healed.slipped, healed.replanned) == ({key_of(slipped)}, frozenset())
                assert healed.ended == (healed.slipped if policy is OnUnsteered.RESET else frozenset())
                for talk in (excluded, late):
                    talk.says()
                assert client.call(unsteered.known) == healed.unsteered


@FAMILIES
def test_older_connections_that_are_excluded_are_not_counted_and_not_reset(bare_lab: Lab, family: int) -> None:
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    to = address(server, family)
    with ExitStack() as stack:
        for port in (HERE, THERE):
            stack.enter_context(Echo(server, port=port))
        excluded = stack.enter_context(Talk(client, to, HERE))
        older = stack.enter_context(Talk(client, to, THERE))
        applied = client.call(inside.install, DIRECT, SETTINGS, OnUnsteered.RESET)
        assert applied.ended == {key_of(older)}
        excluded.says()
        client.call(conntrack.forget, [conntrack.Tuple(*excluded.local, *excluded.remote)])
        excluded.says()
        assert client.call(unsteered.known) == Unsteered()


@FAMILIES
def test_what_other_rules_left_alone_is_told_from_what_slipped_past_them(bare_lab: Lab, family: int) -> None:
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    to = address(server, family)
    with Echo(server, port=HERE), Echo(server, port=THERE):
        client.call(inside.install, DIRECT, SETTINGS)
        with Talk(client, to, HERE) as left_alone:
            client.run(["nft", "delete", "table", "inet", "headgate"])
            with Talk(client, to, THERE) as slipped:
                applied = client.call(inside.install, ALL, SETTINGS, OnUnsteered.REPORT, DIRECT)
                assert (applied.replanned, applied.slipped) == ({key_of(left_alone)}, {key_of(slipped)})
                known = client.call(unsteered.known)
                assert known == Unsteered(slipped=applied.slipped, replanned=applied.replanned)

                back = client.call(inside.install, DIRECT, SETTINGS, OnUnsteered.REPORT, ALL)
                assert back.unsteered == Unsteered(slipped=applied.slipped)  # as wished again
                for talk in (left_alone, slipped):
                    talk.says()


def test_queries_are_not_led_to_where_no_proxy_answers_them(bare_lab: Lab) -> None:
    client = bare_lab.pod("client")
    plan = plan_for(dns_capture="enabled")
    with pytest.raises(KernelRefused, match=r"15053.*the proxy serves no DNS.*dns-capture"):
        client.call(inside.enrol, plan, SETTINGS)
    assert kernel.rules(client.netns) == kernel.NO_RULES
    with client.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("0.0.0.0", 15053))  # as ztunnel's
        assert client.call(inside.enrol, plan, SETTINGS).changed
        assert "15053" in kernel.rules(client.netns)


@FAMILIES
def test_older_connections_of_an_excluded_user_pass_in_both_directions(bare_lab: Lab, family: int) -> None:
    """What arrives has no owner: the set lets an answer pass that conntrack does not know."""
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    with Echo(server, speaks=True), Talk(client, address(server, family)) as older:
        client.call(inside.install, plan_for(exclude_uids="0"), SETTINGS)
        client.call(conntrack.forget, [conntrack.Tuple(*older.local, *older.remote)])
        older.socket.recv(1)  # first spoken to
        until("it is spoken to", lambda: bool(older.socket.recv(65536)))
        assert client.call(unsteered.known).grandfathered == {key_of(older)}
