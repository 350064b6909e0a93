"""Addresses of programs inside a sandbox that listen on a port."""

import re
from urllib.parse import urlsplit

from cove.models.errors import error
from cove.models.sandboxes import SandboxInfo

_PORT = "{port}"


def preview_url(info: SandboxInfo, port: int) -> str:
    """Where `port` of the sandbox is reached from outside, with a slash at its end.

    The server says it (`preview_url`). Where one does not, its address of the agent does: a host for each port
    (`{port}-{id}.domain`), or a path.

    Raises:
        InvalidRequest: there is no such port.
    """
    if isinstance(port, bool) or not 1 <= port <= 65535:
        raise error("INVALID_REQUEST", f"port is {port}; it must be from 1 to 65535.")
    if info.preview_url and _PORT in info.preview_url:
        return info.preview_url.replace(_PORT, str(port))
    parts = urlsplit(info.public_host)
    host, replaced = re.subn(rf"^(\d+-)?(?={re.escape(info.id)}\.)", f"{port}-", parts.netloc)
    return f"{parts.scheme}://{host}/" if replaced else f"{info.public_host.rstrip('/')}/ports/{port}/"
