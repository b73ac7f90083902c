"""agent.plan.judging: of a connection found outside the mesh, whether the plan would have steered it."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.plan import Direction, PlanSettings, build_plan
from agent.plan.judging import Opened, Verdict, judge
from agent.plan.proving import provable
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import Included, OwnerPorts, Steering
from agent.pods import PodRef

POD = PodRef("u-1", "default", "web")
OUT = Opened(Direction.OUTBOUND, ip_address("10.0.0.5"), 40000, ip_address("10.0.0.9"), 5432, 1000, 1000, "eth0")
IN = Opened(Direction.INBOUND, ip_address("10.0.0.9"), 40000, ip_address("10.0.0.5"), 8080, interface="eth0")
OUT6 = replace(OUT, source=ip_address("fd00::5"), destination=ip_address("fd00::9"))


def verdict(opened: Opened, **annotations: str) -> Verdict:
    given = tuple((f"headgate.io/{key.replace('_', '-')}", value) for key, value in annotations.items())
    return judge(build_plan(replace(POD, annotations=given), PlanSettings()), opened)


@pytest.mark.parametrize(
    ("opened", "annotations", "steered"),
    [
        (OUT, {}, True),
        (IN, {}, True),
        (OUT6, {}, True),
        (replace(OUT, destination=ip_address("127.0.0.1")), {}, False),
        (replace(OUT6, destination=ip_address("fe80::9")), {}, False),
        (replace(IN, destination_port=15008), {}, False),
        (OUT, {"exclude_outbound_ports": "5000-6000"}, False),
        (OUT, {"exclude_outbound_ports": "5433"}, True),
        (IN, {"exclude_outbound_ports": "8080"}, True),
        (IN, {"exclude_inbound_ports": "8080"}, False),
        (OUT, {"exclude_outbound_cidrs": "10.0.0.0/24"}, False),
        (OUT6, {"exclude_outbound_cidrs": "10.0.0.0/24"}, True),
        (IN, {"exclude_inbound_cidrs": "10.0.0.9"}, False),
        (OUT, {"include_outbound_ports": "80"}, False),
        (OUT, {"include_outbound_ports": "80", "include_outbound_cidrs": "10.0.0.0/24"}, True),
        (OUT6, {"include_outbound_cidrs": "10.0.0.0/24"}, False),
        (IN, {"include_inbound_ports": ""}, False),
        (IN, {"include_inbound_ports": "8080"}, True),
        (OUT, {"exclude_uids": "1000"}, False),
        (replace(OUT, uid=1001), {"exclude_uids": "1000"}, True),
        (replace(OUT, uid=None), {"exclude_uids": "1000"}, None),
        (IN, {"exclude_uids": "0-4294967294"}, True),
        (OUT, {"include_gids": "1000"}, True),
        (OUT, {"include_gids": "1001"}, False),
        (replace(OUT, gid=None), {"include_gids": "1001"}, None),
        (replace(OUT, gid=None), {"exclude_gids": "7", "exclude_outbound_ports": "5432"}, False),
        (OUT, {"exclude_outbound_ports_for_uids": "tcp:5432:1000"}, False),
        (OUT, {"exclude_outbound_ports_for_uids": "udp:5432:1000"}, True),
        (OUT, {"exclude_outbound_ports_for_uids": "tcp:5433:1000"}, True),
        (OUT, {"exclude_interfaces": "eth+"}, False),
        (OUT, {"exclude_interfaces": "net1"}, True),
        (replace(IN, interface=None), {"exclude_interfaces": "net1"}, None),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_decides(opened: Opened, annotations: dict[str, str], steered: bool | None) -> None:
    assert verdict(opened, **annotations).steered is steered


def test_why_is_the_meaning_of_the_rule_that_decided() -> None:
    assert verdict(OUT, exclude_outbound_ports="5432").why == "excluded ports are reached direct"
    assert verdict(OUT, include_outbound_ports="80") == Verdict(False, "")


# ── What can be proved ─────────────────────────────────────────────────────────────────────────────────────────────
TCP = frozenset({Protocol.TCP})
PROOF_OUT, PROOF_IN = replace(OUT, destination_port=15002), replace(IN, destination_port=15002)


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"exclude_outbound_ports": "1-65535", "exclude_inbound_ports": "15002"},
        {"exclude_outbound_ports": "15000-15002", "exclude_inbound_ports": "15002-15003"},
        {"include_outbound_ports": "80", "include_inbound_ports": "8080"},
        {"include_outbound_cidrs": "192.0.2.0/24"},
        {"exclude_outbound_ports_for_uids": "1000"},
    ],
)
def test_no_list_of_ports_takes_the_proof_out(annotations: dict[str, str]) -> None:
    assert (verdict(PROOF_OUT, **annotations).steered, verdict(PROOF_IN, **annotations).steered) == (True, True)


def test_where_nothing_is_steered_the_proof_is_not_either() -> None:
    assert verdict(PROOF_IN, include_inbound_ports="").steered is False
    assert verdict(PROOF_OUT, include_outbound_ports="").steered is False


def test_only_the_proofs_port_changes() -> None:
    wanted = Steering(
        include_inbound_ports=Ranges.of(8080),
        include_outbound=Included(Ranges.of((1, 3))),
        exclude_outbound_ports=Ranges.of((15000, 15004)),
        exclude_owner_ports=(
            OwnerPorts(TCP, Ranges.of(15002), Ranges.of(1)),
            OwnerPorts(TCP, Ranges.of(1), Ranges.of(1)),
        ),
    )
    assert provable(wanted) == Steering(
        include_inbound_ports=Ranges.of(8080, 15002),
        include_outbound=Included(Ranges.of((1, 3), 15002)),
        exclude_outbound_ports=Ranges.of((15000, 15001), (15003, 15004)),
        exclude_owner_ports=(OwnerPorts(TCP, Ranges.of(1), Ranges.of(1)),),
    )
    assert provable(Steering()) == Steering()
