from pathlib import Path

import pytest

from cove.host.templates.commands import find_command, script_interpreter
from cove.host.templates.loader import DynamicLoader, MissingLibrary


def test_a_dynamic_program_needs_libc_and_the_loader() -> None:
    names = {Path(path).name for path in DynamicLoader().dependencies(Path("/usr/bin/env").resolve())}

    assert "libc.so.6" in names
    assert any(name.startswith("ld-linux") for name in names)


def test_a_script_needs_no_library(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")

    assert DynamicLoader().dependencies(script) == frozenset()


def test_libraries_outside_the_distribution_are_refused(tmp_path: Path) -> None:
    loader = DynamicLoader()
    libc = loader.library("libc.so.6")
    assert libc is not None
    program = tmp_path / "env"
    program.write_bytes(Path("/usr/bin/env").read_bytes())
    (tmp_path / "libc.so.6").write_bytes(Path(libc).resolve().read_bytes())

    assert str(tmp_path / "libc.so.6") in loader.dependencies(program, search=(str(tmp_path),))
    with pytest.raises(MissingLibrary):
        _refuse(loader, program, tmp_path)


def _refuse(loader: DynamicLoader, program: Path, directory: Path) -> None:
    # A run path is the way in which a program brings such a library by itself.
    again = directory / "again"
    again.write_bytes(program.read_bytes())
    (directory / "outside").mkdir()
    (directory / "outside" / "libc.so.6").symlink_to(directory / "libc.so.6")
    loader.directories = lambda: (str(directory / "outside"),)  # type: ignore[method-assign]
    loader.dependencies(again)


def test_an_unknown_library_is_none() -> None:
    assert DynamicLoader().library("libdoes-not-exist.so.7") is None


@pytest.mark.parametrize("name", ["no-such-command-at-all", "../../root/x", ""])
def test_unknown_commands_are_none(name: str) -> None:
    assert find_command(name) is None


def test_commands_are_found_through_links_of_the_distribution() -> None:
    found = find_command("sh")
    assert found is not None
    assert found.parent in {Path("/usr/bin"), Path("/bin")}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("#!/bin/sh -e\n", "sh"), ("#!/usr/bin/env perl\n", "perl"), ("#! /usr/bin/env -S awk -f\n", "awk"),
        ("\x7fELF", None), ("", None), ("#!\n", None),
    ],
)  # fmt: skip
def test_interpreters_of_scripts(tmp_path: Path, content: str, expected: str | None) -> None:
    path = tmp_path / "file"
    path.write_text(content)

    assert script_interpreter(path) == expected
