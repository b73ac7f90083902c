"""The metrics page as a scraper gets it, word for word: names, labels and buckets are what dashboards hang on."""

import os
from pathlib import Path

from proxy.metrics import MetricsPage, ProxyStatus
from proxy.model.snapshot import Rejection
from proxy.telemetry.series import CounterKey, RequestLabels, Telemetry

GOLDEN = Path(__file__).with_name("page.txt")

REQUEST = RequestLabels(
    reporter="source",
    source_workload="client",
    source_canonical_service="client",
    source_canonical_revision="latest",
    source_workload_namespace="shop",
    source_principal="unknown",
    source_app="client",
    source_version="unknown",
    source_cluster="Kubernetes",
    destination_workload="web-v1",
    destination_workload_namespace="shop",
    destination_principal="unknown",
    destination_app="web",
    destination_version="v1",
    destination_service="web.shop.svc.cluster.local",
    destination_canonical_service="web",
    destination_canonical_revision="v1",
    destination_service_name="web",
    destination_service_namespace="shop",
    destination_cluster="Kubernetes",
    request_protocol="http",
    response_code="200",
    grpc_response_status="",
    response_flags="-",
    connection_security_policy="unknown",
)

STATUS = ProxyStatus(
    active_pods=3,
    pending_pods=1,
    pods_started=4,
    pods_stopped=1,
    workers=2,
    worker_restarts=(("died", 1),),
    agent_connected=True,
    generation=2,
    rejections=(Rejection('VirtualService shop/"odd"', "spec.http[0].fault", "not supported by this version", True),),
)


def page_after_some_traffic() -> str:
    telemetry = Telemetry()
    requests = telemetry.requests(REQUEST)
    for duration_ms in (0.08, 0.31, 0.31, 4.2, 2_000.0):
        requests.record(duration_ms, 120, 820)
    connections = telemetry.connections(
        REQUEST._replace(request_protocol="tcp", response_code="0", destination_service_name="db")
    )
    connections.opened, connections.closed, connections.sent_bytes, connections.received_bytes = 2, 1, 4096, 512
    telemetry.count(CounterKey("headgate_detection", ("outcome",), ("http1",)), 5)
    page = MetricsPage("0.1.0", with_process=False)
    page.add(telemetry.take_delta())
    return page.render(STATUS).decode()


def test_the_page_reads_as_written_down() -> None:
    page = page_after_some_traffic()
    if os.environ.get("REFRESH_GOLDEN"):
        GOLDEN.write_text(page)
    assert page == GOLDEN.read_text()
