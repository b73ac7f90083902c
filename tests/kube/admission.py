"""Webhooks that the stored configurations name, asked before a write is kept.

kubernetes.io/docs: Dynamic Admission Control; apiserver/pkg/admission/plugin/webhook. There is no CEL here: what has
matchConditions fails the write, so that no test believes in them, and ValidatingAdmissionPolicies are only kept.
"""

import base64
import copy
import json
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tests.kube.asked import Asked
from tests.kube.patching import json_patched
from tests.kube.permissions import User
from tests.kube.refusals import Refused, internal, invalid
from tests.kube.resources import Body, Kept
from tests.kube.store import Store

_GROUP: Final = "admissionregistration.k8s.io"
_OPERATIONS: Final = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}
_TIMEOUT_S: Final = 10
"""admissionregistration.k8s.io/v1: timeoutSeconds."""


@dataclass(frozen=True)
class Operation:
    asked: Asked
    kept: Kept
    user: User
    dry_run: bool

    @property
    def name(self) -> str:
        return _OPERATIONS[self.asked.verb]


class _Failed(Exception):
    """The webhook did not answer, or no AdmissionReview: failurePolicy decides."""


class Admission:
    """`reaches`: host and port where a Service (namespace, name, port) answers; None for nowhere."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reaches: Callable[[str, str, int], tuple[str, int] | None] = lambda namespace, name, port: None

    async def admitted(self, change: Operation, body: Any, before: Body | None) -> tuple[Any, tuple[str, ...]]:
        """What webhooks made of it, and their warnings. Raises Refused."""
        if change.kept.group == _GROUP:
            _check(change.kept, body or {})
            return body, ()
        warnings: list[str] = []
        asked: list[tuple[Body, Body]] = []  # who wants to be asked again, and what it answered
        for hook in self._hooks("mutatingwebhookconfigurations"):
            if self._concerns(hook, change, body or before):
                body = await self._ask(hook, change, body, before, warnings)
                if hook.get("reinvocationPolicy") == "IfNeeded":
                    asked.append((hook, copy.deepcopy(body)))
        for hook, then in asked:
            if body != then and self._concerns(hook, change, body or before):
                body = await self._ask(hook, change, body, before, warnings)
        for hook in self._hooks("validatingwebhookconfigurations"):
            if self._concerns(hook, change, body or before):
                await self._ask(hook, change, copy.deepcopy(body), before, warnings)
        return body, tuple(warnings)

    def _hooks(self, plural: str) -> list[Body]:
        kept = self._store.resources.get((_GROUP, plural))
        found = [] if kept is None else [body for _, body in sorted(kept.objects.items())]
        return [hook for body in found for hook in body.get("webhooks") or ()]

    # ── Whom it concerns ───────────────────────────────────────────────────────────────────────────────────────────
    def _concerns(self, hook: Body, change: Operation, body: Body) -> bool:
        if hook.get("matchConditions"):
            raise internal(f'webhook "{hook["name"]}" has matchConditions: CEL is beyond the stand-in')
        if not any(_covers(rule, change) for rule in hook.get("rules") or ()):
            return False
        if not _selected(hook.get("objectSelector") or {}, body.get("metadata", {}).get("labels") or {}):
            return False
        return _selected(hook.get("namespaceSelector") or {}, self._labels_around(change, body))

    def _labels_around(self, change: Operation, body: Body) -> dict[str, str]:
        namespaces = self._store.resources.get(("", "namespaces"))
        if change.kept.kind == "Namespace":
            return body["metadata"].get("labels") or {}
        found = None if namespaces is None else namespaces.objects.get(("", change.asked.namespace))
        own = {"kubernetes.io/metadata.name": change.asked.namespace} if change.asked.namespace else {}
        return own if found is None else {**(found["metadata"].get("labels") or {}), **own}

    # ── The call ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def _ask(self, hook: Body, change: Operation, body: Any, before: Body | None, warnings: list[str]) -> Any:
        if change.dry_run and hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise Refused(400, "BadRequest", f'admission webhook "{hook["name"]}" does not support dry run')
        review = _review(change, body, before)
        try:
            answer = await self._call(hook, review)
            steps = _patch(answer)
            told, allowed = [str(one) for one in answer.get("warnings") or ()], bool(answer["allowed"])
        except (_Failed, KeyError, TypeError, ValueError) as error:
            if hook.get("failurePolicy", "Fail") == "Ignore":
                return body
            raise internal(f'failed calling webhook "{hook["name"]}": {error}') from error
        warnings += told
        if not allowed:
            raise _denied(hook["name"], answer.get("status") or {})
        try:
            return body if steps is None else json_patched(body, steps)
        except Refused as error:
            raise internal(error.message) from error

    async def _call(self, hook: Body, review: Body) -> Body:
        """Raises _Failed."""
        seconds = int(hook.get("timeoutSeconds") or _TIMEOUT_S)
        url, name = self._address(hook["clientConfig"])
        context = ssl.create_default_context()
        if bundle := hook["clientConfig"].get("caBundle"):
            context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
                asking = session.post(f"{url}?timeout={seconds}s", json=review, ssl=context, server_hostname=name)
                async with asking as answer:
                    if answer.status != 200:
                        raise _Failed(f"failed to call webhook: the server responded with {answer.status}")
                    told = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _Failed(f'failed to call webhook: Post "{url}?timeout={seconds}s": {error or "deadline"}') from error
        said = (told.get("apiVersion"), told.get("kind"), (told.get("response") or {}).get("uid"))
        wanted = ("admission.k8s.io/v1", "AdmissionReview", review["request"]["uid"])
        if said != wanted:
            raise _Failed(f"received invalid webhook response: expected {wanted}, got {said}")
        response: Body = told["response"]
        return response

    def _address(self, config: Body) -> tuple[str, str | None]:
        """Where to ask, and the name that the certificate must have."""
        if "url" in config:
            return str(config["url"]), None
        service = config["service"]
        port, name = int(service.get("port") or 443), f"{service['name']}.{service['namespace']}.svc"
        found = self.reaches(service["namespace"], service["name"], port)
        if found is None:
            raise _Failed(
                f'failed to call webhook: Post "https://{name}:{port}": service "{service["name"]}" not found'
            )
        return f"https://{found[0]}:{found[1]}{service.get('path') or ''}", name


def _check(kept: Kept, body: Body) -> None:
    """Of a configuration, what v1 does not let pass. Raises Refused 422."""
    for at, hook in enumerate(body.get("webhooks") or () if kept.kind.endswith("WebhookConfiguration") else ()):
        place, name = f"webhooks[{at}]", body["metadata"].get("name", "")
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            why = 'Unsupported value: supported values: "None", "NoneOnDryRun"'
            raise invalid(kept, name, f"{place}.sideEffects", why)
        if not hook.get("admissionReviewVersions"):
            raise invalid(
                kept, name, f"{place}.admissionReviewVersions", "Required value: must specify one of v1, v1beta1"
            )
        if hook.get("name", "").count(".") < 2:
            why = "should be a domain with at least three segments separated by dots"
            raise invalid(kept, name, f"{place}.name", f'Invalid value: "{hook.get("name", "")}": {why}')


def _covers(rule: Body, change: Operation) -> bool:
    kept, asked = change.kept, change.asked
    scope = rule.get("scope", "*")
    resources = (asked.with_subresource, *((f"{asked.resource}/*",) if asked.subresource else ("*",)), "*/*")
    if asked.subresource:
        resources += (f"*/{asked.subresource}",)
    return (
        bool({change.name, "*"} & set(rule["operations"]))
        and bool({kept.group, "*"} & set(rule["apiGroups"]))
        and bool({kept.version, "*"} & set(rule["apiVersions"]))
        and bool(set(resources) & set(rule["resources"]))
        and scope in ("*", "Namespaced" if kept.namespaced else "Cluster")
    )


def _selected(selector: Body, labels: dict[str, str]) -> bool:
    """metav1.LabelSelector."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(one, labels) for one in selector.get("matchExpressions") or ())


