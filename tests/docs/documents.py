"""The project's documents, and what is in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]))

_FENCE = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_HEADING = re.compile(r"^#+ +(.+)$", re.M)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a document.

    Attributes:
        why_not_run: the reason that the document gives for not running it; empty for those that are run.
    """

    document: Path
    line: int
    language: str
    text: str
    why_not_run: str

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(document: Path, language: str) -> list[Block]:
    """The blocks of one language."""
    text = document.read_text(encoding="utf-8")
    found = [
        Block(document, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], match["why"] or "")
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if block.language == language]


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def links(document: Path) -> list[str]:
    """Targets of all links."""
    return _LINK.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """What `#...` may name, as GitHub makes it of headings."""
    kept = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in _HEADING.findall(prose(document)))
    return {heading.replace(" ", "-") for heading in kept}
