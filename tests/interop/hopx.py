"""The unmodified client from PyPI. It carries no types and leaves sockets to the garbage collector."""

import importlib
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    client: Any = importlib.import_module("hopx_ai")
    errors: Any = importlib.import_module("hopx_ai.errors")
    token_cache: Any = importlib.import_module("hopx_ai._token_cache")
    http: Any = importlib.import_module("hopx_ai._client")
    async_http: Any = importlib.import_module("hopx_ai._async_client")
    agent_http: Any = importlib.import_module("hopx_ai._agent_client")
    async_agent_http: Any = importlib.import_module("hopx_ai._async_agent_client")

KEY = "unused-with-dev"


def close(sandbox: Any) -> None:
    """What the client has no method for."""
    sandbox._client._client.close()
    if sandbox._agent_client is not None:
        sandbox._agent_client._client.close()


async def close_async(sandbox: Any) -> None:
    """The same for the asynchronous client."""
    await sandbox._client.close()
    if sandbox._agent_client is not None:
        await sandbox._agent_client.close()
