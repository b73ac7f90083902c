"""An explanation as people and programs read it: folded, put into words, and nothing in it reaches a terminal raw."""

import json
from ipaddress import ip_address

from agent.explain.outcome import Doubt, Explanation, Fate, Outcome, Passage, Result, Step
from agent.explain.packet import ICMP, UDP, ConntrackState, Packet, Sender, Way
from agent.explain.statements import ACCEPT, Constant, Field, Match, Nat, NatKind, Op, Read
from agent.explain.tables import Chain, Hook, Rule, Table, Tool
from agent.ruleset import explained_view as view
from agent.ruleset.explained import (
    LONGEST_RUN,
    Explained,
    Folded,
    chains_shown,
    folded,
    outcome_in_words,
    packet_in_words,
    ports_led_to,
)
from agent.ruleset.packet_options import Described

HOSTILE = "x\x1b[2J\n"
TO_80 = Match(Read(Field.TCP_DPORT), Op.EQUAL, Constant(80))
TO_15001 = Nat(NatKind.REDIRECT, port=Constant(15001))
PACKET = Packet(Way.OUTBOUND, 6, ip_address("192.0.2.2"), 443, sender=Sender(1000, 0))


def rule(place: int, text: str = "", comment: str = "", handle: int = 0) -> Rule:
    return Rule(place, (TO_80, ACCEPT), text, comment, handle)


def table(*rules: Rule, name: str = "nat", tool: Tool = Tool.IPTABLES_NFT, chain: str = "OUTPUT") -> Table:
    return Table(tool, "inet" if tool is Tool.NFT else "ip", name, {chain: Chain(chain, rules)}, {})


def missed(of: Table, one: Rule, chain: str = "OUTPUT") -> Step:
    return Step(Hook.OUTPUT, of, chain, one, Result.MISSED, failed=TO_80, had=443)


def decided(of: Table, one: Rule | None, what: str, chain: str = "OUTPUT") -> Step:
    return Step(Hook.OUTPUT, of, chain, one, Result.DECIDED, what)


REDIRECT = Outcome(Fate.REDIRECT, None, 15001, ("delivered here",))
PASSES = Outcome(Fate.ACCEPT, note=("leaves by eth0",))


def told(explanation: Explanation, **more: object) -> Explained:
    return Explained(Described(PACKET, ("sent by gid 0",)), explanation, **more)  # type: ignore[arg-type]


# ── Folding ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_long_run_of_missed_rules_is_one_line_and_what_matched_stays() -> None:
    rules = [rule(place) for place in range(1, LONGEST_RUN + 3)]
    of = table(*rules)
    path = [*(missed(of, one) for one in rules[:-1]), decided(of, rules[-1], "accept")]
    shown = folded(path)
    assert shown == [Folded(path[0], LONGEST_RUN + 1), path[-1]]
    said = list(view.lines(told(Explanation(PASSES, tuple(path)))))
    assert any(f"{LONGEST_RUN + 1} rules; --all shows them" in line for line in said)
    assert len(list(view.lines(told(Explanation(PASSES, tuple(path))), everything=True))) == len(said) + LONGEST_RUN


def test_a_short_run_is_shown_with_what_did_not_hold() -> None:
    of = table(rule(1, "-p tcp -m tcp --dport 80 -j ACCEPT"))
    said = "\n".join(view.lines(told(Explanation(PASSES, (missed(of, rule(1, "-p tcp --dport 80 -j ACCEPT")),)))))
    assert "1  no match  not TCP to port 80, but 443  -p tcp --dport 80 -j ACCEPT  TCP to port 80 -> accept" in said


def test_runs_end_with_their_chain() -> None:
    one, other = table(rule(1), name="a"), table(rule(1), name="b")
    path = [missed(of, rule(place)) for of in (one, other) for place in range(LONGEST_RUN)]
    assert folded(path) == path


