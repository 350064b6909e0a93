"""Directories below a directory, reached component by component without following a single symbolic link."""

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class EscapingName(Exception):
    """A name that does not stay below its directory."""


class Beneath:
    """The tree below one directory. The last directory that was used stays open: names come in groups."""

    def __init__(self, top: str) -> None:
        """Raises: OSError, when `top` is not a directory. Links in `top` itself are followed."""
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._current: tuple[str, ...] = ()
        self._descriptor = self._top

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._top)

    def directory(self, parts: tuple[str, ...], *, create: bool = False) -> int:
        """A descriptor of the directory `parts` below the top, good until the next call.

        Args:
            create: make directories that are missing, with mode 0755.

        Raises:
            OSError: ENOTDIR or ELOOP when a component is a link or a file; whatever else the kernel says.
        """
        if parts == self._current:
            return self._descriptor
        self._leave()
        descriptor = self._top
        try:
            for part in parts:
                inner = _opened(part, descriptor, create=create)
                if descriptor != self._top:
                    os.close(descriptor)
                descriptor = inner
        except BaseException:
            if descriptor != self._top:
                os.close(descriptor)
            raise
        self._current, self._descriptor = parts, descriptor
        return descriptor

    def _leave(self) -> None:
        if self._descriptor != self._top:
            os.close(self._descriptor)
        self._current, self._descriptor = (), self._top


def parts_of(name: str) -> tuple[str, ...]:
    """The components of a relative name; `.` and empty ones are dropped.

    Raises:
        EscapingName: it is absolute or has a component `..`.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise EscapingName
    return parts


def check_link(parts: tuple[str, ...], target: str) -> None:
    """See that the symbolic link at `parts` leads nowhere but below the top.

    Where `..` comes after a name, that name may be a link to somewhere else: `..` is accepted in front only.

    Raises:
        EscapingName: it might lead elsewhere.
    """
    steps = [step for step in target.split("/") if step not in ("", ".")]
    upwards = next((index for index, step in enumerate(steps) if step != ".."), len(steps))
    if not target or target.startswith("/") or ".." in steps[upwards:] or upwards >= max(len(parts), 1):
        raise EscapingName


def _opened(name: str, directory: int, *, create: bool) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # made by a program of the sandbox meanwhile
        os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _OPEN, dir_fd=directory)
