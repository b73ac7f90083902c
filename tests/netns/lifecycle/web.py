"""Who calls and who answers: nginx in pods of the runtime's, a Service before them, and a pod that calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.lab.node import LabPod
from tests.netns.containerd import image
from tests.netns.containerd.asked import Container, Mount
from tests.netns.faults.traffic import VIRTUAL
from tests.netns.lifecycle.node import Node, Started

PORT: Final = 8080
_CONFIG: Final = """
user root root;
daemon off;
master_process off;
pid /tmp/pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  keepalive_requests 1000000;
  server {
    listen 8080;
    listen [::]:8080 ipv6only=on;
    location / { return 200 '{"pod":"$hostname","client":"$remote_addr"}\\n'; }
  }
}
"""
_HERE: Final = ("/usr", "/etc/ld.so.cache", "/etc/passwd", "/etc/group")
_OBJECTS: Final = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  selector: {{app: web}}
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  ipFamilies: [IPv4, IPv6]
  ports: [{{name: http, protocol: TCP, port: 80, targetPort: {port}}}]
"""
_SLICE: Final = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{family}, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: {family}
ports: [{{name: http, protocol: TCP, port: {port}}}]
endpoints:
"""
_ENDPOINT: Final = """- addresses: ["{address}"]
  conditions: {{ready: true, serving: true, terminating: false}}
  targetRef: {{kind: Pod, name: {name}, namespace: default}}
"""


@dataclass(frozen=True, slots=True)
class Web:
    """`client` calls, `servers` answer; both are proved."""

    client: LabPod
    servers: tuple[Started, ...]
    all: tuple[Started, ...]


def server(node: Node) -> Container:
    """nginx of this machine."""
    config = node.directory / "web.conf"
    config.write_text(_CONFIG)
    mounts = (*(Mount(path, path, readonly=True) for path in _HERE), Mount(str(config), "/web.conf", readonly=True))
    words = ("/usr/sbin/nginx", "-e", "stderr", "-c", "/web.conf")
    return Container("web", words, image=image.HERE, mounts=mounts)


def sleeper() -> Container:
    return Container("sleep", ("/bin/sleep", "100000"))


def serve(node: Node) -> Web:
    """Two servers and a client, proved, the Service in force."""
    wanted = {"web-1": server(node), "web-2": server(node), "client": sleeper()}
    with ThreadPoolExecutor() as pool:
        *servers, client = pool.map(lambda name: node.run(name, wanted[name]), wanted)
    node.wait_proved("web-1", "web-2", "client")
    node.api.apply(objects(tuple(servers)))
    place = node.place(client)
    node.wait("the Service to answer", lambda: all(answers(place, url) for url in VIRTUAL))
    return Web(place, tuple(servers), (*servers, client))


def objects(servers: tuple[Started, ...]) -> str:
    """The Service and where its endpoints are now."""
    parts = [_OBJECTS.format(port=PORT)]
    for family, which in (("IPv4", 0), ("IPv6", 1)):
        found = [_ENDPOINT.format(address=one.sandbox.addresses[which], name=one.pod.name) for one in servers]
        parts.append(_SLICE.format(family=family, port=PORT).replace("web-IPv", "web-ipv") + "".join(found))
    return "---\n".join(parts)


def direct(servers: tuple[Started, ...]) -> tuple[str, ...]:
    """Of each server by its own addresses, which are reached with the mesh and without."""
    return tuple(f"http://{_host(address)}:{PORT}/" for one in servers for address in one.sandbox.addresses)


def answers(place: LabPod, url: str) -> bool:
    return place.run(["curl", "-sf", "-m", "2", "-o", "/dev/null", url], check=False).returncode == 0


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
