"""Gathering memory in huge pages, in a process of its own."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, mmap
from cove.linux.memory import collapse_into_huge_pages
def huge():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages:"))
full, sparse = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE), mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE)
for position in range(0, 8 << 20, 4096):
    full[position] = 7
sparse[4096] = 9
before = huge()
gathered = collapse_into_huge_pages()
content = full[::4096] == b"\\7" * 2048 and sparse[4096] == 9
print(json.dumps({"before": before, "gathered": gathered, "after": huge(), "content": content}))
"""


def test_full_ranges_are_gathered_sparse_ones_are_not_and_nothing_changes() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    found = json.loads(done.stdout)
    assert found["content"]
    if not found["gathered"]:
        pytest.skip("this kernel gathers no memory (MADV_COLLAPSE needs Linux 6.1)")
    assert found["before"] == 0
    assert found["after"] == found["gathered"]
    # Three whole huge pages fit into 8 MiB wherever it starts; the sparse range would add three more.
    assert found["gathered"] >= 3 * 2**21
