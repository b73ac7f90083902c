"""The kinds that policy is made of (DESIGN 7), and what of each object the proxy has a use for. Pure."""

from typing import Any, Final

from agent.kube.resources import Resource
from agent.pods.told import TOLD

PODS: Final = Resource("", ("v1",), "Pod", "pods")
_ISTIO: Final = ("v1", "v1beta1", "v1alpha3")
_ISTIO_SECURITY: Final = ("v1", "v1beta1")
_LINKERD_POLICY: Final = ("v1beta3", "v1beta2", "v1beta1", "v1alpha1")

KINDS: Final = (
    Resource("", ("v1",), "Service", "services"),
    PODS,
    Resource("", ("v1",), "Namespace", "namespaces"),
    Resource("discovery.k8s.io", ("v1",), "EndpointSlice", "endpointslices"),
    Resource("networking.istio.io", _ISTIO, "VirtualService", "virtualservices"),
    Resource("networking.istio.io", _ISTIO, "DestinationRule", "destinationrules"),
    Resource("networking.istio.io", _ISTIO, "ServiceEntry", "serviceentries"),
    Resource("security.istio.io", _ISTIO_SECURITY, "AuthorizationPolicy", "authorizationpolicies"),
    Resource("security.istio.io", _ISTIO_SECURITY, "PeerAuthentication", "peerauthentications"),
    Resource("security.istio.io", _ISTIO_SECURITY, "RequestAuthentication", "requestauthentications"),
    Resource("gateway.networking.k8s.io", ("v1",), "HTTPRoute", "httproutes"),
    Resource("gateway.networking.k8s.io", ("v1",), "GRPCRoute", "grpcroutes"),
    Resource("gateway.networking.k8s.io", ("v1", "v1alpha2"), "TCPRoute", "tcproutes"),
    Resource("gateway.networking.k8s.io", ("v1", "v1alpha3", "v1alpha2"), "TLSRoute", "tlsroutes"),
    Resource("linkerd.io", ("v1alpha2",), "ServiceProfile", "serviceprofiles"),
    Resource("policy.linkerd.io", _LINKERD_POLICY, "HTTPRoute", "httproutes"),
    Resource("policy.linkerd.io", _LINKERD_POLICY, "Server", "servers"),
    Resource("policy.linkerd.io", ("v1alpha1",), "AuthorizationPolicy", "authorizationpolicies"),
    Resource("policy.linkerd.io", ("v1alpha1",), "HTTPLocalRateLimitPolicy", "httplocalratelimitpolicies"),
    Resource("split.smi-spec.io", ("v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"), "TrafficSplit", "trafficsplits"),
)

_ANNOTATIONS: Final = "headgate.io/"
_POD_METADATA: Final = ("name", "namespace", "uid", "labels", "generateName", "creationTimestamp")
_POD_SPEC: Final = ("serviceAccountName", "hostNetwork")
_POD_STATUS: Final = ("phase", "podIP", "podIPs")
_OWNER: Final = ("kind", "name", "controller")


def pruned(body: dict[str, Any]) -> dict[str, Any]:
    """Without what only the API server's own bookkeeping needs; of a pod, who it is and where. What has not the shape
    of an object goes on as it is: what it means, and what is wrong with it, is the proxy's business."""
    if body.get("kind") == PODS.kind:
        return _pruned_pod(body)
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return body
    return {**body, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _pruned_pod(body: dict[str, Any]) -> dict[str, Any]:
    """10,000 of them are held: one is some 600 bytes instead of 8 KB."""
    metadata = _part(body.get("metadata"), _POD_METADATA)
    said = body.get("metadata", {})
    annotations = said.get("annotations") if isinstance(said, dict) else None
    if isinstance(annotations, dict):
        metadata["annotations"] = {
            key: value for key, value in annotations.items() if key.startswith(_ANNOTATIONS) and key not in TOLD
        }
    owners = said.get("ownerReferences") if isinstance(said, dict) else None
    if isinstance(owners, list):
        metadata["ownerReferences"] = [_part(owner, _OWNER) for owner in owners]
    return {
        "apiVersion": body.get("apiVersion"),
        "kind": PODS.kind,
        "metadata": metadata,
        "spec": _part(body.get("spec"), _POD_SPEC),
        "status": _part(body.get("status"), _POD_STATUS),
    }


def _part(of: object, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: of[key] for key in keys if key in of} if isinstance(of, dict) else {}
