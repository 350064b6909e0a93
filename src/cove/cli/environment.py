"""Environment variables as options: `--env NAME=VALUE`."""

from cove.models.errors import error


def variables(pairs: list[str]) -> dict[str, str]:
    """
    Raises:
        InvalidRequest: one has no `=`.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise error("INVALID_REQUEST", f"--env {pair!r} has no '='.", remedy="Write --env NAME=VALUE.")
        found[name] = value
    return found
