"""Generate the OpenAPI documents of the control plane and of the agent.

python tools/generate_openapi.py           write the files
python tools/generate_openapi.py --check   write nothing; exit 1 when a file is stale
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cove.hostd.client import RemoteHost
from cove.server.app import build_control_plane
from cove.server.documents.agent import describe_agent
from cove.server.settings import Settings

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "openapi"


def documents() -> dict[str, dict[str, Any]]:
    """File name -> document."""
    return {"control-plane.json": control_plane(), "agent.json": describe_agent()}


def control_plane() -> dict[str, Any]:
    """That of a server as it is served at `/openapi.json`. It is put together, not started."""
    with tempfile.TemporaryDirectory(prefix="cove-") as directory:
        settings = Settings(data_dir=Path(directory))
        return build_control_plane(settings, RemoteHost(Path(directory) / "none.sock")).app.openapi()


def main() -> int:
    """Write or check both."""
    parser = argparse.ArgumentParser(description="Generate the OpenAPI documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    stale = 0
    for name, document in documents().items():
        path = DIRECTORY / name
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        sys.stdout.write(f"{'stale' if check else 'written'}: docs/openapi/{name}\n")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(check and stale))


if __name__ == "__main__":
    sys.exit(main())
