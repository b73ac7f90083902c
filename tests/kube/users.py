"""Who asks: by a client certificate, by a token of a service account, or nobody in particular."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.kube.permissions import ADMIN, ANONYMOUS, User, service_account
from tests.kube.refusals import Refused, bad_request, invalid, not_found
from tests.kube.resources import Body, Kept
from tests.kube.store import Store

LEAST_S = 600
"""pkg/apis/authentication/validation: a TokenRequest may not ask for less."""
_TOKEN = Kept("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")


@dataclass(frozen=True)
class _Given:
    user: User
    until_s: float
    bound: tuple[str, str, str, str] | None  # plural, namespace, name, uid


@dataclass
class Users:
    """`strict`: who is not known is nobody. Else everybody may do everything, under the name of a token or program."""

    store: Store
    strict: bool = False
    time_s: Callable[[], float] = time.time
    _given: dict[str, _Given] = field(default_factory=dict)

    def knows(self, token: str, user: User) -> None:
        self._given[token] = _Given(user, float("inf"), None)

    def of(self, request: web.Request) -> User:
        """Raises Refused 401."""
        user = self._asking(request)
        wanted = request.headers.get("Impersonate-User", "")
        if not wanted or "system:masters" not in user.groups:
            return user
        prefix = "Impersonate-Extra-"
        extra = {name[len(prefix) :].lower().replace("%2f", "/"): tuple(request.headers.getall(name))
                 for name in request.headers if name.startswith(prefix)}  # fmt: skip
        return User(wanted, (*request.headers.getall("Impersonate-Group", ()), "system:authenticated"), extra)

    def _asking(self, request: web.Request) -> User:
        if (user := _of_certificate(request)) is not None:
            return user
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = self._given.get(token)
        if given is not None and self._holds(given):
            return given.user
        if not self.strict:
            return ADMIN if not token else User(ADMIN.name, ADMIN.groups)
        if token:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return User(ANONYMOUS, ("system:unauthenticated",))

    def _holds(self, given: _Given) -> bool:
        if self.time_s() >= given.until_s:
            return False
        if given.bound is None:
            return True
        plural, namespace, name, uid = given.bound
        found = self.store.resources["", plural].objects.get((namespace, name))
        return found is not None and found["metadata"]["uid"] == uid

    def give(self, namespace: str, name: str, asked: Body) -> Body:
        """A TokenRequest, answered. Raises Refused."""
        spec = asked.get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or 3600)
        if seconds < LEAST_S:
            why = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            raise invalid(_TOKEN, "", "spec.expirationSeconds", why)
        bound, claims = self._bound(namespace, name, spec.get("boundObjectRef") or {})
        until_s = self.time_s() + seconds
        subject = f"system:serviceaccount:{namespace}:{name}"
        words = {"sub": subject, "exp": int(until_s), "jti": str(len(self._given)), "kubernetes.io": claims}
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
                         for part in ({"alg": "none"}, words, {}))  # fmt: skip
        self._given[token] = _Given(service_account(namespace, name, **claims), until_s, bound)
        end = datetime.fromtimestamp(until_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": token, "expirationTimestamp": end}
        told: dict[str, Any] = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        return {**told, "metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status}

    def _bound(self, namespace: str, account: str, to: Body) -> tuple[tuple[str, str, str, str] | None, dict[str, str]]:
        if not to:
            return None, {}
        kept = self.store.resources["", {"Pod": "pods", "Secret": "secrets"}[to["kind"]]]
        found = kept.objects.get((namespace, to["name"]))
        if found is None:
            raise not_found(kept, to["name"])
        uid = found["metadata"]["uid"]
        claims = {}
        if to["kind"] == "Pod":
            if ((found.get("spec") or {}).get("serviceAccountName") or "default") != account:
                said = f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount'
                raise bad_request(f"{said} name.")
            claims = {"pod_name": to["name"], "pod_uid": uid}
            if node := (found.get("spec") or {}).get("nodeName"):
                claims["node_name"] = node
        return (kept.plural, namespace, to["name"], uid), claims


def _of_certificate(request: web.Request) -> User | None:
    """Its common name, and its organisations as groups."""
    shown = request.get_extra_info("peercert")
    if not shown:
        return None
    subject = [pair for part in shown["subject"] for pair in part]
    names = [value for key, value in subject if key == "commonName"]
    groups = tuple(value for key, value in subject if key == "organizationName")
    return User(names[0], (*groups, "system:authenticated")) if names else None