# ── Whose and what for ─────────────────────────────────────────────────────────────────────────────────────────────
def test_our_rules_are_told_by_id_and_meaning_others_by_their_text_and_what_it_says() -> None:
    ours = table(rule(1, "", "headgate:out-capture", 7), name="headgate", tool=Tool.NFT, chain="nat-output")
    theirs = table(rule(1, "-j ISTIO_OUTPUT", "why"))
    path = (decided(ours, rule(1, "", "headgate:out-capture", 7), "redirect to :15001", "nat-output"),
            decided(theirs, rule(1, "-j ISTIO_OUTPUT", "why"), "accept"))  # fmt: skip
    texts = {("inet", "headgate", "nat-output"): ["redirect to :15001"]}
    said = "\n".join(view.lines(told(Explanation(REDIRECT, path), texts=texts)))
    assert "output: nft inet headgate nat-output (ours)" in said
    assert "out-capture  every other new TCP connection of the pod meets the proxy" in said
    assert "output: iptables-nft ip nat OUTPUT (istio)" in said
    assert "-j ISTIO_OUTPUT  TCP to port 80 -> accept  # why" in said


def test_a_rule_that_only_claims_to_be_ours_is_told_as_anybodys() -> None:
    forged = table(rule(1, "accept", "headgate:out-capture"), name="mine", tool=Tool.NFT, chain="c")
    (entry,) = view.as_json(told(Explanation(PASSES, (decided(forged, forged.chains["c"].rules[0], "accept", "c"),))))[
        "path"
    ]
    assert (entry["id"], entry["whose"], entry["meaning"]) == (None, "unknown", "TCP to port 80 -> accept")


def test_only_the_text_of_nfts_chains_that_are_shown_is_asked_for() -> None:
    many = tuple(rule(place) for place in range(1, 40))
    hidden = table(*many, name="hidden", tool=Tool.NFT, chain="c")
    seen = table(*many, name="seen", tool=Tool.NFT, chain="c")
    saved = table(*(rule(place, "-j ACCEPT") for place in range(1, 40)))
    path = (
        *(missed(hidden, one, "c") for one in many),
        decided(seen, many[3], "accept", "c"),
        decided(saved, saved.chains["OUTPUT"].rules[3], "accept"),
    )
    explanation = Explanation(PASSES, path)
    assert chains_shown(explanation, everything=False) == {("inet", "seen", "c"): 39}
    assert set(chains_shown(explanation, everything=True)) == {("inet", "seen", "c"), ("inet", "hidden", "c")}


# ── Outcomes ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_outcomes_in_words() -> None:
    listeners = {15001: "envoy, pid 7, listens there"}
    assert outcome_in_words(REDIRECT, listeners) == (
        "redirected to port 15001 (the outbound listener of the mesh; envoy, pid 7, listens there), delivered here"
    )
    assert outcome_in_words(Outcome(Fate.DNAT, ip_address("10.0.0.9"), 8080), {}) == (
        "destination becomes 10.0.0.9 port 8080"
    )
    assert outcome_in_words(Outcome(Fate.TPROXY, None, 15006), {}).startswith("given to a transparent socket at port")
    assert outcome_in_words(Outcome(Fate.DROP), {}) == "dropped"
    assert outcome_in_words(PASSES, {}) == "passes, leaves by eth0"
    assert outcome_in_words(Outcome(Fate.REDIRECT, None, 4140), {}) == (
        "redirected to port 4140 (Linkerd's outbound listener)"
    )


def _either() -> Explanation:
    of = table(rule(1, "-m recent -j X"), rule(2, "-j ACCEPT"))
    first, second = of.chains["OUTPUT"].rules
    doubtful = Step(Hook.OUTPUT, of, "OUTPUT", first, Result.PERHAPS, "if it does")
    not_so = Step(Hook.OUTPUT, of, "OUTPUT", first, Result.PERHAPS, "if it does not", TO_80)
    one = (Passage("routed: by eth0"), doubtful, decided(of, None, "policy accept"))
    other = (Passage("routed: by eth0"), not_so, decided(of, second, "accept"), decided(of, None, "policy accept"))
    doubts = (Doubt(of, "OUTPUT", first, f"-m recent {HOSTILE}", "history decides"),)
    return Explanation(Outcome(Fate.UNKNOWN), one, doubts, ((REDIRECT, one), (PASSES, other)))


