"""Runs in the environment of PyPI's `microsandbox` 0.1.8: its classes, driven by lines of JSON.

Takes {"do": what, "sandbox": a name for this program, ...} on standard input, and answers each line on the descriptor
ANSWER: {"value": ...}, or {"raised": class, "text": ...}.
"""

import asyncio
import contextlib
import importlib
import json
import os
import sys
from typing import Any, Dict  # noqa: UP035 - the client runs on Pythons that know no other

microsandbox: Any = importlib.import_module("microsandbox")


class Driver:
    def __init__(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.sandboxes: Dict[str, Any] = {}  # noqa: UP006

    async def do(self, order: Dict[str, Any]) -> Any:  # noqa: UP006
        """One order."""
        what, key = order.pop("do"), order.pop("sandbox")
        if what == "create":
            opened = getattr(microsandbox, order.pop("kind")).create(**order)
            self.sandboxes[key] = await self.stack.enter_async_context(opened)
            return None
        sandbox = self.sandboxes[key]
        if what == "start":
            return await sandbox.start(**order)
        if what == "run":
            return await described(await sandbox.run(order["code"]))
        if what == "command":
            ran = await sandbox.command.run(order["command"], order.get("args"), order.get("timeout"))
            return {"exit_code": ran.exit_code, "success": ran.success, **await texts(ran)}
        if what == "metrics":
            figures = sandbox.metrics
            running, cpu = await figures.is_running(), await figures.cpu()
            return {"running": running, "cpu": cpu, "memory": await figures.memory(), "disk": await figures.disk()}
        return await getattr(sandbox, what)()


async def described(ran: Any) -> Dict[str, Any]:  # noqa: UP006
    return {"status": ran.status, "language": ran.language, "has_error": ran.has_error(), **await texts(ran)}


async def texts(ran: Any) -> Dict[str, str]:  # noqa: UP006
    return {"output": await ran.output(), "error": await ran.error()}


async def main() -> None:
    driver, loop = Driver(), asyncio.get_running_loop()
    async with driver.stack:
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                return
            try:
                answer({"value": await driver.do(json.loads(line))})
            except Exception as raised:
                answer({"raised": type(raised).__name__, "text": str(raised)})


def answer(value: Dict[str, Any]) -> None:  # noqa: UP006
    os.write(int(os.environ["ANSWER"]), json.dumps(value).encode() + b"\n")


asyncio.run(main())
