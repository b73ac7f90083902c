"""Access of a pod to its own cluster (kubernetes.io/docs: Accessing the API from within a Pod)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.kube.access import Access, Pem, Token
from agent.kube.errors import InvalidAccess

DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMESPACE_LIMIT: Final = 63  # RFC 1123 label


def in_cluster(environment: Mapping[str, str], directory: Path = DIRECTORY) -> Access:
    """Raises InvalidAccess outside a pod, or where its service account is not mounted."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port.isdecimal():
        raise InvalidAccess("not in a pod: KUBERNETES_SERVICE_HOST and _PORT are not set; give --kubeconfig")
    token, ca = directory / "token", directory / "ca.crt"
    for needed in (token, ca):
        if not needed.is_file():
            raise InvalidAccess(f"{needed}: is not there; does the pod say automountServiceAccountToken: false?")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, Token(file=token), Pem(file=ca), namespace=_namespace(directory), origin="in-cluster")


def _namespace(directory: Path) -> str:
    try:
        found = (directory / "namespace").read_text("utf-8").strip()
    except OSError:
        return "default"
    return found if 0 < len(found) <= _NAMESPACE_LIMIT else "default"
