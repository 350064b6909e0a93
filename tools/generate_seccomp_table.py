"""Generate docs/seccomp.md from the table of system calls.

python tools/generate_seccomp_table.py           write the file
python tools/generate_seccomp_table.py --check   write nothing; exit 1 when the file is stale
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cove.linux.syscall_policy import CONDITIONAL, FAMILIES, REFUSED, Family

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "seccomp.md"


def document() -> str:
    """The whole text."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# System calls in a namespace sandbox"
    yield ""
    yield "Generated from `src/cove/linux/syscall_policy.py` by `tools/generate_seccomp_table.py`; do not edit."
    yield ""
    yield "Every process of a sandbox runs behind one filter (seccomp(2)) that it cannot take off. What is not listed"
    yield "as allowed fails with EPERM; calls that are newer than the table fail with ENOSYS; programs fall back."
    yield "Calls of another architecture (on x86-64: `int 0x80`) kill the process; x32 calls fail with ENOSYS."
    yield ""
    yield "## Allowed"
    yield ""
    yield from _table(("why", "calls"), FAMILIES)
    yield ""
    yield "## Allowed in part, by their arguments"
    yield ""
    yield "| call | what is allowed |"
    yield "|---|---|"
    for name, condition in CONDITIONAL.items():
        yield f"| `{name}` | {condition} |"
    yield ""
    yield "## Refused on purpose"
    yield ""
    yield from _table(("why not", "calls"), REFUSED)


def _table(head: tuple[str, str], families: Iterable[Family]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |"
    yield "|---|---|"
    for family in families:
        yield f"| {family.reason} | {' '.join(f'`{name}`' for name in family.calls)} |"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Generate docs/seccomp.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    check = parser.parse_args().check
    text = document()
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    sys.stdout.write(f"{'stale' if check else 'written'}: docs/{DOCUMENT.name}\n")
    if not check:
        DOCUMENT.write_text(text, encoding="utf-8")
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
