"""Facts of a cluster, asked of its API server."""

from collections.abc import Awaitable
from typing import Any, Final

from agent.check import reading
from agent.check.asking import all_of, asked, found, listed, told_by_pod
from agent.check.facts import Agent, Cluster, ClusterPod, Namespace, OwnPod, Permission, Unseen, Webhook
from agent.check.needs import Need
from agent.check.shapes import Shapeless, part, text
from agent.kube.client import ApiClient
from agent.pods.enrolment import MESH_LABEL
from proxy.api.constants import AGENT_METRICS_PORT

_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_CILIUM: Final = "/api/v1/namespaces/kube-system/configmaps/cilium-config"
_OURS: Final = "app.kubernetes.io/name=headgate"
_AGENT: Final = "agent"
_WEBHOOK: Final = "headgate-webhook"


class Gathering:
    """Of one cluster; `version` is this command's."""

    def __init__(self, client: ApiClient, namespace: str, version: str, now_s: float) -> None:
        self._client = client
        self._namespace = namespace
        self._version = version
        self._now_s = now_s

    async def before(self, needs: tuple[Need, ...]) -> Cluster:
        """What counts before an installation. `needs`: what is to be made."""
        version = await asked(self._server_version())
        if isinstance(version, Unseen):
            return self._nothing(version)
        return Cluster(**await self._common(version), permissions=await asked(self._permissions(needs)))

    async def after(self) -> Cluster:
        version = await asked(self._server_version())
        if isinstance(version, Unseen):
            return self._nothing(version)
        common = await self._common(version)
        own = await asked(self._listed_pods())
        agents = () if isinstance(own, Unseen) else [one for one in own if one.component == _AGENT and one.node]
        told = await all_of([self._agent(one) for one in agents])
        return Cluster(
            **common,
            permissions=(),
            own=own,
            agents=tuple(told),
            pods=await asked(self._selectable(common["namespaces"], common["daemonsets"])),
            webhook=await asked(self._webhook()),
        )

    def _nothing(self, version: Unseen) -> Cluster:
        none = Unseen("the API server cannot be asked")
        return Cluster(
            self._client.access.server, self._namespace, self._now_s, self._version, version,
            none, none, none, none, none, none, none,
        )  # fmt: skip

    async def _common(self, version: str) -> dict[str, Any]:
        client = self._client
        return {
            "server": client.access.server,
            "namespace": self._namespace,
            "now_s": self._now_s,
            "client_version": self._version,
            "version": version,
            "groups": await asked(self._groups()),
            "namespaces": await asked(listed(client, "/api/v1/namespaces", reading.namespace)),
            "nodes": await asked(listed(client, "/api/v1/nodes", reading.node)),
            "daemonsets": await asked(listed(client, "/apis/apps/v1/daemonsets", reading.daemonset)),
            "mutating": await asked(self._mutating()),
            "cilium": await asked(self._cilium()),
        }

    async def _server_version(self) -> str:
        told = await self._client.get("/version")
        found = told.get("gitVersion")
        if not isinstance(found, str):
            raise Shapeless("/version: no gitVersion")
        return found

    async def _groups(self) -> frozenset[str]:
        told = await self._client.get("/apis")
        return frozenset(text(one, "name") for one in told["groups"])

    async def _permissions(self, needs: tuple[Need, ...]) -> tuple[Permission, ...]:
        return tuple(await all_of([self._permission(need) for need in needs]))

    async def _permission(self, need: Need) -> Permission:
        wanted = {"verb": need.verb, "group": need.group, "resource": need.resource, "namespace": need.namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in wanted.items() if value}},
        }
        told = await self._client.create(_REVIEWS, review)
        return Permission(need.verb, need.group, need.resource, need.namespace, told["status"]["allowed"] is True)

    async def _mutating(self) -> frozenset[str]:
        return frozenset(await listed(self._client, _CONFIGURATIONS, lambda body: text(part(body, "metadata"), "name")))

    async def _cilium(self) -> dict[str, str] | None:
        body = await found(self._client, _CILIUM)
        if body is None:
            return None
        return {key: value for key, value in part(body, "data").items() if isinstance(value, str)}

    async def _listed_pods(self) -> tuple[OwnPod, ...]:
        """Without those that are leaving: their successors count."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        return tuple(one for one in await listed(self._client, path, reading.own_pod, _OURS) if not one.leaving)

    async def _agent(self, pod: OwnPod) -> Agent:
        question = told_by_pod(self._client, self._namespace, pod.name, AGENT_METRICS_PORT, "/status")
        return Agent(pod.name, pod.node, await asked(_read(question)))

    async def _selectable(self, namespaces: Any, daemonsets: Any) -> tuple[ClusterPod, ...]:
        """Of namespaces with a mark, all; of others those with a label of ours. Where --select names other marks: all
        of the cluster, for a mark may be an annotation, which no selector finds."""
        chosen = () if isinstance(daemonsets, Unseen) else daemonsets
        ours = [one for one in chosen if one.namespace == self._namespace]
        if any(word.startswith("--select=") for one in ours for word in one.arguments):
            return await listed(self._client, "/api/v1/pods", reading.cluster_pod)
        pods: dict[tuple[str, str], ClusterPod] = {}
        for one in () if isinstance(namespaces, Unseen) else namespaces:
            if _is_marked(one):
                path = f"/api/v1/namespaces/{one.name}/pods"
                pods |= _by_name(await listed(self._client, path, reading.cluster_pod))
        labelled = await listed(self._client, "/api/v1/pods", reading.cluster_pod, f"{MESH_LABEL}=enabled")
        return tuple((pods | _by_name(labelled)).values())

    async def _webhook(self) -> Webhook | None:
        configuration = await found(self._client, f"{_CONFIGURATIONS}/{_WEBHOOK}")
        if configuration is None:
            return None
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{_WEBHOOK}"
        deployment = await found(self._client, path)
        ready = None if deployment is None else int(part(deployment, "status").get("readyReplicas") or 0)
        return Webhook(reading.policies(configuration), reading.bundle_ends(configuration), ready)


async def _read(question: Awaitable[Any]) -> Any:
    return reading.agent_status(await question)


def _is_marked(namespace: Namespace) -> bool:
    return namespace.labels.get(MESH_LABEL) == "enabled"


def _by_name(pods: tuple[ClusterPod, ...]) -> dict[tuple[str, str], ClusterPod]:
    return {(one.pod.ref.namespace, one.pod.ref.name): one for one in pods}
