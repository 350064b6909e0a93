"""What a build says, bounded."""

from collections.abc import Iterator

MAX_CHARACTERS = 1024 * 1024
_MAX_OUTPUT = 64 * 1024
_CUT = "[the log is full: what follows is left out]\n"


class BuildLog:
    """Text that only grows, up to `MAX_CHARACTERS`."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def say(self, line: str) -> None:
        """One line of the builder's own."""
        self._add(line + "\n")

    def output(self, text: str) -> None:
        """What a step printed: its end, where errors are, if it is long."""
        if len(text) > _MAX_OUTPUT:
            text = f"[{len(text) - _MAX_OUTPUT} characters left out]\n{text[-_MAX_OUTPUT:]}"
        if text:
            self._add(text if text.endswith("\n") else text + "\n")

    def _add(self, text: str) -> None:
        for part in self._fitting(text):
            self._parts.append(part)
            self._size += len(part)

    def _fitting(self, text: str) -> Iterator[str]:
        room = MAX_CHARACTERS - self._size
        if len(text) <= room:
            yield text
        elif room > 0:
            yield text[: max(0, room - len(_CUT))]
            yield _CUT
