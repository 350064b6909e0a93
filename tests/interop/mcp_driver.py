"""Runs in the environment of `hopx-mcp`: an MCP client for that server, driven by lines of JSON.

Takes {"tool": name, "arguments": {...}} on standard input, and answers each with the tool's text on descriptor ANSWER.
The first line that it writes lists the tools and prompts.
"""

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

mcp: Any = importlib.import_module("mcp")
stdio: Any = importlib.import_module("mcp.client.stdio")


async def main() -> None:
    server = mcp.StdioServerParameters(command=str(Path(sys.executable).with_name("hopx-mcp")), env=dict(os.environ))
    async with stdio.stdio_client(server) as (reading, writing), mcp.ClientSession(reading, writing) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        prompts = [prompt.name for prompt in (await session.list_prompts()).prompts]
        answer({"tools": tools, "prompts": prompts})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            call = json.loads(line)
            result = await session.call_tool(call["tool"], call["arguments"])
            answer({"is_error": result.isError, "text": "".join(part.text for part in result.content)})


def answer(value: dict[str, Any]) -> None:
    os.write(int(os.environ["ANSWER"]), json.dumps(value).encode() + b"\n")


asyncio.run(main())
