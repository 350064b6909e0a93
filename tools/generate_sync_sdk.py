"""Generate the blocking SDK, and its tests, from the asynchronous ones.

    python tools/generate_sync_sdk.py           write the files
    python tools/generate_sync_sdk.py --check   write nothing; exit 1 when a file is stale

The source is edited token by token, so comments and layout survive: `async` and `await` disappear, names are replaced
by those of `NAMES`, and a line that ends in `# async only` is left out. What really differs is written by hand, in
`primitives.py` and `dialing.py` of `cove/sdk/_async` and `cove/sdk/_sync`.
"""

import argparse
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INPUTS = {
    "src/cove/sdk/_async/agent.py": "src/cove/sdk/_sync/agent.py",
    "src/cove/sdk/_async/background.py": "src/cove/sdk/_sync/background.py",
    "src/cove/sdk/_async/cache.py": "src/cove/sdk/_sync/cache.py",
    "src/cove/sdk/_async/code.py": "src/cove/sdk/_sync/code.py",
    "src/cove/sdk/_async/commands.py": "src/cove/sdk/_sync/commands.py",
    "src/cove/sdk/_async/condition.py": "src/cove/sdk/_sync/condition.py",
    "src/cove/sdk/_async/control.py": "src/cove/sdk/_sync/control.py",
    "src/cove/sdk/_async/directories.py": "src/cove/sdk/_sync/directories.py",
    "src/cove/sdk/_async/environment.py": "src/cove/sdk/_sync/environment.py",
    "src/cove/sdk/_async/files.py": "src/cove/sdk/_sync/files.py",
    "src/cove/sdk/_async/network.py": "src/cove/sdk/_sync/network.py",
    "src/cove/sdk/_async/previews.py": "src/cove/sdk/_sync/previews.py",
    "src/cove/sdk/_async/processes.py": "src/cove/sdk/_sync/processes.py",
    "src/cove/sdk/_async/sandbox.py": "src/cove/sdk/_sync/sandbox.py",
    "src/cove/sdk/_async/secrets.py": "src/cove/sdk/_sync/secrets.py",
    "src/cove/sdk/_async/streaming.py": "src/cove/sdk/_sync/streaming.py",
    "src/cove/sdk/_async/terminal.py": "src/cove/sdk/_sync/terminal.py",
    "src/cove/sdk/_async/watching.py": "src/cove/sdk/_sync/watching.py",
    "src/cove/sdk/_async/websocket.py": "src/cove/sdk/_sync/websocket.py",
    "src/cove/sdk/_async/wire.py": "src/cove/sdk/_sync/wire.py",
    "tests/e2e/test_sdk_async_directories.py": "tests/e2e/test_sdk_sync_directories.py",
    "tests/e2e/test_sdk_async_execution.py": "tests/e2e/test_sdk_sync_execution.py",
    "tests/e2e/test_sdk_async_lifecycle.py": "tests/e2e/test_sdk_sync_lifecycle.py",
    "tests/e2e/test_sdk_async_network.py": "tests/e2e/test_sdk_sync_network.py",
    "tests/e2e/test_sdk_async_terminal.py": "tests/e2e/test_sdk_sync_terminal.py",
    "tests/e2e/test_sdk_async_webhooks.py": "tests/e2e/test_sdk_sync_webhooks.py",
    "tests/sdk/test_async_failures.py": "tests/sdk/test_sync_failures.py",
    "tests/sdk/test_async_files.py": "tests/sdk/test_sync_files.py",
    "tests/sdk/test_async_sandbox.py": "tests/sdk/test_sync_sandbox.py",
    "tests/sdk/test_async_streams.py": "tests/sdk/test_sync_streams.py",
    "tests/sdk/test_async_websockets.py": "tests/sdk/test_sync_websockets.py",
}

NAMES = {
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncAgentLink": "AgentLink",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncByteStream": "SyncByteStream",
    "AsyncCache": "Cache",
    "AsyncCode": "Code",
    "AsyncCommands": "Commands",
    "AsyncCondition": "Condition",
    "AsyncControlPlane": "ControlPlane",
    "AsyncEnvironment": "Environment",
    "AsyncExitStack": "ExitStack",
    "AsyncFiles": "Files",
    "AsyncGenerator": "Generator",
    "AsyncHTTPTransport": "HTTPTransport",
    "AsyncIterator": "Iterator",
    "AsyncNetwork": "Network",
    "AsyncProcess": "Process",
    "AsyncPreviews": "Previews",
    "AsyncSandbox": "Sandbox",
    "AsyncSandboxSecrets": "SandboxSecrets",
    "AsyncSocket": "Socket",
    "AsyncTerminal": "Terminal",
    "AsyncTerminalConnection": "TerminalConnection",
    "AsyncVault": "Vault",
    "AsyncWatch": "Watch",
    "AsyncWire": "Wire",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_async": "_sync",
    "aclose": "close",
    "aclosing": "closing",
    "aiter": "iter",
    "aiter_raw": "iter_raw",
    "anext": "next",
    "asynccontextmanager": "contextmanager",
    "enter_async_context": "enter_context",
    "handle_async_request": "handle_request",
}

HEADER = "# Generated from {source} by tools/generate_sync_sdk.py. Do not edit.\n\n"
# Names that are not used any more, and loops and blocks that only `async` made necessary.
TIDY = ["--select", "I,F401,UP028,C416,SIM117", "--fix", "--unsafe-fixes"]
DROPPED_LINE = "# async only"
_WORD = re.compile(r"\w+")


def to_sync(source: str) -> str:
    """The blocking form of an asynchronous module."""
    kept = "".join(line for line in source.splitlines(keepends=True) if not line.rstrip().endswith(DROPPED_LINE))
    lines = kept.splitlines(keepends=True)
    # From the end to the beginning, so that the positions of what is still to be edited stay true.
    for token in reversed([*tokenize.generate_tokens(io.StringIO(kept).readline)]):
        replacement = _replacement(token)
        if replacement is not None:
            _splice(lines, token, replacement)
    return "".join(lines)


def _replacement(token: tokenize.TokenInfo) -> str | None:
    if token.type == tokenize.NAME:
        return "" if token.string in ("async", "await") else NAMES.get(token.string)
    if token.type in (tokenize.STRING, tokenize.COMMENT):
        return _WORD.sub(lambda word: NAMES.get(word.group(), word.group()), token.string)
    return None


def _splice(lines: list[str], token: tokenize.TokenInfo, replacement: str) -> None:
    (first, start), (last, end) = token.start, token.end
    rest = lines[last - 1][end:]
    joined = lines[first - 1][:start] + replacement + (rest if replacement else rest.lstrip(" "))
    lines[first - 1 : last] = joined.splitlines(keepends=True)


def generate(source: str) -> str:
    """The formatted text of the file that is made from `source`, a path below the root."""
    text = HEADER.format(source=source) + to_sync((ROOT / source).read_text())
    tidied = _ruff(["check", *TIDY, "--exit-zero", "--quiet", "-"], text, INPUTS[source])
    return _ruff(["format", "-"], tidied, INPUTS[source])


def _ruff(arguments: list[str], text: str, name: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", name]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"ruff failed on {name}:\n{done.stderr}")
    return done.stdout


def main() -> int:
    """Write or check every file of `INPUTS`."""
    parser = argparse.ArgumentParser(description="Generate the blocking SDK from the asynchronous one.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    stale = 0
    for source, target in INPUTS.items():
        text = generate(source)
        path = ROOT / target
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        sys.stdout.write(f"{'stale' if check else 'written'}: {target}\n")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
