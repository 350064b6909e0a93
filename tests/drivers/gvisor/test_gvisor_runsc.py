"""Which runsc is used, and which are refused."""

import os
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import need_runsc

from cove.drivers.gvisor.runsc import OLDEST, find_runsc
from cove.models.errors import CoveError


@pytest.fixture
def bin_directory(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH; nobody else may write to it, or above it."""
    parent = Path("/run/cove-test-" + short_dir.name) if os.geteuid() == 0 else short_dir
    parent.mkdir(exist_ok=True, mode=0o755)
    monkeypatch.setenv("PATH", str(parent))
    monkeypatch.delenv("COVE_RUNSC", raising=False)
    return parent


@pytest.fixture(autouse=True)
def as_root(bin_directory: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: /tmp is everybody's")

    def remove() -> None:
        for path in bin_directory.iterdir():
            path.unlink()
        bin_directory.rmdir()

    request.addfinalizer(remove)


def program(directory: Path, script: str, *, name: str = "runsc", mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def refusal() -> CoveError:
    with pytest.raises(CoveError) as caught:
        find_runsc()
    assert caught.value.code == "ISOLATION_UNAVAILABLE"
    assert caught.value.remedy
    return caught.value


def says(version: str) -> str:
    return f"echo 'runsc version {version}'; echo 'spec: 1.0.2'"


@pytest.mark.parametrize("version", ["release-20240729.0", "0.0~20240729.0", f"release-{OLDEST}.0-3-gabc"])
def test_its_version_is_read(bin_directory: Path, version: str) -> None:
    path = program(bin_directory, says(version))
    found = find_runsc()
    assert (found.path, str(found.version) in version) == (str(path), True)


def test_without_one_it_is_said_how_to_install_it(bin_directory: Path) -> None:
    assert "install-runsc.sh" in refusal().remedy


@pytest.mark.parametrize(
    "script",
    [
        says("release-20221031.0"),
        says("0.0~20230531.1"),
        says("unknown"),
        "exit 0",
        "exit 1",
        "head -c 100000 /dev/zero",
    ],
)
def test_ancient_and_broken_ones_are_refused(bin_directory: Path, script: str) -> None:
    path = program(bin_directory, script)
    assert str(path) in refusal().message


def test_one_that_is_no_program_for_this_machine_is_refused(bin_directory: Path) -> None:
    path = bin_directory / "runsc"
    path.write_bytes(b"\x7fELF garbage")
    path.chmod(0o755)
    assert "does not run" in refusal().message


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_one_that_others_may_replace_is_refused(bin_directory: Path, mode: int) -> None:
    path = program(bin_directory, says("release-20240729.0"))
    path.chmod(mode)
    assert f"others than its owner may change {path}" in refusal().message
    path.chmod(0o755)
    bin_directory.chmod(mode)
    assert f"others than its owner may change {bin_directory}" in refusal().message


def test_one_of_another_user_is_refused(bin_directory: Path) -> None:
    path = program(bin_directory, says("release-20240729.0"))
    os.chown(path, 12345, 12345)
    assert "others than its owner may change" in refusal().message


def test_the_variable_wins_and_has_to_be_absolute(bin_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bin_directory, says("release-20240729.0"))
    other = program(bin_directory, says("release-20250101.0"), name="other")
    monkeypatch.setenv("COVE_RUNSC", str(other))
    assert find_runsc().version == 20250101
    monkeypatch.setenv("COVE_RUNSC", "other")
    assert "not an absolute path" in refusal().message
    monkeypatch.setenv("COVE_RUNSC", str(bin_directory / "missing"))
    assert "missing" in refusal().message


def test_that_of_this_machine_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin")
    need_runsc()
    assert find_runsc().version >= OLDEST
