"""Reading hostile JSON-like values field by field: every mismatch is an InvalidPolicy that names object and field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from proxy.config.text import printable, quoted

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""DNS subdomain, RFC 1123 as Kubernetes validates it (apimachinery pkg/util/validation)."""
LABEL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""DNS label, RFC 1123."""
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


MAX_PART: Final = 300
"""Characters of each part of a message."""


class InvalidPolicy(ValueError):
    """An object that cannot be taken as it is. Retrying is of no use until somebody changes it.

    The parts hold foreign keys and values, made printable and bounded here: they go on to logs and HTTP answers.
    """

    def __init__(self, owner: str, field: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{owner}: {field}: {reason}")
        self.owner = printable(owner)[:MAX_PART]
        self.field = printable(field)[:MAX_PART]
        self.reason = printable(reason)[:MAX_PART]
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside an object, and where: `path` as `spec.http[0].route`. A field that is null counts as absent, as
    the API server prunes it."""

    value: object
    path: str
    owner: str
    """What the message names: `Kind namespace/name`."""

    def fail(self, reason: str, remedy: str = "") -> InvalidPolicy:
        return InvalidPolicy(self.owner, self.path, reason, remedy)

    def mapping(self) -> Mapping[str, object]:
        if not isinstance(self.value, dict):
            raise self.fail(f"must be a mapping, not {quoted(self.value)}")
        return self.value

    def get(self, key: str) -> "Node | None":
        """The field `key` of this mapping, or None where it is absent."""
        value = self.mapping().get(key)
        return None if value is None else Node(value, f"{self.path}.{key}" if self.path else key, self.owner)

    def require(self, key: str) -> "Node":
        found = self.get(key)
        if found is None:
            path = f"{self.path}.{key}" if self.path else key
            raise InvalidPolicy(self.owner, path, "is missing", f"set {path}")
        return found

    def each(self, key: str) -> list["Node"]:
        """The items of the list `key` of this mapping; none where it is absent."""
        found = self.get(key)
        return [] if found is None else found.items()

    def items(self) -> list["Node"]:
        if not isinstance(self.value, list):
            raise self.fail(f"must be a list, not {quoted(self.value)}")
        return [Node(item, f"{self.path}[{i}]", self.owner) for i, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail(f"must be text, not {quoted(self.value)}", "put it in quotes")
        return self.value

    def matching(self, pattern: re.Pattern[str], what: str) -> str:
        text = self.text()
        if pattern.fullmatch(text) is None:
            raise self.fail(f"{quoted(text)} is not {what}")
        return text

    def whole(self, low: int, high: int) -> int:
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(f"must be a whole number, not {quoted(value)}", "write it without quotes or fraction")
        if not low <= value <= high:
            raise self.fail(f"must be {low} to {high}, not {value}")
        return value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.fail(f"must be true or false, not {quoted(self.value)}")
        return self.value

    def address(self) -> str:
        """An IP address in the canonical text of inet_ntop.

        Loopback, link-local, multicast and unspecified addresses are refused, as Kubernetes does for endpoints
        (pkg/apis/core/validation, ValidateNonSpecialIP): they would lead a client to itself or nowhere.
        """
        text = self.text()
        try:
            parsed = ip_address(text)
        except ValueError:
            raise self.fail(f"{quoted(text)} is not an IP address") from None
        if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
            raise self.fail(f"{parsed} is loopback, link-local, multicast or unspecified: not an address to call")
        if isinstance(parsed, IPv6Address) and (parsed.scope_id is not None or parsed.ipv4_mapped is not None):
            raise self.fail(f"{quoted(text)} has a zone or is an IPv4 address in disguise", "write the plain address")
        return str(parsed)

    def labels(self) -> tuple[tuple[str, str], ...]:
        """Labels as sorted pairs, by the API server's own rules."""
        pairs = []
        for key in self.mapping():
            if _LABEL_KEY.fullmatch(key) is None:
                raise self.fail(f"{quoted(key)} is not a label key")
            # A label's value may be null in YAML only by accident: the API server refuses it too.
            value = Node(self.mapping()[key], f"{self.path}[{key}]", self.owner)
            pairs.append((key, value.matching(_LABEL_VALUE, "a label value")))
        return tuple(sorted(pairs))

    def only(self, known: frozenset[str], later: frozenset[str] = frozenset()) -> None:
        """Refuse every field but the `known`; those in `later` are real but not supported yet."""
        for key, value in self.mapping().items():
            if key in known or value is None:
                continue
            path = f"{self.path}.{key}" if self.path else key
            if key in later:
                raise InvalidPolicy(self.owner, path, "not supported by this version", "remove the field")
            raise InvalidPolicy(self.owner, path, "unknown field", "check the spelling against the API reference")
