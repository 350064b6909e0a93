"""Addresses of programs inside a sandbox that listen on a port."""

import re
from urllib.parse import urlsplit

from cove.models.agent import AGENT_PORT
from cove.models.errors import error
from cove.models.sandboxes import SandboxInfo


def preview_url(info: SandboxInfo, port: int) -> str:
    """Where `port` of the sandbox is reached from outside, with a slash at its end.

    A server with a domain has a host for each port (`{port}-{id}.domain`); any other a path
    (`/sandboxes/{id}/ports/{port}/`).

    Raises:
        InvalidRequest: there is no such port.
    """
    if isinstance(port, bool) or not 1 <= port <= 65535:
        raise error("INVALID_REQUEST", f"port is {port}; it must be from 1 to 65535.")
    for known in (info.preview_url, info.public_host):
        parts = urlsplit(known or "")
        host, labels = re.subn(rf"^(\d+-)?(?={re.escape(info.id)}\.)", f"{port}-", parts.netloc)
        if labels:
            return f"{parts.scheme}://{host}/"
    if port == AGENT_PORT:
        return info.public_host.rstrip("/") + "/"
    if info.preview_url and (found := re.search(r"^(.*/ports/)(\d+|\{port\})?/?$", info.preview_url)):
        return f"{found[1]}{port}/"
    return f"{info.public_host.rstrip('/')}/ports/{port}/"
