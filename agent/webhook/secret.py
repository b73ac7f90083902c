"""Certificates as a Secret's data, and in a MutatingWebhookConfiguration (base64 of PEM). Pure."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from agent.webhook.certificates import Certificates, InvalidCertificates, separate, valid

_AUTHORITIES: Final = "ca.crt"
_AUTHORITY_KEY: Final = "ca.key"
_SERVING: Final = "tls.crt"
_SERVING_KEY: Final = "tls.key"
_PARTS: Final = (_AUTHORITIES, _AUTHORITY_KEY, _SERVING, _SERVING_KEY)


def held_in(secret: Mapping[str, Any]) -> Certificates | None:
    """None: nothing was put in yet. Raises InvalidCertificates."""
    data = secret.get("data")
    if not data:
        return None
    if not isinstance(data, Mapping):
        raise InvalidCertificates("data: is no map")
    authorities, authority_key, serving, serving_key = (_decoded(data, part) for part in _PARTS)
    return Certificates(separate(authorities), authority_key, serving, serving_key)


def still_valid(secret: Mapping[str, Any], now_s: float) -> tuple[str, ...]:
    """Authorities that can be made out in what is otherwise no use: another replica may still serve by them."""
    try:
        return valid(separate(_decoded(secret["data"], _AUTHORITIES)), now_s)
    except (InvalidCertificates, KeyError, TypeError):
        return ()


def with_certificates(secret: Mapping[str, Any], held: Certificates) -> dict[str, Any]:
    """Its resourceVersion is left in, which makes a condition of it: who wrote first has won."""
    texts = (held.bundle, held.authority_key, held.serving, held.serving_key)
    data = {part: encoded(text) for part, text in zip(_PARTS, texts, strict=True)}
    return {**secret, "data": data}


def trusting(configuration: Mapping[str, Any], bundle: str) -> dict[str, Any] | None:
    """A MutatingWebhookConfiguration all of whose webhooks believe `bundle`; None when they do so already."""
    wanted = encoded(bundle)
    webhooks = [one for one in configuration.get("webhooks") or () if isinstance(one, Mapping)]
    if all(_client(one).get("caBundle") == wanted for one in webhooks):
        return None
    changed = [{**one, "clientConfig": {**_client(one), "caBundle": wanted}} for one in webhooks]
    return {**configuration, "webhooks": changed}


def _client(webhook: Mapping[str, Any]) -> Mapping[str, Any]:
    found = webhook.get("clientConfig")
    return found if isinstance(found, Mapping) else {}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode("ascii")).decode("ascii")


def _decoded(data: Mapping[str, Any], part: str) -> str:
    try:
        return base64.b64decode(data[part], validate=True).decode("ascii")
    except KeyError:
        raise InvalidCertificates(f"{part}: is not there") from None
    except (binascii.Error, ValueError, TypeError):
        raise InvalidCertificates(f"{part}: is no base64 of PEM") from None
