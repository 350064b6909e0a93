"""The registry's entry and the bundle: their versions, their shape, and what of Cove they name."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cove.mcp.toolsets import Toolset
from cove.models.version import VERSION

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging" / "mcp"
MCPB = ROOT / ".venv" / "clients" / "mcpb" / "node_modules"
SECONDS = 50.0

SERVER: dict[str, Any] = json.loads((PACKAGING / "server.json").read_text(encoding="utf-8"))
MANIFEST: dict[str, Any] = json.loads((PACKAGING / "bundle" / "manifest.json").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What the registry's schema of 2025-12-11 asks of the fields that are used here.
INPUT = {
    "type": "object",
    "properties": {
        "description": {"type": "string"},
        "isRequired": {"type": "boolean"},
        "isSecret": {"type": "boolean"},
        "value": {"type": "string"},
        "default": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "string"}},
        "variables": {"type": "object", "additionalProperties": {"$ref": "#/$defs/input"}},
        "name": {"type": "string"},
        "type": {"enum": ["positional", "named"]},
    },
    "additionalProperties": False,
}
NAMED = {"allOf": [{"$ref": "#/$defs/input"}, {"required": ["name"]}]}
SCHEMA = {
    "$defs": {"input": INPUT, "named": NAMED},
    "type": "object",
    "required": ["$schema", "name", "description", "version", "packages", "remotes"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"},
        "name": {"pattern": r"^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", "minLength": 3, "maxLength": 200},
        "title": {"type": "string", "minLength": 1, "maxLength": 100},
        "description": {"type": "string", "minLength": 1, "maxLength": 100},
        "version": {"type": "string", "maxLength": 255, "pattern": r"^\d+\.\d+\.\d+$"},
        "packages": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["registryType", "identifier", "version", "transport"],
                "additionalProperties": False,
                "properties": {
                    "registryType": {"enum": ["npm", "pypi", "oci", "nuget", "mcpb"]},
                    "identifier": {"type": "string"},
                    "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                    "runtimeHint": {"enum": ["npx", "uvx", "docker", "dnx"]},
                    "transport": {"const": {"type": "stdio"}},
                    "packageArguments": {
                        "type": "array",
                        "items": {
                            "allOf": [{"$ref": "#/$defs/input"}, {"required": ["type"]}],
                            "oneOf": [
                                {"properties": {"type": {"const": "positional"}}, "required": ["value"]},
                                {"properties": {"type": {"const": "named"}}, "required": ["name"]},
                            ],
                        },
                    },
                    "environmentVariables": {"type": "array", "items": {"$ref": "#/$defs/named"}},
                },
            },
        },
        "remotes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "url"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": ["streamable-http", "sse"]},
                    "url": {"pattern": r"^(https?://[^\s]+|\{[a-zA-Z_][a-zA-Z0-9_]*\}[^\s]*)$"},
                    "headers": {"type": "array", "items": {"$ref": "#/$defs/named"}},
                    "variables": {"type": "object", "additionalProperties": {"$ref": "#/$defs/input"}},
                },
            },
        },
    },
}


def test_all_versions_are_coves() -> None:
    bundled = tomllib.loads((PACKAGING / "bundle" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {SERVER["version"], SERVER["packages"][0]["version"], MANIFEST["version"], bundled["version"]}
    assert found == {VERSION}
    assert bundled["dependencies"] == [f"{PROJECT['project']['name']}=={VERSION}"]
    assert bundled["requires-python"] == PROJECT["project"]["requires-python"]


def test_the_entry_has_the_registrys_shape() -> None:
    jsonschema_rs.validate(SCHEMA, SERVER)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(SCHEMA, {**SERVER, "name": "cove"})


def test_the_entry_starts_a_program_that_exists() -> None:
    (package,) = SERVER["packages"]
    assert package["identifier"] == PROJECT["project"]["name"]
    # uvx starts the program that has the name of the distribution.
    assert package["identifier"] in PROJECT["project"]["scripts"]
    first, toolset = package["packageArguments"]
    assert first["value"] == "mcp"
    assert toolset["choices"] == [choice.value for choice in Toolset]
    assert [variable["name"] for variable in package["environmentVariables"]] == ["COVE_BASE_URL", "COVE_API_KEY"]


def test_secrets_are_said_to_be() -> None:
    (key,) = (variable for variable in SERVER["packages"][0]["environmentVariables"] if "KEY" in variable["name"])
    assert key["isSecret"] is True
    (header,) = SERVER["remotes"][0]["headers"]
    assert header["value"] == "Bearer {api_key}"
    assert header["variables"]["api_key"]["isSecret"] is True
    assert MANIFEST["user_config"]["api_key"]["sensitive"] is True


def test_the_bundle_asks_for_what_it_passes_on() -> None:
    asked = {
        match
        for text in MANIFEST["server"]["mcp_config"]["env"].values()
        for match in re.findall(r"user_config\.(\w+)", text)
    }
    assert asked == MANIFEST["user_config"].keys()
    assert MANIFEST["server"]["entry_point"] in MANIFEST["server"]["mcp_config"]["args"]
    assert (PACKAGING / "bundle" / MANIFEST["server"]["entry_point"]).is_file()


STUB = """
import os, sys
def main():
    print(sys.argv[1:], {name: os.environ[name] for name in sorted(os.environ) if name.startswith("COVE_")})
