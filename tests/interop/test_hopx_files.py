"""`hopx_ai.Sandbox.files` and `.env`."""

from pathlib import Path
from typing import Any

import pytest
from tests.interop import hopx

errors = hopx.errors

WEIRD_NAMES = [
    "with space",
    "a&b=c",
    "hash#and?question",
    "plus+percent%41",
    "ünïcödé-日本-🦀",
    "'quotes\"",
    "back\\slash",
    "-leading-dash",
    "line\nbreak",
    "...",
    "x" * 255,
]


def test_text(sandbox: Any) -> None:
    text = "first line\nzwölf € 🦀\r\n\ttab"
    sandbox.files.write("/workspace/notes/deep/text.txt", text)
    assert sandbox.files.read("/workspace/notes/deep/text.txt") == text
    sandbox.files.write("/workspace/notes/deep/text.txt", "")
    assert sandbox.files.read("/workspace/notes/deep/text.txt") == ""


def test_mode(sandbox: Any) -> None:
    sandbox.files.write("/workspace/script.sh", "#!/bin/sh\necho ran", mode="0755")
    assert sandbox.commands.run("/workspace/script.sh").stdout == "ran\n"


@pytest.mark.parametrize("content", [bytes(range(256)) * 5, b"\0", b"\xff\xfe", b"x" * 1_000_001])
def test_bytes(sandbox: Any, content: bytes) -> None:
    sandbox.files.write_bytes("/workspace/data.bin", content)
    assert sandbox.files.read_bytes("/workspace/data.bin") == content


@pytest.mark.parametrize("name", WEIRD_NAMES)
def test_weird_names(sandbox: Any, name: str) -> None:
    path = f"/workspace/names/{name}"
    sandbox.files.write(path, name)
    assert sandbox.files.read(path) == name
    assert sandbox.files.exists(path)
    assert [(entry.name, entry.path) for entry in sandbox.files.list("/workspace/names")] == [(name, path)]
    sandbox.files.remove(path)
    assert not sandbox.files.exists(path)


def test_list(sandbox: Any) -> None:
    sandbox.files.mkdir("/workspace/listed/below/it")
    sandbox.files.mkdir("/workspace/listed/below")
    sandbox.files.write("/workspace/listed/five", "12345", mode="0600")
    entries = {entry.name: entry for entry in sandbox.files.list("/workspace/listed")}
    assert entries.keys() == {"below", "five"}
    assert entries["below"].is_dir
    assert entries["five"].is_file
    assert entries["five"].size == 5
    assert entries["five"].modified_time.tzinfo is not None
    assert entries["five"].permissions
    assert sandbox.files.list("/workspace/listed/below/it") == []


def test_remove_takes_whole_directories(sandbox: Any) -> None:
    sandbox.files.write("/workspace/gone/a/b/c", "1")
    sandbox.files.remove("/workspace/gone")
    assert not sandbox.files.exists("/workspace/gone")


