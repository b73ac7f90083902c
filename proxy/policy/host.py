"""Does a request's Host name the Service that it was sent to?"""

from typing import Final

CLUSTER: Final = b".cluster.local"


def names_another_service(host: bytes, service_host: str) -> bool:
    """`host` is a Host field's value in lower case, with or without port; `service_host` the owner of the address that
    was called, `name.namespace.svc.cluster.local`.

    Only names that end in `.svc` or `.svc.cluster.local` are taken for a Service's: `name.namespace` could be any
    domain, and a short name depends on who asks.
    """
    name = host.partition(b":")[0].rstrip(b".")
    if name.endswith(b".svc"):
        name += CLUSTER
    return name.endswith(b".svc" + CLUSTER) and name != service_host.encode()
