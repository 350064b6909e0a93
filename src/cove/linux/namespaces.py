"""Entering the namespaces of other processes (setns(2))."""

from cove.linux.calls import syscall


def enter_namespaces(pidfd: int, kinds: int) -> None:
    """Move this thread into namespaces of a process (CLONE_NEW* in `kinds`); Linux 5.8.

    Raises:
        OSError: EPERM without the privileges in them, ESRCH when the process has ended.
    """
    syscall("setns", pidfd, kinds)
