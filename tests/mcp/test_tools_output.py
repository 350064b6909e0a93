"""Long output: what a model sees of it, and how it gets the rest."""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from mcp import Client
from tests.mcp.battery import answer_of
from tests.mcp.conftest import Connect

from cove.mcp.output import Printed, printed, shortened
from cove.models.execution import ExecutionResult

pytestmark = pytest.mark.anyio

MARK = re.compile(
    r"\[\.\.\. (?P<left_out>\d+) of (?P<total>\d+) bytes left out; "
    r"read on with file_read\(sandbox_id='(?P<id>\w+)', path='(?P<path>[^']+)', offset=(?P<offset>\d+)\) \.\.\.\]\n"
)
LINES = "for number in range(20000): print('line', number)"
WHOLE = "".join(f"line {number}\n" for number in range(20000))
CAP = 20_000


async def read_to_the_end(client: Client, sandbox_id: str, path: str, offset: int) -> str:
    text = ""
    while True:
        part = await answer_of(client, "file_read", sandbox_id=sandbox_id, path=path, offset=offset, limit=100_000)
        assert part["encoding"] == "utf-8"
        text += part["content"]
        if "next_offset" not in part:
            return text
        offset = part["next_offset"]


def ignore(progress: float, total: float | None, message: str | None) -> Any:
    """A client that asked for progress and does not look at it."""

    async def nothing() -> None:
        return None

    return nothing()


@pytest.mark.parametrize(
    ("tool", "program"),
    [
        ("execute_code_persistent", {"code": LINES}),
        ("execute_code_rich", {"code": LINES}),
        ("run_command", {"command": "seq -f 'line %.0f' 0 19999"}),
        ("run_command", {"command": "seq -f 'line %.0f' 0 19999 >&2"}),
    ],
)
@pytest.mark.parametrize("watched", [False, True], ids=["waited for", "watched"])
async def test_the_mark_leads_to_the_rest(
    connect: Connect, sandbox_id: str, tool: str, program: dict[str, str], watched: bool
) -> None:
    async with connect(mode="legacy") as client:
        arguments = {"sandbox_id": sandbox_id, **program}
        result = await client.call_tool(tool, arguments, progress_callback=ignore if watched else None)
        ran = result.structured_content
        assert ran is not None
        text = ran["stderr" if ">&2" in str(program) else "stdout"]
        found = MARK.search(text)
        assert found, text[:200]
        head, tail = text[: found.start()], text[found.end() :]
        rest = await read_to_the_end(client, found["id"], found["path"], int(found["offset"]))
    assert head + rest == WHOLE
    assert WHOLE.endswith(tail)
    assert tail.startswith("line "), "the tail begins with a whole line"
    assert 0.9 * CAP < len(head) + len(tail) <= CAP
    assert int(found["left_out"]) == len(WHOLE) - len(head) - len(tail)
    assert int(found["total"]) == len(WHOLE)


