"""agent.metrics: names and labels are what dashboards and alerts hang on."""

from agent.metrics import AgentMetrics
from agent.pods import PodRef, Proof, Proofs, ProofStatus

POD = PodRef("u-1", "shop", "cart")
OK = Proof(ProofStatus.OK)


def lines(metrics: AgentMetrics, name: str) -> list[str]:
    return sorted(line for line in metrics.exposition().decode().splitlines() if line.startswith(name))


def test_a_pod_is_in_one_state() -> None:
    metrics = AgentMetrics()
    metrics.pod_state(POD, "seen")
    metrics.pod_state(POD, "failed")
    assert lines(metrics, "headgate_pod_state") == [
        'headgate_pod_state{namespace="shop",pod="cart",state="failed"} 1.0'
    ]


def test_proofs_are_one_or_zero_and_absent_where_they_cannot_be_taken() -> None:
    metrics = AgentMetrics()
    metrics.proofs(POD, Proofs(OK, OK, OK, OK))
    metrics.proofs(POD, Proofs(OK, Proof(ProofStatus.ABSENT, "x"), Proof(ProofStatus.FAILED, "y"), OK))
    assert lines(metrics, "headgate_proof") == [
        'headgate_proof{namespace="shop",pod="cart",proof="in4"} 0.0',
        'headgate_proof{namespace="shop",pod="cart",proof="in6"} 1.0',
        'headgate_proof{namespace="shop",pod="cart",proof="out4"} 1.0',
    ]


def test_forgotten_packets_never_fall_when_the_rules_were_replaced() -> None:
    metrics = AgentMetrics()
    for kernel_says in (5, 9, 2):
        metrics.forgotten(POD, "out-forgotten", kernel_says)
    assert lines(metrics, "headgate_forgotten_packets_total") == [
        'headgate_forgotten_packets_total{namespace="shop",pod="cart",rule="out-forgotten"} 11.0'
    ]


def test_the_series_of_a_pod_that_left_the_mesh_end_and_its_state_stays() -> None:
    metrics = AgentMetrics()
    metrics.pod_state(POD, "proved")
    metrics.proofs(POD, Proofs(OK, OK, OK, OK))
    metrics.forgotten(POD, "in-forgotten", 1)
    metrics.unsteered(POD, "grandfathered", 3)
    metrics.pod_state(POD, "disabled")
    metrics.not_enrolled(POD)
    assert [line for line in metrics.exposition().decode().splitlines() if 'pod="cart"' in line] == [
        'headgate_pod_state{namespace="shop",pod="cart",state="disabled"} 1.0'
    ]


def test_what_runs_and_whether_a_proxy_is_there() -> None:
    metrics = AgentMetrics()
    metrics.proxy_connected(True)
    assert lines(metrics, "headgate_zds_connected") == ["headgate_zds_connected 1.0"]
    (build,) = lines(metrics, "headgate_build_info")
    assert 'component="agent"' in build
    assert lines(metrics, "process_resident_memory_bytes")


def test_apply_time_has_a_bucket_at_its_goal() -> None:
    metrics = AgentMetrics()
    metrics.applied(0.0024)
    assert 'headgate_apply_seconds_bucket{le="0.0025"} 1.0' in lines(metrics, "headgate_apply_seconds_bucket")
