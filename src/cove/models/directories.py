"""Where things are kept on this machine."""

import os
from pathlib import Path


def default_data_dir() -> Path:
    """`/var/lib/cove` for root; for others below `XDG_DATA_HOME` (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/cove")
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "cove"
