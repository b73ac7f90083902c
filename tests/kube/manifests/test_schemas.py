"""Every object against Kubernetes' own OpenAPI schemas, unknown fields refused."""

from typing import Any

import kubernetes_validate
import pytest

from tests.kube.manifests.rendered import CLUSTERS, documents

_FIRST, _LAST = "1.30", "1.37"
"""appArmorProfile is a field since 1.30; `kubectl apply` refuses unknown ones."""
_OTHERS = {"SecurityContextConstraints", "PodMonitor"}
"""Not Kubernetes' own: their fields are compared below."""


def _distinct() -> dict[str, dict[str, Any]]:
    return {
        f"{name}: {one['kind']} {one['metadata']['name']}": one
        for name in (*CLUSTERS, "pod-monitor", "repair", "taint", "webhook", "webhook-openshift")
        for one in documents(name)
        if name == "base" or one not in documents("base")
    }


_OBJECTS = _distinct()


@pytest.mark.parametrize("version", [_FIRST, _LAST])
@pytest.mark.parametrize("which", [name for name, one in _OBJECTS.items() if one["kind"] not in _OTHERS])
def test_object_is_valid(which: str, version: str) -> None:
    kubernetes_validate.validate(_OBJECTS[which], version, strict=True)


def test_an_unknown_field_would_be_found() -> None:
    broken = {**documents("base")[0], "spec": {"finaliser": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, _LAST, strict=True)


def test_openshifts_constraints_have_openshifts_fields() -> None:
    """github.com/openshift/api, security/v1/types.go."""
    (found,) = (one for one in documents("openshift") if one["kind"] == "SecurityContextConstraints")
    required = {
        "allowHostDirVolumePlugin", "allowHostIPC", "allowHostNetwork", "allowHostPID", "allowHostPorts",
        "allowPrivilegedContainer", "allowedCapabilities", "defaultAddCapabilities", "priority",
        "readOnlyRootFilesystem", "requiredDropCapabilities", "volumes",
    }  # fmt: skip
    optional = {
        "allowPrivilegeEscalation", "fsGroup", "groups", "runAsUser", "seLinuxContext", "seccompProfiles",
        "supplementalGroups", "users",
    }  # fmt: skip
    fields = found.keys() - {"apiVersion", "kind", "metadata"}
    assert required <= fields <= required | optional


def test_pod_monitor_has_the_operators_fields() -> None:
    """github.com/prometheus-operator/prometheus-operator, pkg/apis/monitoring/v1/podmonitor_types.go."""
    (found,) = documents("pod-monitor")
    assert found["spec"].keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = found["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics"}
