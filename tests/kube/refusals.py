"""What an API server says no with: metav1.Status, in the words of apimachinery/pkg/api/errors/errors.go."""

from typing import Any, Final

from tests.kube.resources import Kept

MODIFIED: Final = "the object has been modified; please apply your changes to the latest version and try again"


class Refused(Exception):
    """An answer that is no 2xx. `details`: what programs read of it."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return told if self.details is None else {**told, "details": self.details}


def not_found(kept: Kept, name: str) -> Refused:
    return Refused(404, "NotFound", f'{kept.qualified} "{name}" not found', _of(kept, name))


def no_such_path(group_is_known: bool = True) -> Refused:
    """Under a group that nobody serves there is not even a Status."""
    if not group_is_known:
        return Refused(404, "", "404 page not found\n")
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kept: Kept, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{kept.qualified} "{name}" already exists', _of(kept, name))


def conflict(kept: Kept, name: str, why: str = MODIFIED) -> Refused:
    said = f'Operation cannot be fulfilled on {kept.qualified} "{name}": {why}'
    return Refused(409, "Conflict", said, _of(kept, name))


def of_another(kept: Kept, name: str, what: str, wanted: str, there: str) -> Refused:
    """A condition of a DELETE: rest/delete.go, which names the kind where the resource belongs."""
    why = "been deleted and then recreated" if what == "UID" else "been modified"
    said = f"the {what} in the precondition ({wanted}) does not match the {what} in record ({there}). The object might "
    said = f'Operation cannot be fulfilled on {kept.qualified_kind} "{name}": {said}have {why}'
    return Refused(409, "Conflict", said, {**_of(kept, name), "kind": kept.kind})


def uid_condition(kept: Kept, name: str, wanted: str, there: str) -> Refused:
    """storage.Preconditions.Check."""
    return conflict(kept, name, f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {there}")


def invalid(kept: Kept, name: str, field: str, why: str) -> Refused:
    cause = {"field": field, "message": why, "reason": "FieldValueInvalid"}
    details = {"name": name, "group": kept.group, "kind": kept.kind, "causes": [cause]}
    return Refused(422, "Invalid", f'{kept.qualified_kind} "{name}" is invalid: {field}: {why}', details)


def bad_request(why: str) -> Refused:
    return Refused(400, "BadRequest", why)


def expired(why: str) -> Refused:
    return Refused(410, "Expired", why)


def not_supported() -> Refused:
    said = "the server does not allow this method on the requested resource"
    return Refused(405, "MethodNotAllowed", said)


def unsupported_media() -> Refused:
    return Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def internal(why: str) -> Refused:
    return Refused(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})


def forbidden(kept: Kept | None, name: str, why: str) -> Refused:
    what = "" if kept is None else f"{kept.qualified} "
    named = f'"{name}" ' if name else ""
    said = f"{what}{named}is forbidden: {why}" if what else f"forbidden: {why}"
    return Refused(403, "Forbidden", said, {} if kept is None else _of(kept, name))


def _of(kept: Kept, name: str) -> dict[str, Any]:
    """As client-go's errors.IsNotFound and kubectl read it: the resource under `kind`."""
    group = {"group": kept.group} if kept.group else {}
    return {"name": name, **group, "kind": kept.plural} if name else {**group, "kind": kept.plural}