def _meets(expression: Body, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels


def _review(change: Operation, body: Any, before: Body | None) -> Body:
    kept, asked = change.kept, change.asked
    kind = {"group": kept.group, "version": kept.version, "kind": kept.kind}
    resource = {"group": kept.group, "version": kept.version, "resource": kept.plural}
    options = f"{change.name.title()}Options"
    request: Body = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": asked.name or ((body or {}).get("metadata") or {}).get("name", ""),
        "namespace": asked.namespace,
        "operation": change.name,
        "userInfo": change.user.info(),
        "object": body,
        "oldObject": before,
        "dryRun": change.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    }
    if asked.subresource:
        request |= {"subResource": asked.subresource, "requestSubResource": asked.subresource}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _patch(answer: Body) -> Any:
    """None for no change. Raises _Failed, ValueError."""
    if not answer.get("patch"):
        return None
    if answer.get("patchType") != "JSONPatch":
        raise _Failed(f"received invalid webhook response: unsupported patch type: {answer.get('patchType')}")
    return json.loads(base64.b64decode(answer["patch"], validate=True))


def _denied(name: str, status: Body) -> Refused:
    """webhook/errors/statuserror.go: never with a code below 400."""
    said = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    code = max(int(status.get("code") or 0), 400)
    return Refused(code, str(status.get("reason") or ""), f"{said}: {why}" if why else f"{said} without explanation")
