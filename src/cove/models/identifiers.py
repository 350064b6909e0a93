"""Identifiers: their shapes and how new ones are made."""

import re
import secrets
import string
import time

_LOWER = string.ascii_lowercase + string.digits
SANDBOX_ID = re.compile(r"[0-9]{10}[a-z0-9]{8}\Z")
_EXECUTION_ID = re.compile(r"exec_[a-z0-9]{8,64}\Z")


def _random(length: int) -> str:
    """Random characters from one read of the kernel's generator: 8 bits for each of 5.2 leave no bias to speak of."""
    number = int.from_bytes(secrets.token_bytes(length))
    characters: list[str] = []
    for _ in range(length):
        number, index = divmod(number, len(_LOWER))
        characters.append(_LOWER[index])
    return "".join(characters)


def new_sandbox_id() -> str:
    """Ten digits of unix seconds and eight random characters, for example `1763382095i648uu1o`."""
    return f"{int(time.time()):010d}{_random(8)}"


def is_sandbox_id(text: str) -> bool:
    """Whether `text` has the shape of a sandbox id; ids are used in paths, so nothing else may pass."""
    return SANDBOX_ID.match(text) is not None


def new_request_id() -> str:
    """For the `X-Request-ID` header and error bodies."""
    return f"req_{_random(20)}"


def new_execution_id() -> str:
    """One run of code or of a command."""
    return f"exec_{_random(16)}"


def is_execution_id(text: str) -> bool:
    """Whether `text` has the shape of an execution id."""
    return _EXECUTION_ID.match(text) is not None
