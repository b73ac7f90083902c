"""What a Service port says that it speaks."""

from typing import Final

from proxy.model.routing import Protocol

_APP_PROTOCOLS: Final = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.TLS,
    "linkerd.io/opaque": Protocol.TCP,
}
"""Kubernetes' standard names (KEP 3726) and Linkerd's."""

_NAMES: Final = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "https": Protocol.TLS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}
"""Istio's names (istio/istio pkg/config/protocol/instance.go); databases are opaque to us."""


def declared_protocol(app_protocol: str, port_name: str) -> Protocol:
    """`appProtocol` if given, else the port name up to its first `-`, as Istio reads both; case does not matter.

    A word that nobody defines declares nothing (Istio detects then; Linkerd would take an unknown appProtocol as
    opaque). grpc-web is HTTP/1 or 2 with ordinary framing: HTTP.
    """
    text = (app_protocol or port_name).lower()
    if text in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[text]
    if text.startswith("grpc-web"):
        return Protocol.HTTP
    return _NAMES.get(text.partition("-")[0], Protocol.UNDECLARED)
