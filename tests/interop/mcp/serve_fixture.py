"""`cove serve`, with the fixture of the conformance suite in the place of Cove's tools. All else is as it always is."""

from collections.abc import Mapping
from typing import Any

from mcp.server.lowlevel import Server
from tests.interop.mcp.fixture_server import build_fixture

from cove.cli.main import main
from cove.mcp.callers import Callers
from cove.mcp.toolsets import Toolset
from cove.server.mcp import loading


def _fixtures(callers: Callers) -> Mapping[Toolset, Server[Any]]:
    return {Toolset.ALL: build_fixture()}


if __name__ == "__main__":
    loading.build_servers = _fixtures
    main()
