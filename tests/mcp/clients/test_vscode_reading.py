"""The reader that VS Code itself uses for its configuration files agrees with ours."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cove.mcp.clients.entries import Wanted, addition
from cove.mcp.clients.json_edit import with_item, with_server
from cove.mcp.clients.json_source import NotJsonError, read
from cove.mcp.clients.programs import Program
from cove.mcp.clients.table import CLIENTS, ClientName

READER = Path(__file__).parents[3] / ".venv" / "clients" / "mcpb" / "node_modules" / "jsonc-parser"
PROGRAM = """
const { parse } = require(process.argv[1]);
const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(texts.map(text => {
  const errors = [];
  const value = parse(text, errors, { allowTrailingComma: true });
  return errors.length ? null : [value];
})));
"""
VALID = (
    "{}",
    "// a\n{ /* b */ }\n// c",
    '{\n\t"servers": { "a": 1, /* b */ }, // c\n\t"inputs": [\n\t], }',
    '{"inputs": [{"id": "x"}, ], "s": "//\\"/*", "n": -1.5e-3}\r\n',
    '{\r\n  "servers": {}\r\n}\r\n',
)
BROKEN = ("", '{"a" 1}', '{"a": 1 "b": 2}', "{'a': 1}", '{"a": tru}', "{} {}", "{", "[1,,2]")


@pytest.fixture(scope="module")
def read_by_vscode() -> Any:
    """What its reader makes of texts; None for those that it finds broken."""
    node = shutil.which("node")
    if node is None or not READER.exists():
        pytest.skip("VS Code's reader is not installed: run scripts/interop-clients with npm on PATH")

    def run(texts: list[str]) -> list[list[Any] | None]:
        done = subprocess.run(
            [node, "-e", PROGRAM, str(READER)],
            input=json.dumps(texts).encode(),
            capture_output=True,
            timeout=30,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def test_both_read_the_same(read_by_vscode: Any) -> None:
    found = read_by_vscode([*VALID, *BROKEN])
    assert found == [*([read(text).value] for text in VALID), *(None for _ in BROKEN)]
    for text in BROKEN:
        with pytest.raises(NotJsonError):
            read(text)


def test_what_is_written_is_read(read_by_vscode: Any) -> None:
    made = addition(CLIENTS[ClientName.VSCODE], Wanted(program=Program("/opt/cove"), http=True))
    texts = [with_server(with_item(text, "inputs", made.inputs[0]), "servers", "cove", made.entry) for text in VALID]
    for (value,) in read_by_vscode(texts):
        assert value["servers"]["cove"] == made.entry
        assert made.inputs[0] in value["inputs"]
