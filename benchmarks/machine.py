"""On what was measured. Nothing here names the machine or its files."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.yardstick import COMMAND
from cove.host.cgroups import detect
from cove.models.version import VERSION

_MB: Final = 1e6


def facts() -> dict[str, str]:
    """What the figures depend on, as it is now."""
    return {
        "Cove": VERSION,
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) * 1024 / _MB:.0f} MB",
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "cgroups": str(detect().mode),
        "user": "root" if os.geteuid() == 0 else "ordinary user",
        "Python of the server": platform.python_version(),
        "Python of the yardstick": _yardstick_version(),
        "load average at start": _load(),
    }


def _load() -> str:
    minute, *longer = os.getloadavg()
    busy = " (other programs kept this machine busy: figures are worse than they would be)" if minute > 1 else ""
    return " ".join(f"{load:.2f}" for load in (minute, *longer)) + busy


def _field(path: str, name: str) -> str:
    """The value of the first line `name : value`."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return "0 (unknown)"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _yardstick_version() -> str:
    try:
        done = subprocess.run(
            [COMMAND[0], "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return "none"
    return done.stdout.removeprefix("Python ").strip()
