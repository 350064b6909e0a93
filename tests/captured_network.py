"""A network namespace as a sandbox has it, without a sandbox."""

import os
import socket
import traceback

from cove.linux.clone import CLONE_NEWNET, CLONE_NEWUSER, unshare
from cove.linux.network import bring_loopback_up
from cove.linux.redirection import redirect_everything


def captured_network() -> tuple[int, list[socket.socket]]:
    """A network namespace that only descriptors hold, and its captured sockets."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            bring_loopback_up()
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
            captured = redirect_everything()
            socket.send_fds(theirs, [b"x"], [namespace, *(sock.fileno() for sock in captured.all)])
            code = 0
        except BaseException:  # this process must not go on as the test runner
            traceback.print_exc()
        os._exit(code)
    theirs.close()
    with ours:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 16)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return descriptors[0], [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
