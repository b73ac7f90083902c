"""What makes a message unforwardable."""


class ProtocolError(Exception):
    """A message that must not be forwarded. Never retried: the same bytes would fail again.

    `status` is what the client is answered (for a response: 502), `details` names the cause in Envoy's terms
    (response code details), `explanation` is for a person.
    """

    __slots__ = ("details", "explanation", "status")

    def __init__(self, status: int, details: str, explanation: str) -> None:
        super().__init__(f"{status} {details}: {explanation}")
        self.status = status
        self.details = details
        self.explanation = explanation
