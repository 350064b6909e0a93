"""A seccomp filter (seccomp(2)) from the policy table, as classic BPF."""

import ctypes
import platform
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from cove.linux.calls import syscall
from cove.linux.syscall_numbers import AARCH64, X86_64
from cove.linux.syscall_policy import CONDITIONAL, FAMILIES

_MACHINES: Final = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x25
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_BITS: Final = 0x45
_AND: Final = 0x54
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_EPERM: Final = 1
_ENOSYS: Final = 38
_EPROTONOSUPPORT: Final = 93
_EAFNOSUPPORT: Final = 97

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; low words on a little-endian machine.
_NUMBER: Final = 0
_ARCH: Final = 4
_X32_BIT: Final = 0x40000000
_NEWEST_KNOWN: Final = 466

_NAMESPACE_FLAGS: Final = 0x7E020080
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM = 1, 2
_SOCK_TYPE_MASK: Final = 0xF
_INTERNET_PROTOCOLS: Final = (0, 6, 17)  # the default one, TCP, UDP
_SOL_SOCKET, _SO_LINGER = 1, 13
_ATTACH_TO_SOCKET: Final = (26, 50, 51, 52)  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
_FORBIDDEN_IOCTLS: Final = (0x5412, 0x541C, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCSETD
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_SECCOMP_SET_MODE_FILTER: Final = 1

Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand."""


def _argument(index: int) -> int:
    return 16 + 8 * index


def _deny(code: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | code)


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)


def _when(number: int, body: list[Instruction]) -> Iterator[Instruction]:
    """`body`, which ends in returns, for system call `number` only; the number must be loaded."""
    yield (_JUMP_EQUAL, 0, len(body), number)
    yield from body


def _clone() -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_JUMP_BITS, 0, 1, _NAMESPACE_FLAGS),
        _deny(_EPERM),
        _allow(),
    ]


def _any_of(values: Iterable[int], answer: Instruction) -> Iterator[Instruction]:
    """`answer` when the loaded word is one of `values`; otherwise go on."""
    for value in values:
        yield (_JUMP_EQUAL, 0, 1, value)
        yield answer


def _socket() -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_JUMP_EQUAL, 0, 1, _AF_UNIX),
        _allow(),
        (_JUMP_EQUAL, 0, 4, _AF_NETLINK),
        (_LOAD, 0, 0, _argument(2)),
        (_JUMP_EQUAL, 0, 1, 0),
        _allow(),
        _deny(_EAFNOSUPPORT),
        (_JUMP_EQUAL, 2, 0, _AF_INET),
        (_JUMP_EQUAL, 1, 0, _AF_INET6),
        _deny(_EAFNOSUPPORT),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_JUMP_EQUAL, 2, 0, _SOCK_STREAM),
        (_JUMP_EQUAL, 1, 0, _SOCK_DGRAM),
        _deny(_EPERM),
        (_LOAD, 0, 0, _argument(2)),
        *_any_of(_INTERNET_PROTOCOLS, _allow()),
        _deny(_EPROTONOSUPPORT),
    ]


def _socketpair() -> list[Instruction]:
    return [(_LOAD, 0, 0, _argument(0)), *_any_of((_AF_UNIX,), _allow()), _deny(_EAFNOSUPPORT)]


def _setsockopt() -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _argument(1)),
        (_JUMP_EQUAL, 1, 0, _SOL_SOCKET),
        _allow(),
        (_LOAD, 0, 0, _argument(2)),
        *_any_of((_SO_LINGER,), _deny(0)),  # error 0: reported as done
        *_any_of(_ATTACH_TO_SOCKET, _deny(_EPERM)),
        _allow(),
    ]


def _ioctl() -> list[Instruction]:
    return [(_LOAD, 0, 0, _argument(1)), *_any_of(_FORBIDDEN_IOCTLS, _deny(_EPERM)), _allow()]


def _personality() -> list[Instruction]:
    return [(_LOAD, 0, 0, _argument(0)), *_any_of(_PERSONALITIES, _allow()), _deny(_EPERM)]


def _conditions(numbers: dict[str, int]) -> Iterator[Instruction]:
    bodies = {
        "clone": _clone(),
        "clone3": [_deny(_ENOSYS)],
        "socket": _socket(),
        "socketpair": _socketpair(),
        "setsockopt": _setsockopt(),
        "ioctl": _ioctl(),
        "personality": _personality(),
    }
    if bodies.keys() != CONDITIONAL.keys():
        raise AssertionError("every conditional call of the policy needs its filter")
    for name, body in bodies.items():
        yield from _when(numbers[name], body)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _program(architecture: int, numbers: dict[str, int]) -> Iterator[Instruction]:
    yield (_LOAD, 0, 0, _ARCH)
    yield (_JUMP_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL_PROCESS)
    yield (_LOAD, 0, 0, _NUMBER)
    # The x32 numbers reach the same calls by another door; calls that the table is too old for fall back.
    yield (_JUMP_GREATER, 0, 1, _NEWEST_KNOWN)
    yield _deny(_ENOSYS)
    yield from _conditions(numbers)
    plain = {name for family in FAMILIES for name in family.calls} & numbers.keys()
    for lowest, highest in _ranges(numbers[name] for name in plain):
        yield (_JUMP_GREATER_EQUAL, 1, 0, lowest)
        yield _deny(_EPERM)
        yield (_JUMP_GREATER, 1, 0, highest)
        yield _allow()
    yield _deny(_EPERM)


def compile_filter(machine: str | None = None) -> bytes:
    """The policy as an array of struct sock_filter for `machine` (default: this one).

    Raises:
        OSError: no table for this machine.
    """
    try:
        architecture, numbers = _MACHINES[machine or platform.machine()]
    except KeyError:
        raise OSError(_ENOSYS, f"no system call table for {machine or platform.machine()}") from None
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in _program(architecture, numbers))


def install_filter(program: bytes) -> None:
    """Put `program` in force for this process and all it starts; it can never be taken off again.

    no_new_privs must be set (or CAP_SYS_ADMIN be held).
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(code)), struct.calcsize("@HP")
    )
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)
