import time
from pathlib import Path

from cove.host.templates.go_layer import open_cache


def test_the_cache_is_open_and_never_ages(tmp_path: Path) -> None:
    (tmp_path / "00").mkdir(mode=0o755)
    entry = tmp_path / "00" / "entry-a"
    entry.write_text("x")

    open_cache(tmp_path)

    assert entry.stat().st_mode & 0o777 == 0o666
    assert (tmp_path / "00").stat().st_mode & 0o777 == 0o777
    assert entry.stat().st_mtime > time.time() + 365 * 86400
