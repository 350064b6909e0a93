"""Arenas that are reserved lie together, and are used by what comes next."""

import json
import subprocess
import sys

PROGRAM = """
import json
from cove.drivers.namespace.forkserver.arenas import reserve_arenas
def mappings():
    return sum(1 for line in open("/proc/self/maps") if len(line.split()) == 5)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
keepers = reserve_arenas(16 << 20)
reserved, count = resident(), mappings()
objects = [bytes(400) for _ in range(20_000)]
print(json.dumps({"new_mappings": mappings() - count, "grown": resident() - reserved, "keepers": len(keepers)}))
"""


def test_objects_fill_what_was_reserved() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    found = json.loads(done.stdout)
    assert found["keepers"] == (16 << 20) // 512 // 512
    assert found["new_mappings"] == 0
    assert found["grown"] < 4 << 20  # of the 8 MB that the objects take
