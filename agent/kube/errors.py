"""What goes wrong between the agent and an API server."""

from typing import Final

GONE: Final = frozenset({"Expired", "Gone"})
"""metav1.StatusReason of a resource version, or a continue token, that the server has no history for any more (410)."""


class InvalidAccess(ValueError):
    """A kubeconfig, token or certificate that cannot be used: which file and field, why, what to do. Whoever wrote it
    must change it."""


class CannotReach(Exception):
    """No answer: refused, cut, timed out, or no TLS. The caller may retry."""


class ApiRefused(Exception):
    """The server's own word: HTTP status and metav1.Status. `retry_after_s`: what it asks for, None when it does not.

    401 and 403 last until somebody changes something; 404 of a list means that the kind is not there.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def is_gone(self) -> bool:
        """The version asked for is too old: list again."""
        return self.status == 410 or self.reason in GONE

    @property
    def is_too_new(self) -> bool:
        """The version asked for is newer than what this server has heard of (apiserver/pkg/storage/errors.go:
        NewTooLargeResourceVersionError, a 504 with the cause ResourceVersionTooLarge)."""
        return self.status == 504 and "oo large resource version" in str(self)
