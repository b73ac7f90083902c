"""Text from a packet, a process or a library, made fit for a log line or a terminal."""


def printable(text: str, limit: int = 200) -> str:
    """`text` with control and other unprintable characters escaped, at most `limit` characters of the result.

    Escaped, not dropped: who reads the line must see that something strange was there.
    """
    if text.isprintable() and len(text) <= limit:
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