def test_ways_that_were_not_followed_are_told_however_many_were() -> None:
    cut = Outcome(Fate.UNKNOWN, note=("more than 64 ways",))
    assert view.outcomes(told(Explanation(cut, ()))) == ["outcome: unknown (more than 64 ways)"]
    one = told(Explanation(cut, (), either=((PASSES, ()),)))
    assert view.outcomes(one) == ["outcome: unknown, perhaps (more than 64 ways)", "  1  passes, leaves by eth0"]


def test_of_an_unknown_outcome_both_ways_are_told_and_where_they_part() -> None:
    explained = told(_either())
    said = list(view.lines(explained))
    way = said.index("\nway 2, from rule 1 of ip nat OUTPUT on")
    assert not any("routed" in line for line in said[way:])
    assert any("if it does not" in line for line in said[way:])
    assert said[-1] == "\n-- on as in way 1, from its policy of ip nat OUTPUT"
    assert view.outcomes(explained) == [
        r"not known: ip nat OUTPUT rule 1: -m recent x\x1b[2J\n: history decides",
        "outcome: unknown, one of",
        "  1  redirected to port 15001 (the outbound listener of the mesh), delivered here",
        "  2  passes, leaves by eth0",
    ]
    assert ports_led_to(explained.explanation) == {15001}


def test_a_doubt_without_influence_is_told_as_such() -> None:
    either = _either()
    (doubt,) = view.outcomes(told(Explanation(PASSES, either.path, either.doubts)))[:-1]
    assert doubt.startswith("not known, and the outcome is the same: ip nat OUTPUT rule 1")


def test_json_has_the_promised_keys() -> None:
    said = view.as_json(told(_either(), unread=(f"legacy {HOSTILE}",)))
    assert {"outcome", "path", "unknown", "either", "unread", "assumed", "packet"} == set(said)
    assert said["outcome"]["verdict"] == "unknown"
    assert [way["verdict"] for way in said["either"]] == ["redirect", "accept"]
    assert said["either"][0]["port"] == 15001 and said["either"][0]["address"] is None
    for step in said["path"]:
        assert {"table", "chain", "rule", "meaning", "result"} <= set(step)
    assert said["path"][0] == {
        "table": None,
        "chain": None,
        "rule": None,
        "meaning": "routed: by eth0",
        "result": "passage",
    }
    (unknown,) = said["unknown"]
    assert (unknown["table"], unknown["chain"], unknown["place"]) == ("nat", "OUTPUT", 1)
    assert "\x1b" not in json.dumps(said) and r"\u001b" not in json.dumps(said)


# ── Hostile ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_name_text_or_comment_reaches_a_terminal_raw() -> None:
    of = table(rule(1, f"-j {HOSTILE}", HOSTILE), name=HOSTILE, tool=Tool.NFT, chain=HOSTILE)
    one = of.chains[HOSTILE].rules[0]
    path = (Passage(f"routed: by {HOSTILE}"), decided(of, one, f"jump {HOSTILE}", HOSTILE), missed(of, one, HOSTILE))
    explained = told(
        Explanation(Outcome(Fate.REDIRECT, None, 80, (HOSTILE,)), path),
        unread=(HOSTILE,),
        listeners={80: f"{HOSTILE} listens there"},
    )
    for line in [*view.lines(explained), *view.outcomes(explained)]:
        assert "\x1b" not in line and "\n" not in line.removeprefix("\n")
    assert r"\u001b" not in json.dumps(view.as_json(explained))


def test_packets_in_words() -> None:
    assert packet_in_words(PACKET) == (
        "TCP syn, new, outbound: (as routing chooses) to 192.0.2.2:443, sent by uid 1000, gid 0"
    )
    arriving = Packet(
        Way.INBOUND,
        UDP,
        ip_address("fd00::5"),
        53,
        ip_address("fd00::9"),
        None,
        None,
        "e\x1b",
        0,
        ConntrackState.INVALID,
    )
    assert packet_in_words(arriving) == r"UDP, invalid, inbound on e\x1b: [fd00::9]:* to [fd00::5]:53"
    pinged = Packet(Way.OUTBOUND, ICMP, ip_address("10.0.0.9"), sender=Sender(0, 0), mark=0x539)
    assert packet_in_words(pinged).endswith("to 10.0.0.9, sent by uid 0, gid 0, mark 0x539")
