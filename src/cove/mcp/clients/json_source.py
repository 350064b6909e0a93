"""JSON with comments and trailing commas, read so that every value knows where it stands in the text.

The files belong to the user: an edit replaces some characters of the text, and all others stay as they are.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 200

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<scalar>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|true\b|false\b|null\b)
      | (?P<mark>[{}\[\]:,])""",
    re.DOTALL | re.VERBOSE,
)


class NotJsonError(Exception):
    """The text is no JSON. `line` and `column` count from 1."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.line = text.count("\n", 0, position) + 1
        self.column = position - (text.rfind("\n", 0, position) + 1) + 1
        super().__init__(f"line {self.line}, column {self.column}: {message}")


@dataclass(slots=True)
class Node:
    """A value and its place: `text[start:end]`.

    Attributes:
        members: of an object, with the nodes of their values; of a key that stands twice the last, as clients take it.
        keys: where the key of each member starts.
        items: of an array.
        last: the end of the last member or item, or of what opens an empty object or array.
        comma: a comma follows the last one.
    """

    start: int
    end: int = 0
    value: Any = None
    members: dict[str, "Node"] = field(default_factory=dict[str, "Node"])
    keys: dict[str, int] = field(default_factory=dict[str, int])
    items: "list[Node]" = field(default_factory=list["Node"])
    last: int = 0
    comma: bool = False


def read(text: str) -> Node:
    """The value that `text` holds.

    Raises:
        NotJsonError: it holds none, or something beside it.
    """
    reader = _Reader(text)
    node = reader.value(0)
    if reader.kind != "end":
        reader.fail("something follows the end of the value")
    return node


class _Reader:
    """Reads one token ahead: `kind`, `word`, `at`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self._step()

    def value(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self.fail("nested too deeply")
        node = Node(self.at)
        if self.word == "{":
            self._object(node, depth)
        elif self.word == "[":
            self._array(node, depth)
        elif self.kind in ("string", "scalar"):
            node.value = self._scalar()
        else:
            self.fail("a value is missing here")
        node.end = self._done
        return node

    def fail(self, message: str) -> NoReturn:
        raise NotJsonError(message, self._text, self.at)

    def _object(self, node: Node, depth: int) -> None:
        self._open(node)
        while self.word != "}":
            if self.kind != "string":
                self.fail("the name of a member, in double quotes, is missing here")
            start, key = self.at, self._scalar()
            if self.word != ":":
                self.fail("a colon is missing here")
            self._step()
            node.members[key] = self.value(depth + 1)
            node.keys[key] = start
            self._separate(node, "}")
        self._step()
        node.value = {key: member.value for key, member in node.members.items()}

    def _array(self, node: Node, depth: int) -> None:
        self._open(node)
        while self.word != "]":
            node.items.append(self.value(depth + 1))
            self._separate(node, "]")
        self._step()
        node.value = [item.value for item in node.items]

    def _open(self, node: Node) -> None:
        self._step()
        node.last = self._done

    def _separate(self, node: Node, closing: str) -> None:
        node.last, node.comma = self._done, self.word == ","
        if node.comma:
            self._step()
        elif self.word != closing:
            self.fail(f"a comma or {closing} is missing here")

    def _scalar(self) -> Any:
        try:
            found = json.loads(self.word)
        except ValueError as problem:
            self.fail(str(problem))
        self._step()
        return found

    def _step(self) -> None:
        """On to the next token; `_done` is the end of the one that was left."""
        self._done = self._next
        while True:
            self.at = self._next
            if self.at == len(self._text):
                self.kind, self.word = "end", ""
                return
            match = _TOKEN.match(self._text, self.at)
            if match is None:
                self.fail("this is not JSON")
            self._next = match.end()
            if match.lastgroup != "space":
                self.kind, self.word = str(match.lastgroup), match[0]
                return


def has_comments(text: str) -> bool:
    """Whether there is a comment in the piece of JSON that `text` is."""
    spaces = (match[0] for match in _TOKEN.finditer(text) if match.lastgroup == "space")
    return any(space.startswith("/") for space in spaces)
