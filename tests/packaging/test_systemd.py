"""The unit starts what there is, as users that are made, with options that systemd knows and that Cove works under."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from tests.e2e.running_server import RunningServer, data_directory
from typer.main import get_command

from cove import Sandbox
from cove.cli.app import app
from cove.models.directories import default_data_dir
from cove.server.server_user import ACCOUNT
from cove.server.settings import Settings

PACKAGING = Path(__file__).parents[2] / "packaging" / "systemd"
UNIT = PACKAGING / "cove.service"
PROGRAM = "/opt/cove/bin/cove"


def options(section: str = "Service") -> dict[str, list[str]]:
    """Of one section; an option may be given more than once."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            current = header[1]
        elif current == section and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def one(name: str) -> str:
    (value,) = options()[name]
    return value


def rows(path: str) -> list[list[str]]:
    lines = (PACKAGING / path).read_text(encoding="utf-8").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_the_command_and_its_options_exist() -> None:
    program, command, *words = shlex.split(one("ExecStart"))
    assert program == PROGRAM
    parameters: Any = cast(Any, get_command(app)).commands[command].params
    known = {option for parameter in parameters for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert one("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert one("KillMode") == "process"


def test_users_and_directories_are_those_of_the_program() -> None:
    ((kind, name, *_),) = rows("sysusers.d/cove.conf")
    assert (kind, name) == ("u", ACCOUNT)
    words = shlex.split(one("ExecStart"))
    assert words[words.index("--user") + 1] == ACCOUNT
    assert one("User") == "root"
    made = {path: (mode, owner) for _, path, mode, owner, *_ in rows("tmpfiles.d/cove.conf")}
    data_dir = one("Environment").removeprefix("COVE_DATA_DIR=")
    assert made[data_dir] == ("0711", "root")
    assert data_dir == f"/var/lib/{one('StateDirectory')}"
    if os.geteuid() == 0:
        assert data_dir == str(default_data_dir())
    assert made[one("ReadWritePaths").removeprefix("-")][1] == ACCOUNT
    assert str(Path(one("EnvironmentFile").removeprefix("-")).parent) in made


def test_variables_are_settings() -> None:
    for assignment in options()["Environment"]:
        assert assignment.partition("=")[0].removeprefix("COVE_").lower() in Settings.model_fields


def test_what_would_keep_sandboxes_from_starting_is_off() -> None:
    for name in (
        "ProtectKernelTunables",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "PrivateDevices",
        "ProtectClock",
    ):
        assert one(name) == "no"
    assert not any(
        name in options() for name in ("ProtectKernelModules", "PrivateUsers", "DeviceAllow", "DevicePolicy")
    )


def test_systemd_knows_it(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "cove.service"
    unit.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    said = [line for line in done.stderr.splitlines() if "cove.service" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_sandboxes_run_with_its_capabilities(built_data_dir: Path, as_root: None) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux)")
    without = one("CapabilityBoundingSet")
    assert without.startswith("~")
    names = [name.removeprefix("CAP_").lower() for name in without[1:].split()]
    dropped = ",".join(f"-{name}" for name in names)

    class UnitsServer(RunningServer):
        program = ("setpriv", f"--bounding-set={dropped}", "--no-new-privs", *RunningServer.program)

    with data_directory(built_data_dir) as data_dir:
        server = UnitsServer.start(data_dir, "--dev")
        try:
            with Sandbox.create("base", base_url=server.url) as sandbox:
                assert sandbox.run_code("print(6 * 7)").stdout == "42\n"
                bounding = int(
                    re.findall(r"CapBnd:\s*(\w+)", Path(f"/proc/{server.process.pid}/status").read_text())[0], 16
                )
                assert not bounding >> 16 & 1, "CAP_SYS_MODULE is gone (capability.h)"
        finally:
            server.stop()
