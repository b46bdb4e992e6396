"""The one exception that a user is meant to read."""


class DidsError(ValueError):
    """Bad input, or a request that cannot be met, told in one line.

    The message names the key or the file, the value received and what is allowed. The command line prints it without a
    stack trace (`LLAMAFACTORY_DIDS_DEBUG=1` shows the trace). A library's message within it may have several lines, or
    repeat what a file holds: line breaks become spaces, and control characters are escaped.
    """

    def __init__(self, message: object) -> None:
        letters = (" " if one.isspace() else one if one.isprintable() else repr(one)[1:-1] for one in str(message))
        super().__init__("".join(letters))


def refuse(name: str, received: object, allowed: str) -> DidsError:
    """A DidsError with the standard sentence: `name: got received, allowed: allowed`."""
    return DidsError(f"{name}: got {received!r}, allowed: {allowed}")
