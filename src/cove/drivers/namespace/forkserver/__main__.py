"""The program of a template's warm process: import, then fork on request.

Started by the launcher as an unprivileged user, in namespaces of its own, with one descriptor: the channel to the
driver. It holds no secrets, since every sandbox inherits its memory. When the driver goes away it ends; the
sandboxes stay.
"""

import gc
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from cove.drivers.namespace.forkserver.arenas import reserve_arenas

if TYPE_CHECKING:
    from cove.models.agent import AgentBoot

# About what numpy, pandas and the like fill, each. Packed, a fork takes 2.2 ms instead of 2.9 ms to 4.1 ms.
_ARENA_BYTES_PER_MODULE: Final = 16 * 1024 * 1024


def main() -> None:
    """Arguments: descriptor of the channel, then the modules to import."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    modules = sys.argv[2:]
    gc.disable()  # collecting while importing only costs time
    keepers = reserve_arenas(len(modules) * _ARENA_BYTES_PER_MODULE)
    from cove.agent.execution.prepare import prepare
    from cove.agent.main import preload, run
    from cove.drivers.namespace.forkserver.serve import serve

    prepare(modules)
    preload()
    del keepers

    def become_agent(listener: socket.socket, boot: "AgentBoot", counters: Mapping[str, int]) -> NoReturn:
        gc.enable()
        run(listener, boot, counters)

    serve(channel, become_agent, [name for name in modules if name not in sys.modules])


if __name__ == "__main__":
    main()
