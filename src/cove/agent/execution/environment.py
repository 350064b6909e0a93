"""The variables that are set for the whole sandbox (`/env`)."""

from collections.abc import Mapping

from cove.models.environment import check_env_vars


class SandboxEnvironment:
    """Variables of the template (fixed), of the sandbox (changed through `/env`), of a request (one call).

    Later ones win: template < sandbox < request.
    """

    def __init__(self, base: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None) -> None:
        self._base = dict(base or {})
        self._variables = check_env_vars(dict(variables or {}))

    def get(self) -> dict[str, str]:
        """The sandbox's own variables, without those of the template."""
        return dict(self._variables)

    def replace(self, variables: Mapping[str, str]) -> None:
        """Set exactly these.

        Raises:
            ValueError: a name or value that execve(2) cannot pass on, or too much; nothing was changed.
        """
        self._variables = check_env_vars(dict(variables))

    def merge(self, variables: Mapping[str, str]) -> None:
        """Add or overwrite these; raises ValueError like `replace`."""
        self._variables = check_env_vars({**self._variables, **variables})

    def clear(self) -> None:
        """Remove all; those of the template stay."""
        self._variables = {}

    def effective(self, request: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a program sees that is started by a request with these variables."""
        return {**self._base, **self._variables, **(request or {})}
