"""Which ranges of ids belong to a user, and what is said where there are none."""

import os
import pwd
from pathlib import Path

import pytest

from cove.host import subordinate_ids
from cove.host.identities import SLOTS
from cove.host.subordinate_ids import SubordinateIds, find_subordinate_ids

ME = pwd.getpwuid(os.getuid()).pw_name


def write(directory: Path, uids: str, gids: str) -> tuple[Path, Path]:
    files = directory / "subuid", directory / "subgid"
    for file, content in zip(files, (uids, gids), strict=True):
        file.write_text(content)
    return files


@pytest.mark.parametrize("name", [ME, str(os.getuid())])
def test_the_first_range_that_is_long_enough(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subordinate_ids, "TOOLS", ("true",))
    lines = f"other:100000:65536\n# none\n{name}:5:10\n{name}:broken:65536\n{name}:300000:65536\n"
    found, missing = find_subordinate_ids(*write(tmp_path, lines, f"{name}:400000:{SLOTS}\n"))
    assert (found, missing) == (SubordinateIds(os.getuid(), os.getgid(), 300000, 400000), "")


@pytest.mark.parametrize(
    "line", ["", f"{ME}:0:65536", f"{ME}:100000:{SLOTS - 1}", f"{ME}:4294967000:65536", f"{ME}:-5:65536"]
)
def test_ranges_that_cannot_be_used(tmp_path: Path, line: str) -> None:
    found, missing = find_subordinate_ids(*write(tmp_path, line, f"{ME}:100000:65536"))
    assert found is None
    assert "usermod --add-subuids" in missing


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, missing = find_subordinate_ids(*write(tmp_path, f"{ME}:100000:65536", f"{ME}:100000:65536"))
    assert found is None
    assert "apt-get install uidmap" in missing


def test_two_sandboxes_share_the_owner_and_nothing_that_runs() -> None:
    ids = SubordinateIds(1001, 1002, 100000, 200000)
    one, other = (ids.maps_of(slot)["uid_map"].splitlines() for slot in (1, SLOTS))
    assert one[0] == other[0] == "0 1001 1"
    assert (one[1], other[1]) == ("1000 100000 1", f"1000 {100000 + SLOTS - 1} 1")
    assert [ids.host_user(slot) for slot in (1, SLOTS)] == [100000, 100000 + SLOTS - 1]
