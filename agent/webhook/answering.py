"""The webhook's HTTP: reviews over TLS, and in clear whether it is ready, alive, and what it counts."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from agent.webhook.keeper import Standing
from agent.webhook.metrics import CONTENT_TYPE, WebhookMetrics
from agent.webhook.review import Mutate, NoReview, Outcome, answered, failed, review_of

_log: Final = logging.getLogger("headgate.webhook")

REVIEW_LIMIT: Final = 3 << 20
"""apiserver/pkg/server/config.go: MaxRequestBodyBytes. etcd takes half of it (--max-request-bytes), so that no pod that
can be stored is refused here."""
_BODY_TIMEOUT_S: Final = 10.0
"""The longest that an API server would wait by our configuration (timeoutSeconds)."""
_JSON: Final = "application/json"


class Answering:
    """`standing`: of the certificates. `time_s`: seconds since the epoch."""

    def __init__(
        self, mutate: Mutate, standing: Callable[[], Standing], metrics: WebhookMetrics, time_s: Callable[[], float]
    ) -> None:
        self._mutate = mutate
        self._standing = standing
        self._metrics = metrics
        self._time_s = time_s
        self.listening = False
        self.leaving = False

    def reviews(self) -> web.Application:
        application = web.Application(client_max_size=REVIEW_LIMIT)
        application.router.add_post("/mutate", self._review)
        return application

    def health(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/healthz/live", self._live)
        application.router.add_get("/healthz/ready", self._ready)
        application.router.add_get("/metrics", self._exposition)
        return application

    async def _review(self, request: web.Request) -> web.Response:
        try:
            review = review_of(await _body(request))
        except NoReview as error:
            self._metrics.reviewed(Outcome.MALFORMED.value, 0.0)
            raise web.HTTPBadRequest(text=f"the review {error}\n") from error
        began_s = time.monotonic()
        try:
            answer, outcome = answered(review, self._mutate)
        except Exception as error:  # a pod is hostile, and a crash would be retried as if we were away
            _log.exception("review %s: not answered", review.uid)
            answer, outcome = failed(review, f"{type(error).__name__}"), Outcome.FAILED
        self._metrics.reviewed(outcome.value, time.monotonic() - began_s)
        response = web.json_response(answer)
        if self.leaving:
            response.force_close()  # its next question goes to another replica
        return response

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _ready(self, _: web.Request) -> web.Response:
        standing = self._standing()
        if self.listening and not self.leaving and standing.ready(self._time_s()):
            return web.Response(text="ready\n")
        why = "leaving" if self.leaving else standing.problem or "no certificate that API servers believe"
        return web.Response(status=503, text=f"not ready: {why}\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        standing = self._standing()
        self._metrics.certificates(standing.serving_ends_s, standing.authority_ends_s, trusted=standing.trusted)
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


async def _body(request: web.Request) -> bytes:
    """Raises HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType, HTTPRequestTimeout."""
    if request.content_type != _JSON:
        raise web.HTTPUnsupportedMediaType(text=f"a review is {_JSON}\n")
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"no whole review within {_BODY_TIMEOUT_S:g} s\n") from None
