"""Clients that ask a server for sandboxes: our SDK, and bare HTTP that shows what the SDK costs."""

import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from benchmarks.yardstick import BrokenProgramError
from cove import Sandbox

TEMPLATE: Final = "code-interpreter"
CODE: Final = "print(1)"
_OUTPUT: Final = "1\n"
_SECONDS: Final = 60.0


class Tenant(Protocol):
    """One sandbox of a client."""

    def run_code(self) -> None:
        """Run `print(1)` and check its output."""
        ...

    def kill(self) -> None:
        """End the sandbox."""
        ...


class Client(Protocol):
    """Something that creates sandboxes."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        ...

    def create(self) -> Tenant:
        """A new sandbox."""
        ...

    def close(self) -> None:
        """Close what is kept open."""
        ...


class SdkTenant:
    """A sandbox of the SDK."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def run_code(self) -> None:
        """Run `print(1)` and check its output."""
        expect_output(self.sandbox.run_code(CODE).stdout, _OUTPUT)

    def kill(self) -> None:
        """End the sandbox."""
        self.sandbox.kill()


@dataclass(frozen=True)
class SdkClient:
    """`cove.Sandbox`, as a program uses it: every create opens a connection of its own."""

    url: str
    name: str = "SDK"
    template: str = TEMPLATE

    def create(self) -> SdkTenant:
        """A new sandbox."""
        return SdkTenant(Sandbox.create(self.template, base_url=self.url))

    def close(self) -> None:
        """Nothing is kept open."""


class RawClient:
    """`http.client` on one connection that is kept alive; it parses JSON, and no more."""

    def __init__(self, url: str) -> None:
        self.name = "raw HTTP"
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS)

    def create(self) -> "RawTenant":
        """A new sandbox."""
        return RawTenant(self, self.call("POST", "/v1/sandboxes", {"template_name": TEMPLATE}))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, token: str = "") -> dict[str, Any]:
        """The JSON answer.

        Raises:
            BrokenProgramError: the answer is an error.
        """
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return json.loads(self._read(method, path, None if body is None else json.dumps(body).encode(), headers))

    def metric(self, name: str) -> float:
        """A figure of `/metrics`; `name` includes the labels. 0 where there is none yet."""
        text = self._read("GET", "/metrics", None, {}).decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_for_pool(self, size: int) -> None:
        """Return when the warm pool has `size` members.

        Raises:
            BrokenProgramError: it has not within a minute.
        """
        deadline = time.monotonic() + _SECONDS
        while self.metric(f'cove_pool_members{{template="{TEMPLATE}"}}') < size:
            if time.monotonic() > deadline:
                raise BrokenProgramError(f"The warm pool did not reach {size} members within {_SECONDS:.0f} s.")
            time.sleep(0.01)

    def _read(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise BrokenProgramError(f"{method} {path}: {response.status} {content[:300].decode(errors='replace')}")
        return content


class RawTenant:
    """A sandbox, as the answer to the create describes it."""

    def __init__(self, client: RawClient, created: dict[str, Any]) -> None:
        self._client = client
        self._id = str(created["id"])
        self._token = str(created["auth_token"])
        self._agent = urlsplit(str(created["public_host"])).path.rstrip("/")

    def run_code(self) -> None:
        """Run `print(1)` and check its output."""
        answer = self._client.call("POST", f"{self._agent}/execute", {"code": CODE, "language": "python"}, self._token)
        expect_output(str(answer["stdout"]), _OUTPUT)

    def kill(self) -> None:
        """End the sandbox."""
        self._client.call("DELETE", f"/v1/sandboxes/{self._id}")


def expect_output(output: str, expected: str) -> None:
    """
    Raises:
        BrokenProgramError: `output` is another one than is `expected`.
    """
    if output != expected:
        raise BrokenProgramError(f"expected {expected!r} from a sandbox, got {output[:200]!r}")
