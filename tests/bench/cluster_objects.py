"""A large cluster's objects, as an API server has them: of other nodes' pods, Services and their endpoints."""

from ipaddress import IPv4Address
from typing import Any, Final

from tests.kube.beside import Beside

PODS: Final = 10_000
SERVICES: Final = 10_000
ENDPOINTS_EACH: Final = 5
"""50,000 endpoints (issue 5): one slice a Service."""
_NAMESPACES: Final = 50
_PODS_FROM: Final = IPv4Address("10.128.0.0")
_SERVICES_FROM: Final = IPv4Address("10.96.0.0")
_MANAGED: Final = [
    {
        "manager": "kubelet",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {f"f:field-{number}": {} for number in range(40)}},
        "subresource": "status",
    }
]
"""What is a third of a real object, and of no use to anybody here."""


def fill(api: Beside) -> None:
    """Before the server is up."""
    for number in range(_NAMESPACES):
        api.put("Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(number)}})
    for number in range(PODS):
        api.put("Pod", remote_pod(number), namespace(number))
    for number in range(SERVICES):
        api.put("Service", service(number), namespace(number))
        api.put("EndpointSlice", endpoint_slice(number), namespace(number))


def namespace(number: int) -> str:
    return f"team-{number % _NAMESPACES}"


def remote_pod(number: int) -> dict[str, Any]:
    """6 KB: two containers with probes, volumes and conditions."""
    address = str(_PODS_FROM + number)
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"application-{number // 5}-6d5f8c7b9d-{number:05d}",
            "generateName": f"application-{number // 5}-6d5f8c7b9d-",
            "labels": {"app": f"application-{number // 5}", "version": "v1", "pod-template-hash": "6d5f8c7b9d"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"application-{number // 5}",
                    "controller": True,
                }
            ],
            "managedFields": _MANAGED,
        },
        "spec": {
            "nodeName": f"node-{2 + number // 100}",
            "serviceAccountName": f"application-{number // 5}",
            "containers": [_container("app"), _container("beside")],
            "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": []}}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions},
    }


def _container(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example/team/application:1.2.3",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"SETTING_{index}", "value": f"value of setting number {index}"} for index in range(20)],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    }


def service(number: int) -> dict[str, Any]:
    address = str(_SERVICES_FROM + number)
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"application-{number}", "labels": {"app": f"application-{number}"}},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "selector": {"app": f"application-{number}"},
            "ports": ports,
            "type": "ClusterIP",
        },
    }


def endpoint_slice(number: int) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [str(_PODS_FROM + (number * ENDPOINTS_EACH + index) % PODS)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{2 + number % 100}",
            "targetRef": {"kind": "Pod", "name": f"application-{number}-{index}", "namespace": namespace(number)},
        }
        for index in range(ENDPOINTS_EACH)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"application-{number}-abcde",
            "labels": {"kubernetes.io/service-name": f"application-{number}"},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