async def test_output_of_exactly_the_cap_is_whole(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        for code in (f"print('x' * {CAP - 1})", f"print('ä' * {CAP - 1})", f"print('\\U0001f600' * {CAP - 1})"):
            ran = await answer_of(client, "execute_code_persistent", sandbox_id=sandbox_id, code=code)
            assert len(ran["stdout"]) == CAP
            assert "left out" not in ran["stdout"]
        ran = await answer_of(client, "execute_code_persistent", sandbox_id=sandbox_id, code=f"print('x' * {CAP})")
    assert "1 of 20001 bytes left out" in ran["stdout"]


async def test_cuts_go_between_characters(connect: Connect, sandbox_id: str) -> None:
    code = "print('\\U0001f600ä' * 60000, end='')"
    async with connect() as client:
        ran = await answer_of(client, "execute_code_persistent", sandbox_id=sandbox_id, code=code)
        found = MARK.search(ran["stdout"])
        assert found
        rest = await read_to_the_end(client, sandbox_id, found["path"], int(found["offset"]))
    head = ran["stdout"][: found.start() - 1]
    assert "\ufffd" not in ran["stdout"]
    assert head + rest == "\U0001f600ä" * 60000


@pytest.mark.parametrize("cap", [100, 1000, 200_000])
async def test_the_cap_is_settable_for_each_call(connect: Connect, sandbox_id: str, cap: int) -> None:
    async with connect() as client:
        ran = await answer_of(
            client,
            "run_command",
            sandbox_id=sandbox_id,
            command="head -c 1000000 /dev/zero | tr '\\0' Z",
            max_output_chars=cap,
        )
    assert ran["stdout"].count("Z") == cap
    assert "1000000 bytes left out" in ran["stdout"]


async def test_of_a_sandbox_that_is_gone_the_mark_says_what_else_to_do(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code=LINES, max_output_chars=500)
    assert ran["stdout"].startswith("line 0\n")
    assert ran["stdout"].endswith("line 19999\n")
    assert "the sandbox is gone" in ran["stdout"]
    assert "max_output_chars" in ran["stdout"]
    assert "file_read" not in ran["stdout"]


async def test_what_the_platform_says_is_never_cut(connect: Connect, sandbox_id: str) -> None:
    code = "import sys, time\nprint('e' * 90000, file=sys.stderr, flush=True)\ntime.sleep(60)"
    async with connect() as client:
        ran = await answer_of(
            client, "execute_code_persistent", sandbox_id=sandbox_id, code=code, timeout=1, max_output_chars=100
        )
    assert ran["stderr"].endswith("timeout: ended after 1 s\n")
    assert ran["exit_code"] == 124


async def test_a_program_that_removes_its_output_gets_its_head(connect: Connect, sandbox_id: str) -> None:
    command = "seq 100000; rm -rf /tmp/.cove/output"
    async with connect() as client:
        ran = await answer_of(client, "run_command", sandbox_id=sandbox_id, command=command)
    assert ran["stdout"].startswith("1\n2\n")
    assert "bytes left out" in ran["stdout"]


async def test_bytes_that_are_no_text_do_not_break_the_answer(connect: Connect, sandbox_id: str) -> None:
    command = r"printf '\xff\xfe\0\033[31mred\xed\xa0\x80'; head -c 50000 /dev/urandom"
    async with connect(mode="legacy") as client:
        ran = await answer_of(client, "run_command", sandbox_id=sandbox_id, command=command)
        surrogate = await answer_of(
            client, "execute_code_persistent", sandbox_id=sandbox_id, code="print('\\ud800 left')\nprint('on')"
        )
    assert "\0\x1b[31mred" in ran["stdout"]
    assert surrogate["stdout"].endswith("on\n") or "surrogates" in surrogate["stderr"]


async def test_output_of_background_programs(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        started = await answer_of(client, "execute_code_background", sandbox_id=sandbox_id, code=LINES)
        one: dict[str, Any] = {"status": "running"}
        while one["status"] == "running":
            listing = await answer_of(
                client, "execute_list_processes", sandbox_id=sandbox_id, process_id=started["process_id"]
            )
            (one,) = listing["processes"]
        everything = await answer_of(client, "execute_list_processes", sandbox_id=sandbox_id)
    assert one["exit_code"] == 0
    assert one["stdout"].startswith("line 0\n")
    assert one["stdout"].endswith("line 19999\n")
    assert "left out" in one["stdout"]
    assert len(everything["processes"][0]["stdout"]) < 700


def _result(text: str, file: str | None = "/tmp/x") -> ExecutionResult:
    return ExecutionResult(stdout=text, stdout_truncated=True, stdout_file=file)


@pytest.mark.parametrize(
    ("text", "file", "expected"),
    [
        (
            "abc\n[stdout truncated: the first 3 of 900 bytes shown; more in /tmp/x]\n",
            "/tmp/x",
            Printed("abc", "", 900, "/tmp/x"),
        ),
        (
            "[stdout truncated: the first\n[stdout truncated: the first 3 of 900 bytes shown; x]\nnote\n",
            "relative",
            Printed("[stdout truncated: the first", "note\n", 900, None),
        ),
        ("no mark", "/tmp/x", Printed("no mark")),
        ("a\n[stdout truncated: the first lie]\n", "/tmp/\n", Printed("a", "", 0, None)),
    ],
)
def test_the_mark_of_the_agent_is_taken_off(text: str, file: str, expected: Printed) -> None:
    assert printed(_result(text, file), "stdout") == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_shortened_keeps_head_and_tail(limit: int) -> None:
    text = "0123456789ABCDEF"
    short = shortened(text, limit, rest="look there")
    assert len(short.replace(short[short.index("\n") : short.rindex("\n") + 1], "")) == limit
    assert short.endswith("F")
    assert "look there" in short
    assert shortened(text, 16, rest="") == text


Part = Callable[..., Any]


@pytest.mark.parametrize(
    ("content", "offset", "limit", "expected"),
    [
        ("résults", 0, 2, ("rés", "utf-8", None, 4)),
        ("résults", 0, 8, ("résults", "utf-8", None, None)),
        ("résults", 2, 3, ("sult", "utf-8", 3, 7)),
        ("résults", 1, 100, ("ésults", "utf-8", None, None)),
        ("résults", 8, 100, ("", "utf-8", None, None)),
        ("\U0001f600" * 3, 0, 6, ("\U0001f600", "utf-8", None, 4)),
        ("\U0001f600" * 3, 5, 1, ("\U0001f600", "utf-8", 8, None)),
        (b"\xff" * 9, 0, 8, (base64.b64encode(b"\xff" * 6).decode(), "base64", None, 6)),
        (b"a\0b", 0, 100, (base64.b64encode(b"a\0b").decode(), "base64", None, None)),
    ],
)
async def test_parts_of_files(
    connect: Connect, sandbox_id: str, content: str | bytes, offset: int, limit: int, expected: tuple[Any, ...]
) -> None:
    data = content.encode() if isinstance(content, str) else content
    async with connect() as client:
        encoded = base64.b64encode(data).decode()
        command = f"echo {encoded} | base64 -d > /tmp/part"
        assert (await answer_of(client, "run_command", sandbox_id=sandbox_id, command=command))["exit_code"] == 0
        part = await answer_of(client, "file_read", sandbox_id=sandbox_id, path="/tmp/part", offset=offset, limit=limit)
    assert (part["content"], part["encoding"], part.get("offset"), part.get("next_offset")) == expected
    assert part["size"] == len(data)


async def test_a_file_is_read_in_parts_by_default(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        await answer_of(client, "file_write", sandbox_id=sandbox_id, path="/tmp/long", content="x" * 50_001)
        first = await answer_of(client, "file_read", sandbox_id=sandbox_id, path="/tmp/long")
        whole = await read_to_the_end(client, sandbox_id, "/tmp/long", 0)
        endless = await answer_of(client, "file_read", sandbox_id=sandbox_id, path="/proc/self/status", limit=10)
    assert (len(first["content"]), first["next_offset"], first["size"]) == (CAP, CAP, 50_001)
    assert whole == "x" * 50_001
    assert endless["next_offset"] == 10


async def test_long_directories_come_in_parts(connect: Connect, sandbox_id: str) -> None:
    names: list[str] = []
    async with connect() as client:
        command = "mkdir -p /tmp/many && cd /tmp/many && seq -w 1 1200 | xargs touch"
        await answer_of(client, "run_command", sandbox_id=sandbox_id, command=command)
        offset = 0
        while True:
            part = await answer_of(client, "file_list", sandbox_id=sandbox_id, path="/tmp/many", offset=offset)
            assert part["total_files"] == 1200
            assert part["count"] == len(part["files"])
            assert part["truncated"] is ("next_offset" in part)
            assert len(str(part)) < 45_000
            names += [entry["name"] for entry in part["files"]]
            if not part["truncated"]:
                break
            offset = part["next_offset"]
        few = await answer_of(client, "file_list", sandbox_id=sandbox_id, path="/tmp/many", max_results=3)
    assert names == [f"{number:04}" for number in range(1, 1201)]
    assert (few["count"], few["truncated"], few["total_files"], few["next_offset"]) == (3, True, 1200, 3)
