"""What an address names, and what it cannot name."""

import pytest

from cove.mcp.addresses import (
    MAX_CHARACTERS,
    Guide,
    SandboxFile,
    TemplateDocument,
    document_uri,
    file_uri,
    parse_address,
)

ID = "1763382095i648uu1o"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (f"cove://{ID}/workspace/a.txt", "/workspace/a.txt"),
        (f"cove://{ID}/workspace%2Fa.txt", "/workspace/a.txt"),
        (f"cove://{ID}//workspace/a%20b%25.txt", "/workspace/a b%.txt"),
        (f"cove://{ID}/tmp/what?.txt#1", "/tmp/what?.txt#1"),
        (f"cove://{ID}/100%.txt", "/100%.txt"),
        (f"cove://{ID}/../etc/%2e%2e/passwd", "/../etc/../passwd"),
        (f"cove://{ID}", "/"),
        (f"cove://{ID}/äöü", "/äöü"),
    ],
)
def test_a_path_is_what_stands_behind_the_sandbox(uri: str, path: str) -> None:
    assert parse_address(uri) == SandboxFile(ID, path)


@pytest.mark.parametrize("path", ["/workspace/a b%?#.txt", "/", "/äöü/x", "/%2e%2e", "/a\nb"])
def test_addresses_of_files_come_back(path: str) -> None:
    assert parse_address(file_uri(ID, path)) == SandboxFile(ID, path)


def test_documents() -> None:
    assert parse_address("cove://guide") == Guide()
    assert parse_address(document_uri("my template/1")) == TemplateDocument("my template/1")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cove:",
        "cove://",
        "cove:///etc/passwd",
        "file:///etc/passwd",
        "COVE://guide",
        "cove://guide/x",
        "cove://templates/",
        f"cove://{ID}x/a",
        f"cove://{ID}@{ID}/a",
        "cove://../a",
        "cove://localhost/a",
        f"cove://{ID}/a%00b",
        f"cove://{ID}/%ff",
        f"cove://{ID}/" + "a" * MAX_CHARACTERS,
        f"cove://{ID}\n/a",
        f"cove://{ID}/\udc80",
    ],
)
def test_what_is_no_address(uri: str) -> None:
    assert parse_address(uri) is None
