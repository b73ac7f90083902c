"""What the demo says, and when it says that it failed."""

from dataclasses import replace
from typing import Any

import pytest

from agent.lab import figures, report
from agent.lab.report import DemoResult, PodProofs

PROVED = {"out4": None, "out6": None, "in4": None, "in6": None}
GOOD = DemoResult(
    pods=(PodProofs("client", "proved", PROVED), PodProofs("web-v1", "proved", PROVED)),
    sent=8100,
    ok=8100,
    failures={},
    before={"v1": 3600, "v2": 400},
    after={"v1": 1990, "v2": 2010},
    latency_ns={"p50": 612_345, "p90": 1_200_000, "p99": 12_345_678},
    buckets=figures.buckets([600_000] * 80 + [1_100_000] * 18 + [12_000_000] * 2),
    client_address_preserved=True,
    leftovers=(),
)

GOOD_TEXT = """\
Pods, and the proof that their traffic goes through the proxy (out and in, IPv4 and IPv6)

  POD             STATE       out4    out6    in4     in6
  client          proved      proved  proved  proved  proved
  web-v1          proved      proved  proved  proved  proved

Rules in pod client, after 8100 requests

  capture-out  8  leads new connections to the proxy

Split of the Service `web`: VirtualService weights changed under load

  before  v1   90 % asked  90.0 % got █████████████████████████████████████████████        3600
  before  v2   10 % asked  10.0 % got █████                                                 400
          within 3σ of 4000 requests

  after   v1   50 % asked  49.8 % got █████████████████████████                            1990
  after   v2   50 % asked  50.2 % got █████████████████████████                            2010
          within 3σ of 4000 requests

  8100 requests sent, 8100 answered, 0 failed

Latency as the client saw it

  ≤ 0.707 ms ██████████████████████████████████████████████████     80
  ≤  1.00 ms                                                         0
  ≤  1.41 ms ███████████                                            18
  ≤  2.00 ms                                                         0
  ≤  2.83 ms                                                         0
  ≤  4.00 ms                                                         0
  ≤  5.66 ms                                                         0
  ≤  8.00 ms                                                         0
  ≤  11.3 ms                                                         0
  ≤  16.0 ms █                                                       2
  p50 0.612 ms   p90 1.20 ms   p99 12.3 ms

Metrics of the proxy: http://10.77.0.1:15020/metrics

The server's application saw the client's own address.
Removed all that was made; nothing is left.
"""


def test_the_report_as_a_person_reads_it() -> None:
    rules = [("client", "capture-out  8  leads new connections to the proxy\n")]
    assert report.text(GOOD, rules, ["Metrics of the proxy: http://10.77.0.1:15020/metrics"]) == GOOD_TEXT
    assert GOOD.problems() == []


def test_the_json_has_the_issues_shape() -> None:
    assert GOOD.as_json() == {
        "pods": [
            {"name": name, "state": "proved", "proofs": {"out4": True, "out6": True, "in4": True, "in6": True}}
            for name in ("client", "web-v1")
        ],
        "requests": {"sent": 8100, "ok": 8100, "failed": 0},
        "split": {"before": {"v1": 3600, "v2": 400}, "after": {"v1": 1990, "v2": 2010}},
        "latency_ms": {"p50": 0.612, "p90": 1.2, "p99": 12.346},
        "client_address_preserved": True,
        "leftovers": [],
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pods": (PodProofs("a", "installed", PROVED),)}, "pod a is installed"),
        ({"pods": (PodProofs("a", "proved", {**PROVED, "in6": "no report"}),)}, "in6: no report"),
        ({"pods": (PodProofs("a", "proved", {"out4": None}),)}, "out6: not reported"),
        ({"pods": (PodProofs("a", "failed", {}, "port 15001 is taken"),)}, "port 15001 is taken"),
        ({"pods": ()}, "knows no pod"),
        ({"ok": 8099, "failures": {"status 503": 1}}, "1 of 8100 requests failed: 1 × status 503"),
        ({"before": {"v1": 4000}}, "split before the change"),
        ({"after": {"v1": 3600, "v2": 400}}, "split after the change"),
        ({"after": {"v1": 500, "v2": 500}}, "only 1000 requests after the change"),
        ({"client_address_preserved": False}, "another address than the client's own"),
        ({"leftovers": ("process 7 'nginx'",)}, "left behind: process 7 'nginx'"),
    ],
)
def test_each_thing_that_did_not_hold_is_told(change: dict[str, Any], told: str) -> None:
    problems = replace(GOOD, **change).problems()
    assert len(problems) == 1 and told in problems[0]


def test_a_failed_proof_is_shown_with_its_reason() -> None:
    pods = (PodProofs("web-v1", "failed", {**PROVED, "in4": "reached the application instead"}),)
    shown = report.text(replace(GOOD, pods=pods), [], [])
    assert (
        "  web-v1          failed      proved  proved  FAILED  proved\n    in4: reached the application instead\n"
        in shown
    )
