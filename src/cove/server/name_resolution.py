"""Looking up host names that tenants chose: the system's resolver, on threads that only serve this."""

import asyncio
import socket
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from cove.models.errors import error

_THREADS = 16
_OF_ONE_OWNER = 4
_SECONDS = 4.0
_UNKNOWN = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class SystemResolver:
    """Implements the core's `Resolver` with getaddrinfo(3).

    A lookup cannot be cancelled, and whoever owns a domain decides how long its lookups take: so each owner gets only
    some of the threads, counted until the thread is really free again.
    """

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._threads: ThreadPoolExecutor | None = None
        self._busy: Counter[str] = Counter()

    async def resolve(self, host: str, *, owner: str) -> tuple[str, ...]:
        """All addresses of a name, bounded in time.

        Raises:
            CoveError: INVALID_REQUEST when there is no such name, NETWORK_ERROR when that is not known now.
        """
        if self._busy[owner] >= _OF_ONE_OWNER:
            raise error("NETWORK_ERROR", f"{host} could not be looked up: too many lookups are under way.")
        lookup = self._begin(host, owner)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(lookup)
        except TimeoutError:
            raise error("NETWORK_ERROR", f"{host} could not be looked up within {self._seconds:g} s.") from None
        except socket.gaierror as failure:
            if failure.errno in _UNKNOWN:
                raise error(
                    "INVALID_REQUEST", f"callback_url: there is no host {host}.", field="callback_url"
                ) from failure
            raise error("NETWORK_ERROR", f"{host} could not be looked up: {failure.strerror}.") from failure
        except (OSError, UnicodeError) as failure:
            raise error("NETWORK_ERROR", f"{host} could not be looked up: {type(failure).__name__}.") from failure

    def close(self) -> None:
        """Start no more lookups; those under way end by themselves."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, host: str, owner: str) -> Future[tuple[str, ...]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cove-names")
        loop = asyncio.get_running_loop()
        lookup = self._threads.submit(_look_up, host)
        self._busy[owner] += 1
        lookup.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finished, owner))
        return lookup

    def _finished(self, owner: str) -> None:
        self._busy[owner] -= 1
        if self._busy[owner] <= 0:
            del self._busy[owner]


def _look_up(host: str) -> tuple[str, ...]:
    """Without AI_ADDRCONFIG: an address of a family that this machine lacks still says where the name leads."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
