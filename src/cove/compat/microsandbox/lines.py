"""Output as microsandbox's clients read it: a list of lines, each with the stream that it came from, in their order."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_HEAD_SHARE = 0.6


class OutputLine(BaseModel):
    """One line, without its end."""

    model_config = ConfigDict(frozen=True)

    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A line, or where a line was cut a part of it. `order` is its place among those of both streams."""

    order: int
    text: str
    goes_on: bool = False


@dataclass(slots=True)
class _Kept:
    """What is kept of one stream: its head, and as much of its tail. Whatever comes, this is bounded."""

    head_room: int
    tail_room: int
    line_cost: int
    unfinished: list[str] = field(default_factory=list[str])
    unfinished_size: int = 0
    head: list[_Part] = field(default_factory=list[_Part])
    tail: deque[_Part] = field(default_factory=deque[_Part])
    tail_size: int = 0
    left_out: int = 0

    def add(self, order: int, text: str) -> None:
        """A finished line."""
        cost = len(text) + self.line_cost
        if not self.tail and cost <= self.head_room:
            self.head.append(_Part(order, text))
            self.head_room -= cost
            return
        if not self.tail and self.head_room > self.line_cost:
            cut = self.head_room - self.line_cost
            self.head.append(_Part(order, text[:cut], goes_on=True))
            text = text[cut:]
        self.head_room = 0
        self.tail.append(_Part(order, text))
        self.tail_size += len(text) + self.line_cost
        while self.tail_size > self.tail_room:
            self._drop()

    def _drop(self) -> None:
        first = self.tail.popleft()
        over = self.tail_size - self.tail_room
        self.tail_size -= len(first.text) + self.line_cost
        if over < len(first.text):
            self.tail.appendleft(_Part(first.order, first.text[over:]))
            self.tail_size += len(first.text) - over + self.line_cost
            self.left_out += over
        else:
            self.left_out += len(first.text) + 1

    @property
    def parts(self) -> list[_Part]:
        """All that is kept, with a mark where something is missing."""
        if self.left_out:
            order = self.tail[0].order if self.tail else self.head[-1].order
            return [*self.head, _Part(order, f"[... {self.left_out} characters left out ...]"), *self.tail]
        if self.tail and self.head and self.head[-1].goes_on:
            whole = _Part(self.tail[0].order, self.head[-1].text + self.tail[0].text)
            return [*self.head[:-1], whole, *list(self.tail)[1:]]
        return [*self.head, *self.tail]


class Transcript:
    """Collects what a program prints."""

    def __init__(self, *, limit: int, lines: int) -> None:
        """Of each stream `limit` characters are kept, and `lines` lines at most, even if all of them are empty: head
        and tail, and of what is between them the number of characters."""
        head, cost = int(limit * _HEAD_SHARE), max(1, limit // lines)
        self._limit = limit
        self._order = 0
        self._streams: dict[Stream, _Kept] = {stream: _Kept(head, limit - head, cost) for stream in STREAMS}

    def take(self, stream: str, text: str) -> None:
        """The next piece of a stream."""
        kept = self._streams[cast(Stream, stream)]
        first, *others = text.split("\n")
        self._go_on(kept, first)
        for line in others:
            self._finish(kept)
            self._go_on(kept, line)

    def take_line(self, stream: Stream, text: str) -> None:
        """A line of its own, which ends an unfinished one."""
        kept = self._streams[stream]
        if kept.unfinished:
            self._finish(kept)
        self.take(stream, text + "\n")

    def lines(self) -> list[OutputLine]:
        """All of it, in the order in which the lines were finished. Ends the collecting."""
        for stream in STREAMS:
            kept = self._streams[stream]
            if kept.unfinished:
                self._finish(kept)
        found = [
            (part.order, number, OutputLine(stream=stream, text=part.text))
            for stream, kept in self._streams.items()
            for number, part in enumerate(kept.parts)
        ]
        found.sort(key=lambda entry: entry[:2])
        return [line for _, _, line in found]

    def _go_on(self, kept: _Kept, text: str) -> None:
        if not text:
            return
        kept.unfinished.append(text)
        kept.unfinished_size += len(text)
        if kept.unfinished_size > self._limit:
            # So long a line is not kept whole in any case.
            self._finish(kept)

    def _finish(self, kept: _Kept) -> None:
        line = "".join(kept.unfinished).removesuffix("\r")
        kept.unfinished.clear()
        kept.unfinished_size = 0
        self._order += 1
        kept.add(self._order, line)
