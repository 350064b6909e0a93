"""Environment and working directory of one call, inside the kernel process."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path


class KernelEnvironment:
    """Keeps os.environ in step with the sandbox's variables, without undoing what the program itself set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._applied = dict(variables)
        # Only what differs: clearing and filling it would write to 130 pages of a fresh kernel's memory more.
        for name in list(os.environ):
            if name not in variables:
                del os.environ[name]
        for name, value in variables.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    def update(self, variables: Mapping[str, str]) -> None:
        """Apply what has changed in the sandbox's variables since the last time."""
        for name, value in variables.items():
            if self._applied.get(name) != value:
                os.environ[name] = value
        for name in self._applied.keys() - variables.keys():
            os.environ.pop(name, None)
        self._applied = dict(variables)

    @contextmanager
    def overlaid(self, variables: Mapping[str, str]) -> Generator[None]:
        """Set `variables` for the duration of one call; those that the program changes meanwhile stay."""
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if os.environ.get(name) == variables[name]:
                    _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def working_directory(path: str | None) -> Generator[None]:
    """Work in `path` for the duration of one call; with None nothing changes and the program's own choice stays.

    Raises:
        OSError: no such directory, or no permission.
    """
    if not path:
        yield
        return
    before = _current_directory()
    os.chdir(path)
    try:
        yield
    finally:
        if before is not None:
            try:
                os.chdir(before)
            except OSError:
                os.chdir("/")


def _current_directory() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None
