"""Where the ports of a sandbox are."""

from datetime import UTC, datetime

import pytest

from cove.models.errors import InvalidRequest
from cove.models.isolation import Isolation
from cove.models.sandboxes import SandboxInfo, SandboxStatus
from cove.sdk._addresses import preview_url

ID = "1763382095abcdefgh"


def _info(public_host: str, preview: str | None = None) -> SandboxInfo:
    return SandboxInfo(
        id=ID,
        status=SandboxStatus.RUNNING,
        public_host=public_host,
        direct_url=public_host,
        preview_url=preview,
        created_at=datetime.now(UTC),
        isolation=Isolation.NAMESPACE,
    )


@pytest.mark.parametrize(
    ("public_host", "preview", "expected"),
    [
        (
            f"http://h:1/sandboxes/{ID}",
            f"http://h:1/sandboxes/{ID}/ports/{{port}}/",
            f"http://h:1/sandboxes/{ID}/ports/80/",
        ),
        (f"https://7777-{ID}.d:8/.vms.hopx.dev", f"https://{{port}}-{ID}.d:8/", f"https://80-{ID}.d:8/"),
        (f"https://7777-{ID}.d:8/.vms.hopx.dev", None, f"https://80-{ID}.d:8/"),
        (f"https://{ID}.eu.vms.hopx.dev", None, f"https://80-{ID}.eu.vms.hopx.dev/"),
        (f"http://h:1/sandboxes/{ID}/", None, f"http://h:1/sandboxes/{ID}/ports/80/"),
    ],
)
def test_every_kind_of_server(public_host: str, preview: str | None, expected: str) -> None:
    assert preview_url(_info(public_host, preview), 80) == expected


@pytest.mark.parametrize("port", [0, -1, 65536, True])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        preview_url(_info("http://h"), port)
