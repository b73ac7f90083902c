"""Names of a cluster's objects as options: refused before they are part of a path of the API."""

import re
from typing import Final

import click

from agent.printable import printable

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_MAX_NAME: Final = 253
_SHOWN: Final = 80


def is_label(text: str) -> bool:
    """RFC 1123, as namespaces and Services have it (kubernetes.io/docs: Object Names and IDs)."""
    return _LABEL.fullmatch(text) is not None


def label(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A click callback. Raises BadParameter."""
    if value is not None and not is_label(value):
        raise click.BadParameter(f"{printable(value, _SHOWN)} is no label by RFC 1123: a-z, 0-9 and -, 63 at most")
    return value


def name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A click callback: a DNS subdomain, as most objects have it. Raises BadParameter."""
    if len(value) > _MAX_NAME or not all(map(is_label, value.split("."))):
        raise click.BadParameter(f"{printable(value, _SHOWN)} is no name by RFC 1123: a-z, 0-9, - and ., 253 at most")
    return value
