"""The program of a template's warm process: import, then fork on request.

Started by the launcher as an unprivileged user, in namespaces of its own, with one descriptor: the channel to the
driver. It holds no secrets, since every sandbox inherits its memory. When the driver goes away it ends; the
sandboxes stay.
"""

import gc
import socket
import sys
from typing import NoReturn

from cove.agent.execution.prepare import prepare
from cove.agent.main import preload, run
from cove.drivers.namespace.forkserver.serve import serve
from cove.models.agent import AgentBoot


def main() -> None:
    """Arguments: descriptor of the channel, then the modules to import."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    modules = sys.argv[2:]
    gc.disable()  # collecting while importing only costs time
    prepare(modules)
    preload()
    serve(channel, _become_agent, [name for name in modules if name not in sys.modules])


def _become_agent(listener: socket.socket, boot: AgentBoot) -> NoReturn:
    gc.enable()
    run(listener, boot)


if __name__ == "__main__":
    main()