"""


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ({}, "['mcp', '--toolset', 'all'] {}"),
        (
            {
                "COVE_BASE_URL": "${user_config.server_url}",
                "COVE_API_KEY": "",
                "COVE_TOOLSET": "${user_config.toolset}",
            },
            "['mcp', '--toolset', 'all'] {}",
        ),
        (
            {"COVE_BASE_URL": " http://box:5555 ", "COVE_API_KEY": "k", "COVE_TOOLSET": "core"},
            "['mcp', '--toolset', 'core'] {'COVE_API_KEY': 'k', 'COVE_BASE_URL': 'http://box:5555'}",
        ),
    ],
)
def test_settings_of_the_bundle_that_are_empty_count_as_none(
    settings: dict[str, str], printed: str, tmp_path: Path
) -> None:
    # What is asked here is what the program is called with, so something that says it stands in its place.
    stub = tmp_path / "cove" / "cli"
    stub.mkdir(parents=True)
    for name, text in (("../__init__.py", ""), ("__init__.py", ""), ("main.py", STUB)):
        (stub / name).write_text(text)
    program = PACKAGING / "bundle" / "server.py"
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.strip() == printed


@pytest.fixture(scope="module")
def packer() -> Path:
    """The bundles' own tool."""
    program = MCPB / ".bin" / "mcpb"
    if not program.exists():
        pytest.skip("the packer of bundles is not installed: run scripts/interop-clients with npm on PATH")
    return program


def test_the_bundle_is_packed(packer: Path, tmp_path: Path) -> None:
    # With any file where the wheel is put, whose building takes longer than all else here.
    source, bundle = tmp_path / "source", tmp_path / "cove.mcpb"
    shutil.copytree(PACKAGING / "bundle", source)
    (source / "wheels").mkdir()
    (source / "wheels" / "any.whl").write_bytes(b"wheel")
    (source / "uv.lock").touch()
    assert _run(packer, "pack", source, bundle).returncode == 0
    with zipfile.ZipFile(bundle) as packed:
        assert set(packed.namelist()) == {"manifest.json", "pyproject.toml", "server.py", "wheels/any.whl"}
        assert json.loads(packed.read("manifest.json")) == MANIFEST


def test_a_bundle_that_says_too_little_is_not_packed(packer: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({**MANIFEST, "server": {"type": "uv"}}))
    assert _run(packer, "validate", manifest).returncode != 0


def _run(packer: Path, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([packer, *arguments], capture_output=True, timeout=SECONDS, check=False)
