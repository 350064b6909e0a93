"""Pictures that a sandbox sent, as far as a client can be given them: whoever passes on what is no picture may end a
whole chat with it."""

import base64
import binascii

from cove.mcp.tool import Image

PICTURE_TYPES = ("image/png", "image/jpeg")
MAX_PICTURES = 10
MAX_PICTURE_CHARACTERS = 5 * 1024 * 1024
"""Of base64, all pictures of an answer together."""
_MAX_SIDE = 8000
"""Pixels; models refuse more."""

_BEGINNINGS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_PNG_HEAD = 24


class PictureShelf:
    """Takes pictures until there are enough."""

    def __init__(self) -> None:
        self._taken: list[Image] = []
        self._left = MAX_PICTURE_CHARACTERS

    @property
    def taken(self) -> tuple[Image, ...]:
        """In the order in which they came."""
        return tuple(self._taken)

    def take(self, mime_type: str, data: object) -> str | None:
        """Take a picture; returns why it was left out, for the model, or None."""
        text = "".join(data.split()) if isinstance(data, str) and len(data) <= 2 * MAX_PICTURE_CHARACTERS else ""
        problem = self._problem(mime_type, text)
        if problem is None:
            self._taken.append(Image(text, mime_type))
            self._left -= len(text)
        return problem

    def _problem(self, mime_type: str, text: str) -> str | None:
        if len(self._taken) >= MAX_PICTURES:
            return f"more than {MAX_PICTURES} pictures; save the others to files"
        if not text or len(text) > self._left:
            return f"more than {MAX_PICTURE_CHARACTERS // 2**20} MB of pictures; make it smaller or save it to a file"
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            return "it is not base64"
        if not raw.startswith(_BEGINNINGS[mime_type]):
            return f"it is not {mime_type}"
        if mime_type == "image/png" and max(_png_sides(raw)) > _MAX_SIDE:
            return f"more than {_MAX_SIDE} pixels wide or high; make it smaller"
        return None


def _png_sides(raw: bytes) -> tuple[int, int]:
    """Width and height (PNG specification, 11.2.1: IHDR comes first)."""
    head = raw[:_PNG_HEAD].ljust(_PNG_HEAD, b"\xff")
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
