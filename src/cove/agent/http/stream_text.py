"""A stream of bytes as text, while it comes."""

import codecs


class StreamText:
    """One stream as text, however its bytes are cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes."""
        text = self._decoder.decode(piece)
        self._characters += len(text)
        return text

    def missing_of(self, whole: str) -> str:
        """What of `whole` was not said yet."""
        return whole[self._characters :]
