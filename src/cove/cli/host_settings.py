"""Settings of the host that docs/production.md asks for, as they are now: for `cove doctor`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class HostSetting:
    """One of them.

    Attributes:
        state: ok or partly.
        remedy: what to type; empty where nothing is to be done.
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class _Least:
    """A sysctl whose value has to be one of some."""

    name: str
    good: frozenset[str]
    wanted: str
    why: str


_SYSCTLS: Final = (
    _Least("kernel.unprivileged_bpf_disabled", frozenset("12"), "1", "anybody may load BPF programs"),
    _Least("kernel.kptr_restrict", frozenset("12"), "1", "addresses of the kernel can be read"),
    _Least("kernel.dmesg_restrict", frozenset("1"), "1", "anybody reads the kernel's log"),
    _Least("kernel.yama.ptrace_scope", frozenset("123"), "1", "processes of one user read each other's memory"),
    _Least("fs.protected_hardlinks", frozenset("1"), "1", "anybody makes links to files of others"),
    _Least("fs.protected_symlinks", frozenset("1"), "1", "links of others are followed in shared directories"),
)


def host_settings(root: Path = Path("/")) -> list[HostSetting]:
    """What this machine has, one after the other; a setting that its kernel does not know is left out.

    Args:
        root: of the file system that is looked at.
    """
    looks: Iterable[Callable[[Path], HostSetting | None]] = (
        *((lambda root, least=least: _sysctl(root, least)) for least in _SYSCTLS),
        _core_pattern,
        _swap,
    )
    return [found for look in looks if (found := look(root)) is not None]


def _sysctl(root: Path, least: _Least) -> HostSetting | None:
    value = _text(root / "proc/sys" / least.name.replace(".", "/"))
    if value is None:
        return None
    if value in least.good:
        return HostSetting(least.name, "ok", value)
    return HostSetting(least.name, "partly", f"{value}: {least.why}", f"sysctl -w {least.name}={least.wanted}")


def _core_pattern(root: Path) -> HostSetting | None:
    value = _text(root / "proc/sys/kernel/core_pattern")
    if value is None:
        return None
    if not value.startswith("|"):
        return HostSetting("kernel.core_pattern", "ok", value or "none")
    detail = f"{value[:60]}: a program of root's reads the memory of programs that crash, in sandboxes too"
    return HostSetting("kernel.core_pattern", "partly", detail, "sysctl -w kernel.core_pattern=core")


def _swap(root: Path) -> HostSetting | None:
    text = _text(root / "proc/swaps")
    if text is None:
        return None
    areas = [line.split()[0] for line in text.splitlines()[1:] if line.split()]
    open_ones = [area for area in areas if not _is_encrypted(root, area)]
    if open_ones:
        detail = f"{', '.join(open_ones)[:100]}: memory of sandboxes and keys may be written to a disk as it is"
        return HostSetting("swap", "partly", detail, "swapoff -a")
    return HostSetting("swap", "ok", "encrypted, or in memory" if areas else "off")


def _is_encrypted(root: Path, area: str) -> bool:
    """By dm-crypt, or compressed memory: what the kernel says of a block device (sysfs, dm/uuid)."""
    name = Path(area).name
    if name.startswith("zram"):
        return True
    uuid = _text(root / "sys/block" / name / "dm/uuid")
    return uuid is not None and uuid.startswith("CRYPT-")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
