"""Archives for builds: links that authorise themselves."""

import httpx2
import pytest
from tests.server.conftest import Plane

pytestmark = pytest.mark.anyio
HASH = "b" * 64
LINK = "/v1/templates/files/upload-link"


async def link(plane: Plane, size: int = 4) -> str:
    answer = await plane.client.post(LINK, json={"files_hash": HASH, "content_length": size})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) <= {"present", "upload_url", "expires_at", "files_hash", "request_id"}
    assert body["present"] is False
    return str(httpx2.URL(body["upload_url"]).path)


async def test_an_archive_comes_by_its_link_alone(plane: Plane) -> None:
    path = await link(plane)
    assert (await plane.nobody.put(path, content=b"data")).status_code == 200
    again = await plane.client.post(LINK, json={"files_hash": HASH, "content_length": 4})
    assert again.json()["present"] is True
    other = await plane.stranger.post(LINK, json={"files_hash": HASH, "content_length": 4})
    assert other.json()["present"] is False, "another tenant's"


@pytest.mark.parametrize("content", [b"dat", b"data and more"])
async def test_another_size_than_announced(plane: Plane, content: bytes) -> None:
    answer = await plane.nobody.put(await link(plane), content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    left = [path for path in (plane.control.settings.data_dir / "uploads").rglob("*") if path.is_file()]
    assert left == []


async def test_links_that_are_not_ours(plane: Plane) -> None:
    path = await link(plane)
    for forged in (path[:-2] + ("AA" if path[-2:] != "AA" else "BB"), path[:-10], "/v1/templates/uploads/", path + "x"):
        answer = await plane.nobody.put(forged, content=b"data")
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), forged
    assert (await plane.nobody.get(path)).status_code == 405


async def test_large_archives_are_not_held_to_the_limit_of_other_bodies(plane: Plane) -> None:
    size = 2 * plane.control.settings.max_body_bytes
    assert (await plane.nobody.put(await link(plane, size), content=b"\0" * size)).status_code == 200


@pytest.mark.parametrize("body", [{"files_hash": "x", "content_length": 1}, {"files_hash": HASH, "content_length": 0}])
async def test_bad_requests(plane: Plane, body: dict[str, object]) -> None:
    assert (await plane.client.post(LINK, json=body)).status_code == 400
    assert (await plane.nobody.post(LINK, json=body)).status_code == 401


async def test_too_much_of_one_tenant(plane: Plane) -> None:
    answer = await plane.client.post(LINK, json={"files_hash": HASH, "content_length": 1024**3})
    assert answer.status_code == 200
    for number in range(100):
        asked = await plane.client.post(LINK, json={"files_hash": f"{number:064x}", "content_length": 1})
        path = httpx2.URL(asked.json()["upload_url"]).path
        assert (await plane.nobody.put(path, content=b"x")).status_code == 200
    answer = await plane.client.post(LINK, json={"files_hash": HASH, "content_length": 1})
    assert (answer.status_code, answer.json()["code"]) == (403, "RESOURCE_LIMIT_EXCEEDED")


async def test_links_that_were_given_out_before_do_not_go_past_the_bound(plane: Plane) -> None:
    paths: list[str] = []
    for number in range(101):
        asked = await plane.client.post(LINK, json={"files_hash": f"{number:064x}", "content_length": 1})
        paths.append(httpx2.URL(asked.json()["upload_url"]).path)
    answers = [await plane.nobody.put(path, content=b"x") for path in paths]
    assert [answer.status_code for answer in answers] == [200] * 100 + [403]
