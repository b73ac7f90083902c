"""Keeps the certificates: replicas agree by one Secret, whoever writes it first, and each looks again and again.

The order is what keeps them trusted: the configuration is read before the Secret, so that what is written into it is
never older than what somebody else wrote; and a certificate is served only when its authority is in the configuration.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.resources import Resource
from agent.webhook.certificates import (
    Certificates,
    InvalidCertificates,
    fresh,
    read,
    with_new_authority,
    with_new_serving,
)
from agent.webhook.rotation import Step, due
from agent.webhook.secret import held_in, still_valid, trusting, with_certificates

_log: Final = logging.getLogger("headgate.webhook")

INTERVAL_S: Final = 10.0
"""How long a configuration that was overwritten stays so; two reads of 10 KB each time."""
_SECRETS: Final = Resource("", ("v1",), "Secret", "secrets")
CONFIGURATIONS: Final = Resource(
    "admissionregistration.k8s.io", ("v1",), "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"
)
_ATTEMPTS: Final = 5
"""Of writing the Secret while others do; and a new authority is followed by a new certificate."""
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class Serving(Protocol):
    """What presents a certificate to API servers."""

    def load(self, certificate: str, key: str) -> None:
        """For connections from now on. Raises ValueError; what was served before still is."""


@dataclass(frozen=True, slots=True)
class Names:
    """`host`: that API servers ask for in TLS: SERVICE.NAMESPACE.svc."""

    namespace: str
    secret: str
    configuration: str
    host: str


@dataclass(frozen=True, slots=True)
class Standing:
    """`serving_ends_s`: of the certificate that is served, None before the first. `trusted`: the configuration's
    bundle has its authority, when it was last read. `problem`: why the last look failed, empty when it did not."""

    serving_ends_s: float | None = None
    authority_ends_s: float | None = None
    trusted: bool = False
    problem: str = ""

    def ready(self, now_s: float) -> bool:
        """Also while the API server is away: it calls nobody then, and knows what it knew."""
        return self.trusted and self.serving_ends_s is not None and now_s < self.serving_ends_s


class Keeper:
    """`time_s`: seconds since the epoch. `serves` is set once a certificate is presented."""

    def __init__(self, client: ApiClient, names: Names, serving: Serving, time_s: Callable[[], float]) -> None:
        self._client = client
        self._names = names
        self._serving = serving
        self._time_s = time_s
        self._secret_path = f"{_SECRETS.path('v1', names.namespace)}/{names.secret}"
        self._configuration_path = f"{CONFIGURATIONS.path('v1')}/{names.configuration}"
        self._served: Certificates | None = None
        self.standing = Standing()
        self.serves = asyncio.Event()

    async def look(self) -> bool:
        """One look at both objects, and what follows. False: it failed, `standing.problem` says why."""
        try:
            for left in reversed(range(_ATTEMPTS)):
                try:
                    await self._look()
                    break
                except ApiRefused as error:
                    if error.status != _CONFLICT or not left:
                        raise  # else another replica wrote the configuration meanwhile
        except (ApiRefused, CannotReach, InvalidAccess, InvalidCertificates) as error:
            self._failed(str(error))
            return False
        return True

    async def _look(self) -> None:
        configuration = await self._configuration()
        held = await self._agreed()
        problem = ""
        if configuration is None:
            problem = (
                f"MutatingWebhookConfiguration {self._names.configuration} is not there, so nobody asks: apply what "
                "`headgate install --webhook` prints"
            )
        elif (changed := trusting(configuration, held.bundle)) is not None:
            await self._client.update(self._configuration_path, changed)
            _log.info("configuration %s: has our authorities now", self._names.configuration)
        self._serve(held)
        found = read(held)
        if problem != self.standing.problem and problem:
            _log.warning("%s", problem)
        self.standing = Standing(found.serving.ends_s, found.authorities[0].ends_s, configuration is not None, problem)

    async def _configuration(self) -> dict[str, Any] | None:
        try:
            return await self._object(self._configuration_path)
        except ApiRefused as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def _object(self, path: str) -> dict[str, Any]:
        found = await self._client.get(path)
        if not isinstance(found, dict):
            raise CannotReach(f"{path}: an answer that is no object")
        return found

    async def _agreed(self) -> Certificates:
        """What the Secret holds once nothing is due."""
        for _ in range(_ATTEMPTS):
            secret = await self._secret()
            held, wanted, why = self._wanted(secret)
            if wanted is None:
                assert held is not None
                return held
            try:
                await self._client.update(self._secret_path, with_certificates(secret, wanted))
            except ApiRefused as error:
                if error.status != _CONFLICT:
                    raise
                continue  # another replica was first: its certificates are as good
            _log.info("certificates renewed: %s", why)
        raise CannotReach(f"Secret {self._names.secret}: is written by somebody else again and again")

    async def _secret(self) -> dict[str, Any]:
        try:
            return await self._object(self._secret_path)
        except ApiRefused as error:
            if error.status != _NOT_FOUND:
                raise
            where = f"Secret {self._names.namespace}/{self._names.secret}"
            raise CannotReach(f"{where} is not there: apply what `headgate install --webhook` prints") from error

    def _wanted(self, secret: dict[str, Any]) -> tuple[Certificates | None, Certificates | None, str]:
        """What is held, what is to be held instead (None: nothing else), and why."""
        now_s, host = self._time_s(), self._names.host
        try:
            held = held_in(secret)
            if held is None:
                return None, fresh(host, now_s), "there were none"
            step = due(read(held), host, now_s)
        except InvalidCertificates as error:
            _log.warning("Secret %s: %s; made anew", self._names.secret, error)
            return None, fresh(host, now_s, still_valid(secret, now_s)), str(error)
        match step.step:
            case Step.NOTHING:
                return held, None, ""
            case Step.SERVING:
                return held, with_new_serving(held, host, now_s), step.why
            case Step.AUTHORITY:
                return held, with_new_authority(held, now_s), step.why
            case Step.ALL:
                return held, fresh(host, now_s), step.why

    def _serve(self, held: Certificates) -> None:
        if self._served is not None and self._served.serving == held.serving:
            return
        self._serving.load(held.serving, held.serving_key)
        self._served = held
        self.serves.set()

    def _failed(self, problem: str) -> None:
        """What was served is served on, until it ends."""
        if problem != self.standing.problem:
            _log.warning("certificates were not looked after: %s", problem)
        before = self.standing
        self.standing = Standing(before.serving_ends_s, before.authority_ends_s, before.trusted, problem)
