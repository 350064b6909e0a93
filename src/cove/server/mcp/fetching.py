"""JSON documents of an authorization server."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, cast

import httpx2

from cove.models.errors import error

_SECONDS: Final = 5.0
_MAX_BYTES: Final = 512 * 1024


class JsonDocuments:
    """Fetches them: no redirects, no cookies, no proxies; bounded in time and size. A connection for each."""

    def __init__(self) -> None:
        self._authorities: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> Mapping[str, Any]:
        """The JSON object at `url`.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                document: Any = json.loads(await self._body(url))
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", f"{url} did not answer within {_SECONDS:g} s.") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ssl.SSLError) as problem:
            raise error("HOST_UNAVAILABLE", f"{url} cannot be reached: {type(problem).__name__}.") from problem
        except (ValueError, RecursionError):
            raise error("HOST_UNAVAILABLE", f"The answer of {url} is not JSON.") from None
        if not isinstance(document, dict):
            raise error("HOST_UNAVAILABLE", f"The answer of {url} is not a JSON object.")
        return cast("dict[str, Any]", document)

    async def _body(self, url: str) -> bytes:
        request = httpx2.Request("GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"})
        async with httpx2.AsyncHTTPTransport(verify=await self._context()) as transport:
            response = await transport.handle_async_request(request)
            try:
                if response.status_code != 200:
                    raise error("HOST_UNAVAILABLE", f"{url} answered with status {response.status_code}.")
                body = bytearray()
                async with aclosing(response.aiter_raw()) as pieces:
                    async for piece in pieces:
                        body += piece
                        if len(body) > _MAX_BYTES:
                            raise error("HOST_UNAVAILABLE", f"The answer of {url} is larger than {_MAX_BYTES} bytes.")
                return bytes(body)
            finally:
                await response.aclose()

    async def _context(self) -> ssl.SSLContext:
        if self._authorities is None:
            # Reading the machine's authorities takes 40 ms.
            self._authorities = await asyncio.to_thread(ssl.create_default_context)
        return self._authorities
