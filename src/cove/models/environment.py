"""Environment variables that cross the wire."""

from typing import Annotated

from pydantic import AfterValidator

from cove.models.base import Contract

MAX_VARIABLES = 1000
MAX_NAME_BYTES = 256
MAX_TOTAL_BYTES = 256 * 1024


def check_env_vars(variables: dict[str, str]) -> dict[str, str]:
    """Return `variables` unchanged.

    Raises:
        ValueError: a name is empty or holds `=`, NUL or a control character; a value holds NUL; or there is
            too much. (execve(2): strings of the form name=value, ended by NUL.)
    """
    if len(variables) > MAX_VARIABLES:
        raise ValueError(f"at most {MAX_VARIABLES} environment variables are accepted")
    total = 0
    for name, value in variables.items():
        if not name or "=" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
            raise ValueError(
                f"{name!r} is not a name for an environment variable: no '=', NUL or line break, not empty"
            )
        if "\0" in value:
            raise ValueError(f"the value of {name!r} contains NUL")
        try:
            size = len(name.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{name!r} or its value is not valid Unicode") from None
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"the name {name[:40]!r}... is longer than {MAX_NAME_BYTES} bytes")
        total += size
    if total > MAX_TOTAL_BYTES:
        raise ValueError(f"environment variables take {total} bytes; at most {MAX_TOTAL_BYTES} are accepted")
    return variables


EnvVars = Annotated[dict[str, str], AfterValidator(check_env_vars)]


class EnvironmentChange(Contract):
    """Body of `PUT /env` (replace) and `PATCH /env` (merge)."""

    env_vars: EnvVars


class EnvironmentAnswer(Contract):
    """All variables that are set for the whole sandbox. Values are not masked: clients write back what they read."""

    env_vars: dict[str, str]
    count: int
    timestamp: str
