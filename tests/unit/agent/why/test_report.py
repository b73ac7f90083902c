"""The whole answer as people and as programs read it."""

from dataclasses import replace

from agent.why.facts import PortHeld, Unknown
from agent.why.report import as_json, lines
from agent.why.steps import judge
from tests.unit.agent.why.stories import FAULTS, NETNS, POD, WELL, of_pod, unenrolled


def test_pod_with_which_nothing_is_wrong() -> None:
    assert "\n".join(lines(WELL, judge(WELL))) == (
        "ok     agent       answers; it knows 2 pods and makes rules of nft\n"
        "ok     pod         default/web, from pods file /etc/pods.yaml\n"
        "ok     selection   in the mesh: the source lists it, and no label headgate.io/mesh says otherwise\n"
        "ok     annotations none asks for anything else\n"
        "ok     netns       /run/netns/web is there, and holds 10.0.0.5, fd00::5\n"
        "ok     ports       15001, 15006 are the proxy's\n"
        "ok     proxy       serves the pod by worker 1\n"
        "ok     rules       in force as planned, with the way back\n"
        "ok     policy      generation 7 is in force in every worker\n"
        "ok     proofs      out4 ok, out6 ok, in4 ok, in6 ok\n"
        "ok     outside     no connection lives outside the mesh that would be steered now\n"
        "\n"
        "default/web is in the mesh, and it is proved"
    )


def test_first_failure_is_told_in_full_and_what_is_beyond_it_in_a_line_each() -> None:
    facts = replace(FAULTS["drifted"], pod=replace(POD, difference=FAULTS["drifted"].pod.difference, mesh_label="on"))  # type: ignore[union-attr]
    told = lines(facts, judge(facts))
    assert told[2:4] == [
        "ok     selection   in the mesh: the source lists it, and its label headgate.io/mesh is misspelt",
        "                   note: only the word disabled takes a pod out: on is none of enabled and disabled",
    ]
    at = next(number for number, line in enumerate(told) if line.startswith("FAILED rules"))
    assert [line[:10] for line in told[at + 1 : at + 3]] == ["  why     ", "  remedy  "]
    assert told[at + 3].startswith("          $ headgate rules diff default/web --fix")
    beyond = told.index("beyond that:")
    assert [line.split()[:2] for line in told[beyond + 1 :]] == [["ok", "policy"], ["ok", "proofs"], ["ok", "outside"]]


def test_steps_that_could_mean_nothing_are_left_out_for_people_and_not_for_programs() -> None:
    facts = FAULTS["port taken"]
    assert lines(facts, judge(facts))[-1].startswith("          $ ls -l /proc/42/exe")
    skipped = [step["step"] for step in as_json(facts, judge(facts))["steps"] if step["result"] == "skipped"]
    assert skipped == ["proxy", "rules", "policy", "proofs", "outside"]


def test_what_could_not_be_looked_at_is_never_told_as_well() -> None:
    facts = of_pod(proofs=Unknown("no proof within 15 s"))
    told = lines(facts, judge(facts))
    assert "?      proofs      no proof within 15 s" in told
    assert told[-1] == "default/web: no step fails; not looked at: proofs"


def test_programs_get_every_step_and_the_first_that_fails() -> None:
    facts = FAULTS["agent stopped"]
    told = as_json(facts, judge(facts))
    assert (told["pod"], told["ok"], told["failed"]) == ("default/web", False, "agent")
    assert told["steps"][0] == {
        "step": "agent",
        "result": "failed",
        "found": "the agent (process 77) listens at /var/run/headgate/admin.sock and does not answer: "
        "no answer within 3 s; it is stopped (state T)",
        "notes": [],
        "why": "nobody enrols pods, nor puts their rules in order; what is in force stays in force, and what is lost "
        "stays lost",
        "remedy": "let it go on, and ask who stopped it",
        "commands": ["kill -CONT 77"],
    }
    assert as_json(WELL, judge(WELL))["failed"] is None
    assert as_json(FAULTS["namespace of nobody"], judge(FAULTS["namespace of nobody"]))["pod"] is None


def test_hostile_names_reach_neither_terminal_nor_json_unescaped() -> None:
    hostile = "\x1b[2J\nok     proofs      all is well\u202e"
    taken = replace(unenrolled(), netns=replace(NETNS, ports=(PortHeld(15001, False, 42, hostile),)))
    for facts in (
        taken,
        of_pod(last_drift=hostile, drifts=1),
        of_pod(mesh_label=hostile),
        replace(WELL, asked=hostile),
    ):
        told = lines(facts, judge(facts))
        assert all(line.isprintable() for line in told)
        assert sum(line.startswith("ok     proofs") for line in told) <= 1
        for step in as_json(facts, judge(facts))["steps"]:
            assert all(text.isprintable() for text in (step["found"], *step["notes"]))
