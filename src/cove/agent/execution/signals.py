"""Signals as requests name them, and sending them."""

import os
import signal

from cove.models.errors import error


def parse_signal(value: int | str) -> int:
    """The number of a signal given as a number (`2`, also as text) or a name (`SIGINT`, `int`); see signal(7).

    Raises:
        CoveError: INVALID_REQUEST for anything else.
    """
    number = int(value) if isinstance(value, int) or _is_number(value) else _by_name(value)
    if number not in signal.valid_signals():
        raise _unknown(value)
    return number


def ending_signal(exit_code: int) -> int | None:
    """The signal that an exit code of 128 + n stands for."""
    number = exit_code - 128
    return number if number > 0 and number in signal.valid_signals() else None


def signal_group(pid: int, number: int) -> None:
    """Signal the process group of `pid`, which leads it unless it has left; like Ctrl-C, children get it as well.

    `pid` must be a child that was not reaped.
    """
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _by_name(text: str) -> int:
    name = text.upper()
    found = signal.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
    if found is None:
        raise _unknown(text)
    return found


def _unknown(value: int | str) -> Exception:
    return error(
        "INVALID_REQUEST",
        f"{str(value)[:40]!r} is no signal",
        remedy="Send a name such as SIGINT, a number from 1 to 64, or nothing to end the program for certain.",
        field="signal",
    )