def test_upload_and_download(sandbox: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "up").write_bytes(content)
    sandbox.files.upload(str(tmp_path / "up"), "/workspace/moved/up.bin")
    digest = sandbox.commands.run("sha256sum /workspace/moved/up.bin; stat -c %s /workspace/moved/up.bin").stdout
    assert digest.split()[-1] == str(len(content))
    sandbox.files.download("/workspace/moved/up.bin", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == content


def test_what_does_not_exist(sandbox: Any, tmp_path: Path) -> None:
    for call in (sandbox.files.read, sandbox.files.read_bytes, sandbox.files.remove):
        with pytest.raises(errors.FileNotFoundError) as raised:
            call("/workspace/absent")
        assert raised.value.path == "/workspace/absent"
        assert raised.value.request_id
    with pytest.raises(errors.FileNotFoundError):
        sandbox.files.download("/workspace/absent", str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()
    with pytest.raises(errors.FileOperationError) as listed:
        sandbox.files.list("/workspace/absent")
    assert listed.value.code == "DIRECTORY_NOT_FOUND"
    assert sandbox.files.exists("/workspace/absent") is False


@pytest.mark.parametrize("path", ["/tmp/nul\0", "/tmp/" + "y" * 300, "/tmp/" + "d/" * 3000, ""])
def test_what_cannot_be_a_path(sandbox: Any, path: str) -> None:
    for call, more in ((sandbox.files.read, ()), (sandbox.files.write, ("content",)), (sandbox.files.mkdir, ())):
        with pytest.raises(errors.FileOperationError) as raised:
            call(path, *more)
        assert raised.value.code == "INVALID_PATH"


def test_a_directory_is_not_a_file(sandbox: Any) -> None:
    with pytest.raises(errors.FileOperationError):
        sandbox.files.read("/workspace")
    with pytest.raises(errors.FileOperationError):
        sandbox.files.list("/etc/passwd")


def test_dots_lead_to_the_sandbox_and_no_further(sandbox: Any) -> None:
    assert sandbox.files.read("/workspace/../../../../etc/passwd") == sandbox.commands.run("cat /etc/passwd").stdout
    assert Path(__file__).exists()
    assert not sandbox.files.exists(f"/workspace/../..{__file__}")


def test_where_it_may_not_write(sandbox: Any) -> None:
    with pytest.raises(errors.AgentError) as raised:
        sandbox.files.write("/etc/passwd", "root::0:0::/:/bin/sh")
    assert (raised.value.status_code, raised.value.code) == (403, "FORBIDDEN")


def test_variables(sandbox: Any) -> None:
    sandbox.env.set_all({"FIRST": "1", "EMPTY": "", "SECRET_TOKEN": "not masked"})
    assert sandbox.env.get_all() == {"FIRST": "1", "EMPTY": "", "SECRET_TOKEN": "not masked"}
    sandbox.env.update({"SECOND": "zwei € = '\"\n"})
    sandbox.env.set("FIRST", "changed")
    assert sandbox.env.get("FIRST") == "changed"
    assert sandbox.env.get("SECOND") == "zwei € = '\"\n"
    assert sandbox.env.get("ABSENT", "default") == "default"
    sandbox.env.delete("EMPTY")
    assert sandbox.env.get_all().keys() == {"FIRST", "SECOND", "SECRET_TOKEN"}
    assert sandbox.run_code("echo $FIRST", language="bash").stdout == "changed\n"
    assert sandbox.run_code("import os; print(os.environ['SECRET_TOKEN'])").stdout == "not masked\n"
    sandbox.env.set_all({})
    assert sandbox.env.get_all() == {}
    assert sandbox.commands.run("echo [$FIRST]").stdout == "[]\n"


@pytest.mark.parametrize("variables", [{"A=B": "1"}, {"": "1"}, {"A\nB": "1"}, {"A": "\0"}])
def test_variables_that_cannot_be(sandbox: Any, variables: dict[str, str]) -> None:
    sandbox.env.set_all({"KEPT": "1"})
    with pytest.raises(errors.AgentError) as raised:
        sandbox.env.update(variables)
    assert (raised.value.status_code, raised.value.code) == (400, "INVALID_REQUEST")
    assert sandbox.env.get_all() == {"KEPT": "1"}


def test_variables_given_at_creation(there: dict[str, Any]) -> None:
    with hopx.client.Sandbox.create("base", timeout_seconds=60, env_vars={"GIVEN": "at creation"}, **there) as sandbox:
        assert sandbox.env.get("GIVEN") == "at creation"
        assert sandbox.run_code("import os; print(os.environ['GIVEN'])").stdout == "at creation\n"


ASYNC_NAMES = [*(name for name in WEIRD_NAMES if not {"#", "\n"} & {*name}), "plus+sign", "50%", "%41", "a&path"]
"""The asynchronous client does not encode paths in queries: it never sends what is behind `#`, nor line breaks."""


@pytest.mark.anyio
async def test_weird_names_of_the_asynchronous_client(async_sandbox: Any) -> None:
    files = async_sandbox.files
    for name in ASYNC_NAMES:
        path = f"/workspace/names/{name}"
        await files.write(path, name)
        assert await files.read(path) == name
        assert await files.exists(path), name
        await files.write_bytes(path, b"\0\xff")
        assert await files.read_bytes(path) == b"\0\xff"
        assert [entry.name for entry in await files.list("/workspace/names")] == [name]
        await files.remove(path)
        assert not await files.exists(path), name


@pytest.mark.anyio
async def test_errors_of_the_asynchronous_client(async_sandbox: Any) -> None:
    """Some codes make this client fail with a TypeError: they are never sent."""
    files = async_sandbox.files
    with pytest.raises(errors.FileNotFoundError) as missing:
        await files.read("/workspace/absent")
    assert missing.value.path == "/workspace/absent"
    for call in (
        files.write("/etc/passwd", "root::0:0::/:/bin/sh"),
        files.mkdir("/usr/new"),
        files.remove("/usr/bin/env"),
        files.list("/root/.ssh"),
        files.list("/workspace/absent"),
        files.list("/etc/passwd"),
        files.read("/workspace"),
        files.read("/tmp/" + "y" * 300),
        files.write("/workspace/trailing/", ""),
        async_sandbox.run_code("1", language="cobol"),
        async_sandbox.run_code("1", working_dir="/absent"),
        async_sandbox.commands.run("true", working_dir="/absent"),
    ):
        with pytest.raises(errors.AgentError):
            await call


def test_a_large_directory(sandbox: Any) -> None:
    make = "mkdir /workspace/many && cd /workspace/many && seq -f %06.0f 0 99999 | xargs touch"
    assert sandbox.commands.run(make).exit_code == 0
    names = [entry.name for entry in sandbox.files.list("/workspace/many")]
    assert names == [f"{number:06}" for number in range(100_000)]


@pytest.mark.parametrize(
    ("language", "show"),
    [
        ("python", "import os; print(os.environ.get('LATER'))"),
        ("javascript", "console.log(process.env.LATER ?? 'None')"),
    ],
)
def test_variables_reach_interpreters_that_run_already(sandbox: Any, language: str, show: str) -> None:
    sandbox.env.set_all({})
    assert sandbox.run_code(show, language=language).stdout == "None\n"
    sandbox.env.set("LATER", "global")
    assert sandbox.run_code(show, language=language).stdout == "global\n"
    assert sandbox.run_code(show, language=language, env={"LATER": "request"}).stdout == "request\n"
    sandbox.env.delete("LATER")
    assert sandbox.run_code(show, language=language).stdout == "None\n"


def test_a_file_that_is_base64_itself(sandbox: Any) -> None:
    """The client decodes such downloads without being asked."""
    for text in ("test", "dGVzdA==", "QUJD" * 1000):
        sandbox.files.write("/workspace/text", text)
        assert sandbox.files.read_bytes("/workspace/text") == text.encode()
