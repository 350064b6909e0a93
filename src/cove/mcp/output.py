"""How much of what a program prints reaches the model: the head and the tail, with a mark between them that says
where the rest is."""

DEFAULT_CHARACTERS = 20_000
_HEAD_SHARE = 0.6


def shortened(text: str, limit: int, *, rest: str) -> str:
    """`text` in at most `limit` characters and a mark; `rest` says how to read what was left out."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD_SHARE)
    tail = limit - head
    left_out = len(text) - head - tail
    return (
        f"{text[:head]}\n[... {left_out} characters left out; {rest} ...]\n{text[len(text) - tail :] if tail else ''}"
    )
