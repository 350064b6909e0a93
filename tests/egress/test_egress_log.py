"""The log of all sandboxes, as the egress program writes it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cove.egress.journal import Journal
from cove.egress.log_file import LogFile
from cove.models.network import EgressTotals, RefusalCause

pytestmark = pytest.mark.anyio

_SECONDS = 20.0
_ROOMY = 1024 * 1024


@pytest.fixture
async def log() -> AsyncIterator[LogFile]:
    log = LogFile()
    yield log
    async with asyncio.timeout(_SECONDS):
        await log.close()


def _open(log: LogFile, path: Path, *, max_bytes: int = _ROOMY) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        log.write_to(file, max_bytes=max_bytes)
    finally:
        os.close(file)


async def _lines(path: Path, are_there: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    async with asyncio.timeout(_SECONDS):
        while True:
            found = [json.loads(line) for line in path.read_bytes().splitlines() if line]
            if are_there(found):
                return found
            await asyncio.sleep(0.01)


async def test_entries_of_two_sandboxes(log: LogFile, tmp_path: Path) -> None:
    path = tmp_path / "egress.jsonl"
    one, other = (Journal(note=partial(log.add, sandbox_id)) for sandbox_id in ("one", "other"))
    one.add("dns", "A", name="before.example")
    _open(log, path)
    one.add("tls", "192.0.2.7", port=443, name='odd"\n.example', sent_bytes=7, packets=(2, 3))
    other.add("tcp", "10.0.0.1", port=5432, refusal="its address is private")
    first, second = await _lines(path, lambda found: len(found) == 2)
    assert (first["sandbox_id"], first["name"], first["sent_bytes"]) == ("one", 'odd"\n.example', 7)
    assert (first["sent_packets"], first["received_packets"]) == (2, 3)
    assert (second["sandbox_id"], second["allowed"], second["cause"]) == ("other", False, "policy")
    moved = path.rename(tmp_path / "moved")
    _open(log, path)
    other.add("dns", "A", name="later.example")
    assert [line["name"] for line in await _lines(path, bool)] == ["later.example"]
    assert len(moved.read_bytes().splitlines()) == 2


async def test_what_was_not_written_is_counted(log: LogFile, tmp_path: Path) -> None:
    full, roomy = tmp_path / "full", tmp_path / "roomy"
    full.write_bytes(b"x" * 100)
    journal = Journal(note=partial(log.add, "one"))
    _open(log, full, max_bytes=50)
    for number in range(3):
        journal.add("dns", "A", name=f"{number}.example")
    await log.close()
    assert full.stat().st_size == 100, "nobody has moved it away"
    _open(log, roomy)
    journal.add("dns", "A", name="last.example")
    lost, last = await _lines(roomy, lambda found: len(found) == 2)
    assert lost == {"lost": 3}
    assert last["name"] == "last.example"


async def test_a_log_is_a_file(log: LogFile) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ValueError, match="regular file"):
            log.write_to(writing, max_bytes=_ROOMY)
    finally:
        os.close(reading)
        os.close(writing)


def test_totals_of_several() -> None:
    one, other = Journal(), Journal()
    one.add("dns", "A", refusal="no")
    one.add("tcp", "192.0.2.1", refusal="no answer", cause=RefusalCause.HOST, packets=(1, 1))
    other.add("dns", "A", refusal="no")
    other.received_bytes = 5
    total = one.totals().plus(other.totals())
    refusals = {RefusalCause.POLICY: 2, RefusalCause.HOST: 1}
    assert total == EgressTotals(received_bytes=5, sent_packets=1, received_packets=1, refused=3, refusals=refusals)
