"""What a build says, bounded."""

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
        room = MAX_CHARACTERS - len(_CUT) - self._size
        if room < 0:
            return
        if len(text) > room:
            text = text[:room] + _CUT
        self._parts.append(text)
        self._size += len(text)
