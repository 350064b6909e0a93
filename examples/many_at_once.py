"""Several sandboxes at once: each candidate program is tried in a sandbox of its own.

cove serve --dev        # in another terminal
python examples/many_at_once.py
"""

import asyncio

from cove import AsyncSandbox
from cove.sdk import Execution

CANDIDATES = {
    "recursive": "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
    "iterative": "def fib(n):\n    a, b = 0, 1\n    for _ in range(n): a, b = b, a + b\n    return a",
    "wrong": "def fib(n): return n * n",
    "endless": "def fib(n):\n    while True: pass",
}
CHECK = "assert [fib(n) for n in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]; 'passed'"


async def tried(program: str) -> Execution:
    """What became of one candidate; two seconds are enough for a right one."""
    async with AsyncSandbox.create(timeout_seconds=60) as sandbox:
        await sandbox.run_code(program)
        return await sandbox.run_code(CHECK, timeout=2)


async def main() -> None:
    """Try all candidates at the same time."""
    results = await asyncio.gather(*(tried(program) for program in CANDIDATES.values()))
    for name, result in zip(CANDIDATES, results, strict=True):
        verdict = "too slow" if result.timed_out else "passed" if result.success else "failed"
        print(f"{name:10} {verdict}")


if __name__ == "__main__":
    asyncio.run(main())
