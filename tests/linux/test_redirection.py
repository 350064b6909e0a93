"""A network namespace whose traffic all comes to sockets inside it."""

import os
import socket
import struct
import traceback
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from cove.linux.clone import CLONE_NEWNET, CLONE_NEWUSER, unshare
from cove.linux.network import bring_loopback_up
from cove.linux.redirection import (
    Captured,
    close_datagrams,
    close_streams,
    open_datagrams,
    open_streams,
    redirect_everything,
)

_SECONDS = 5.0


def _in_new_network(body: Callable[[], None]) -> None:
    """Run `body` in a process with a network of its own, as an ordinary user could; its failure is the test's."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            bring_loopback_up()
            body()
            code = 0
        except BaseException:  # this process must not go on as the test runner
            traceback.print_exc()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _captured() -> Captured:
    captured = redirect_everything()
    for listener in captured.streams:
        open_streams(listener)
    for receiver in captured.datagrams:
        open_datagrams(receiver)
    for sock in captured.all:
        sock.settimeout(_SECONDS)
    return captured


def _refused(kind: socket.SocketKind, address: str, port: int) -> bool:
    """Whether a program is refused at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as program:
        program.settimeout(_SECONDS)
        try:
            program.connect((address, port))
            program.send(b"x")
            program.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return False


def test_without_it_nothing_is_reachable() -> None:
    def control() -> None:
        for address in ("93.184.216.34", "10.0.0.1", "169.254.169.254"):
            with socket.socket() as sock, pytest.raises(OSError, match="unreachable"):
                sock.connect((address, 443))

    _in_new_network(control)


@pytest.mark.parametrize("address", ["93.184.216.34", "10.0.0.1", "169.254.169.254", "2001:db8::7", "fd00::1"])
def test_connections_come_with_the_place_that_was_wanted(address: str) -> None:
    def body() -> None:
        captured = _captured()
        v6 = ":" in address
        for port in (1, 22, 443, 65535):
            with socket.create_connection((address, port), _SECONDS) as program:
                accepted, _ = captured.streams[v6].accept()
                with accepted:
                    assert accepted.getsockname()[:2] == (address, port)
                    accepted.sendall(b"answer")
                    assert program.recv(100) == b"answer"

    _in_new_network(body)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:db8::8"])
def test_datagrams_come_with_the_place_that_was_wanted(address: str) -> None:
    def body() -> None:
        captured = _captured()
        v6 = ":" in address
        with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.sendto(b"question", (address, 53))
            data, control, _, _ = captured.datagrams[v6].recvmsg(100, 200)
            assert _refused(socket.SOCK_DGRAM, address, 443)
        assert data == b"question"
        place = control[0][2]
        assert struct.unpack_from("!H", place, 2) == (53,)
        assert ip_address(place[8:24] if v6 else place[4:8]) == ip_address(address)

    _in_new_network(body)


@pytest.mark.parametrize("address", ["93.184.216.34", "2001:db8::7"])
def test_closed_it_refuses_at_once_and_opens_again(address: str) -> None:
    def body() -> None:
        captured = redirect_everything()
        v6 = ":" in address
        for _ in range(2):
            assert _refused(socket.SOCK_STREAM, address, 443)
            assert _refused(socket.SOCK_DGRAM, address, 53)
            open_streams(captured.streams[v6])
            open_datagrams(captured.datagrams[v6])
            with socket.create_connection((address, 443), _SECONDS):
                captured.streams[v6].accept()[0].close()
            with socket.socket(captured.datagrams[v6].family, socket.SOCK_DGRAM) as program:
                program.sendto(b"question", (address, 53))
                captured.datagrams[v6].settimeout(_SECONDS)
                assert captured.datagrams[v6].recv(100) == b"question"
            close_streams(captured.streams[v6])
            close_datagrams(captured.datagrams[v6])

    _in_new_network(body)


def test_set_up_again_there_are_new_sockets() -> None:
    def body() -> None:
        for sock in redirect_everything().all:
            sock.close()
        listener = redirect_everything().streams[0]
        open_streams(listener)
        with socket.create_connection(("93.184.216.34", 443), _SECONDS):
            listener.accept()[0].close()

    _in_new_network(body)


def test_loopback_stays_what_it_is() -> None:
    def body() -> None:
        _captured()
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "127.0.0.53"),
            (socket.AF_INET6, "::1"),
        ):
            with (
                socket.create_server((address, 8000), family=family) as server,
                socket.create_connection((address, 8000), _SECONDS) as program,
            ):
                accepted, _ = server.accept()
                accepted.close()
                assert program.recv(1) == b""

    _in_new_network(body)


def test_a_program_cannot_take_connections_away_from_it() -> None:
    def body() -> None:
        captured = _captured()
        with socket.create_server(("", 443)) as server, socket.create_connection(("93.184.216.34", 443), _SECONDS):
            accepted, _ = captured.streams[0].accept()
            accepted.close()
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()

    _in_new_network(body)
