"""Running code that shows more than text: plots as pictures, tables as data (contract section 5)."""

import json
from functools import partial
from typing import Any, cast

from cove.mcp.output import shortened
from cove.mcp.pictures import PICTURE_TYPES, PictureShelf
from cove.mcp.tool import Answer, AnyTool, Call, Effect, Image, Tool
from cove.mcp.tools.hopx_arguments import (
    OUTPUT_CHARACTERS,
    Code,
    InSandbox,
    Language,
    OutputCharacters,
    Variables,
    WaitedSeconds,
)
from cove.mcp.tools.hopx_reaching import answered
from cove.mcp.tools.hopx_running import ProgramResult, described, run_watched
from cove.models.execution import ExecutionResult, RichOutput
from cove.sdk import AsyncSandbox

TABLE_TYPE = "application/vnd.dataframe+json"
_TEXT_CHARACTERS = 20_000
"""Of one displayed object."""
_ALL_CHARACTERS = 60_000
_RICHEST_FIRST = (
    TABLE_TYPE,
    *PICTURE_TYPES,
    "image/svg+xml",
    "text/html",
    "text/markdown",
    "text/latex",
    "application/json",
)
_FORMATS = {TABLE_TYPE: "dataframe", "image/svg+xml": "svg", "image/jpeg": "jpeg"}


class RichArguments(InSandbox):
    """Of `execute_code_rich`."""

    code: Code
    language: Language = "python"
    timeout: WaitedSeconds = 30
    working_dir: str = "/tmp"
    env: Variables | None = None
    capture_rich: bool = True
    max_output_chars: OutputCharacters = OUTPUT_CHARACTERS


class RichResult(ProgramResult):
    """Of `execute_code_rich`."""

    mode: str = "rich"
    rich_outputs: list[dict[str, Any]]


async def execute_code_rich(call: Call, arguments: RichArguments) -> Answer:
    """Run, and show what it displayed."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        start = partial(
            sandbox.run_code,
            arguments.code,
            language=arguments.language,
            timeout=arguments.timeout,
            env=arguments.env,
            working_dir=arguments.working_dir or None,
        )
        characters = arguments.max_output_chars
        result = await run_watched(
            call, start, what=arguments.language, timeout=arguments.timeout, characters=characters
        )
        fields = await described(result, sandbox, timeout=arguments.timeout, characters=characters)
        outputs, images = displayed(result)
        return Answer(RichResult(rich_outputs=outputs, **fields), images=images)

    return await answered(call, arguments.sandbox_id, use)


def displayed(result: ExecutionResult) -> tuple[list[dict[str, Any]], tuple[Image, ...]]:
    """What the program displayed: descriptions of all of it, and the pictures. What is too long says so."""
    shelf = PictureShelf()
    outputs: list[dict[str, Any]] = []
    left = _ALL_CHARACTERS
    for output in result.rich_outputs:
        row = _described(output, shelf, min(_TEXT_CHARACTERS, left))
        left = max(left - len(json.dumps(row)), 0)
        outputs.append(row)
    return outputs, shelf.taken


def _described(output: RichOutput, shelf: PictureShelf, characters: int) -> dict[str, Any]:
    kind = next((name for name in _RICHEST_FIRST if name in output.data), output.type[:100])
    row: dict[str, Any] = {"type": kind, "format": _FORMATS.get(kind, kind.rpartition("/")[2])}
    data: object = output.data.get(kind)
    if kind in PICTURE_TYPES:
        problem = shelf.take(kind, data)
        return {**row, "note": f"left out: {problem}"} if problem else {**row, "image": len(shelf.taken)}
    if kind == TABLE_TYPE and isinstance(data, dict):
        return {**row, **_table(cast("dict[str, Any]", data), characters)}
    return {**row, **_text(data, characters)}


def _table(table: dict[str, Any], characters: int) -> dict[str, Any]:
    """As many rows as fit, said where they are not all."""
    rows, index = _list(table.get("data")), _list(table.get("index"))
    shape = [number for number in _list(table.get("shape")) if isinstance(number, int)][:2]
    total = shape[0] if shape else len(rows)
    columns = {"columns": _list(table.get("columns")), "dtypes": _list(table.get("dtypes"))}
    kept, size = 0, len(json.dumps(columns))
    for row in rows:
        size += len(json.dumps(row)) + 20
        if size > characters:
            break
        kept += 1
    if size > characters and kept == 0:
        return {"note": f"left out: a table of shape {shape} with too long rows; print a part of it"}
    data = {**columns, "index": index[:kept], "data": rows[:kept], "shape": shape}
    note = {} if kept >= total else {"note": f"the first {kept} of {total} rows; print or select what you need"}
    return {"data": data, **note}


def _text(data: object, characters: int) -> dict[str, Any]:
    text = data if isinstance(data, str) else json.dumps(data)
    if len(text) <= characters:
        return {"data": data}
    if characters < _TEXT_CHARACTERS // 10:
        return {"note": f"left out: {len(text)} characters, after too many others"}
    return {"data": shortened(text, characters, rest="save it to a file to see all")}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="execute_code_rich",
        title="Run code, show plots",
        description="As execute_code_persistent; also returns matplotlib plots as images and DataFrames as data.",
        arguments=RichArguments,
        result=RichResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=execute_code_rich,
    ),
)
