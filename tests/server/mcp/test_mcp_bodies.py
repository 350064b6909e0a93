"""What is held of bodies is bounded for each request, for each caller and together, and given back."""

import pytest
from starlette.types import Message, Receive

from cove.models.errors import CoveError
from cove.server.mcp.bodies import Bodies
from cove.server.mcp.bounds import MAX_BODY_BYTES

pytestmark = pytest.mark.anyio


def sent(*pieces: bytes, whole: bool = True) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if whole:
        messages[-1]["more_body"] = False
    else:
        messages.append({"type": "http.disconnect"})

    async def receive() -> Message:
        return messages.pop(0)

    return receive


async def refusal(bodies: Bodies, receive: Receive, owner: str = "ann") -> str:
    with pytest.raises(CoveError) as caught:
        async with bodies.read(receive, owner):
            pass
    return caught.value.code


async def test_a_body_is_put_together() -> None:
    async with Bodies().read(sent(b"a", b"", b"bc"), "ann") as body:
        assert body == b"abc"


async def test_each_is_bounded_and_given_back() -> None:
    bodies = Bodies(most_of_caller=MAX_BODY_BYTES + 10, most=MAX_BODY_BYTES + 10)
    piece = b"x" * (MAX_BODY_BYTES // 2)
    for _ in range(3):
        assert await refusal(bodies, sent(piece, piece, b"x")) == "REQUEST_TOO_LARGE"
        assert await refusal(bodies, sent(piece, whole=False)) == "INVALID_REQUEST"
        async with bodies.read(sent(piece, piece), "ann") as body:
            assert len(body) == MAX_BODY_BYTES


async def test_one_caller_cannot_take_all() -> None:
    bodies = Bodies(most_of_caller=10, most=15)
    async with bodies.read(sent(b"x" * 8), "ann"):
        assert await refusal(bodies, sent(b"x" * 8)) == "CAPACITY_EXHAUSTED"
        async with bodies.read(sent(b"x" * 6), "bob"):
            assert await refusal(bodies, sent(b"x" * 6), "eve") == "CAPACITY_EXHAUSTED"
        async with bodies.read(sent(b"x" * 2), "ann"):
            pass
    async with bodies.read(sent(b"x" * 10), "ann"):
        pass
