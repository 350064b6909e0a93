"""What `cove doctor` says of the host's settings."""

import re
from pathlib import Path

import pytest

from cove.cli.host_settings import host_settings

PRODUCTION = Path(__file__).parents[2] / "docs" / "production.md"
SOUND = {
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
    "proc/sys/kernel/kptr_restrict": "1\n",
    "proc/sys/kernel/dmesg_restrict": "1\n",
    "proc/sys/kernel/yama/ptrace_scope": "1\n",
    "proc/sys/fs/protected_hardlinks": "1\n",
    "proc/sys/fs/protected_symlinks": "1\n",
    "proc/sys/kernel/core_pattern": "core\n",
    "proc/swaps": "Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2\n/dev/zram0 partition 1 0 5\n",
    "sys/block/dm-1/dm/uuid": "CRYPT-PLAIN-swap\n",
}


def machine(root: Path, **changes: str) -> Path:
    """A made-up one; names of files have `__` for `/`."""
    for name, text in {**SOUND, **{name.replace("__", "/"): text for name, text in changes.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_sound_machine(tmp_path: Path) -> None:
    found = host_settings(machine(tmp_path))
    assert [one.state for one in found] == ["ok"] * 8
    assert not any(one.remedy for one in found)


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("proc__sys__kernel__unprivileged_bpf_disabled", "0\n", "kernel.unprivileged_bpf_disabled"),
        ("proc__sys__kernel__kptr_restrict", "0\n", "kernel.kptr_restrict"),
        ("proc__sys__kernel__yama__ptrace_scope", "0\n", "kernel.yama.ptrace_scope"),
        ("proc__sys__fs__protected_hardlinks", "0\n", "fs.protected_hardlinks"),
        ("proc__sys__kernel__core_pattern", "|/usr/bin/handler %P\n", "kernel.core_pattern"),
        ("proc__swaps", "Filename Type\n/dev/sda2 partition\n", "swap"),
        ("sys__block__dm-1__dm__uuid", "LVM-abc\n", "swap"),
    ],
)
def test_what_is_not_as_it_should_be_has_a_remedy(tmp_path: Path, file: str, text: str, name: str) -> None:
    (weak,) = [one for one in host_settings(machine(tmp_path, **{file: text})) if one.state != "ok"]
    assert (weak.name, weak.state) == (name, "partly")
    assert weak.remedy


def test_what_a_kernel_does_not_know_is_left_out(tmp_path: Path) -> None:
    assert host_settings(tmp_path) == []


def test_each_of_them_is_in_the_guide(tmp_path: Path) -> None:
    guide = PRODUCTION.read_text(encoding="utf-8")
    for one in host_settings(machine(tmp_path)):
        assert re.search(rf"^\| .*{re.escape(one.name)}", guide, re.M), one.name
