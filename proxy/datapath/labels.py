"""The label values of a connection's series, made once for each (destination, code) and kept there."""

from proxy.model.direction import Direction
from proxy.model.routing import ServiceName
from proxy.model.workload import NOBODY, UNKNOWN, Workload
from proxy.telemetry.series import RequestLabels

PASSTHROUGH = ServiceName(UNKNOWN, "PassthroughCluster", UNKNOWN)
"""A destination that no Service owns; Istio's name for it, which its dashboards filter on."""


def request_labels(
    direction: Direction,
    source: Workload,
    destination: Workload,
    service: ServiceName,
    protocol: str,
    code: str,
    flags: str,
) -> RequestLabels:
    """`protocol` is http or tcp; `code` the status sent to the client, "0" if it left or has none; `flags` Envoy's."""
    known = service is not PASSTHROUGH
    return RequestLabels(
        reporter="source" if direction is Direction.OUTBOUND else "destination",
        source_workload=source.name,
        source_canonical_service=source.canonical_name,
        source_canonical_revision=source.canonical_revision,
        source_workload_namespace=source.namespace,
        source_principal=UNKNOWN,
        source_app=source.app,
        source_version=source.version,
        source_cluster=_cluster(source),
        destination_workload=destination.name,
        destination_workload_namespace=destination.namespace,
        destination_principal=UNKNOWN,
        destination_app=destination.app,
        destination_version=destination.version,
        destination_service=service.host,
        destination_canonical_service=destination.canonical_name,
        destination_canonical_revision=destination.canonical_revision,
        destination_service_name=service.name,
        destination_service_namespace=service.namespace if known else UNKNOWN,
        destination_cluster=_cluster(destination),
        request_protocol=protocol,
        response_code=code,
        grpc_response_status="",
        response_flags=flags or "-",
        # Istio's values: only the receiving side can vouch for it, and without mutual TLS it is none.
        connection_security_policy=UNKNOWN if direction is Direction.OUTBOUND else "none",
    )


def _cluster(workload: Workload) -> str:
    """Istio's name of the only cluster there is."""
    return UNKNOWN if workload is NOBODY else "Kubernetes"
