"""What root hands over to the server's user, and what it does not let itself be talked into."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cove.host.identities import SERVER_USER, TEMPLATE_OWNER
from cove.models.errors import CoveError
from cove.server.ownership import OWN_DIRECTORIES, give_to_server
from cove.server.server_user import server_user

pytestmark = pytest.mark.usefixtures("as_root")


def give(directory: Path) -> None:
    give_to_server(directory, SERVER_USER, SERVER_USER)


def owner(path: Path) -> int:
    return path.lstat().st_uid


def test_a_new_directory(short_dir: Path) -> None:
    give(short_dir)
    for name in OWN_DIRECTORIES:
        assert (owner(short_dir / name), stat.S_IMODE((short_dir / name).stat().st_mode)) == (SERVER_USER, 0o700)
    assert owner(short_dir) == owner(short_dir / "run") == 0


def test_a_directory_of_an_earlier_version_moves_in_place_and_again(short_dir: Path) -> None:
    (short_dir / "keys").mkdir()
    (short_dir / "uploads/deep/er").mkdir(parents=True)
    files = ["cove.db", "cove.db-wal", "cove.db-shm", "keys/agent-tokens.pem", "uploads/deep/er/x.tar.gz"]
    for name in files:
        (short_dir / name).write_text(name)
    short_dir.chmod(0o700)
    for _ in range(2):
        give(short_dir)
        for name in files:
            moved = short_dir / (f"store/{name}" if "/" not in name else name)
            assert (moved.read_text(), owner(moved)) == (name, SERVER_USER)
        assert (short_dir / "cove.db").read_text() == "cove.db"
        assert os.readlink(short_dir / "cove.db") == "store/cove.db"
    assert stat.S_IMODE(short_dir.stat().st_mode) & 0o033 == 0o011, "the server passes through, and writes nothing"


def test_a_move_that_was_cut_off_goes_on(short_dir: Path) -> None:
    (short_dir / "store").mkdir()
    (short_dir / "store/cove.db-wal").write_text("newest")
    (short_dir / "cove.db").write_text("db")
    give(short_dir)
    assert [(short_dir / "store" / name).read_text() for name in ("cove.db", "cove.db-wal")] == ["db", "newest"]


def test_links_and_second_names_do_not_change_their_owner(short_dir: Path) -> None:
    outside = short_dir / "outside"
    outside.mkdir()
    for name in ("secret", "other"):
        (outside / name).write_text(name)
    give(short_dir)
    builds = short_dir / "builds"
    (builds / "link").symlink_to(outside / "secret")
    (builds / "way").symlink_to(outside)
    (builds / "second-name").hardlink_to(outside / "other")
    (short_dir / "store/cove.db-journal").symlink_to(outside / "secret")
    os.mkfifo(builds / "pipe")
    (builds / "own").write_text("")
    give(short_dir)
    assert {owner(outside), owner(outside / "secret"), owner(outside / "other")} == {0}
    assert owner(builds / "own") == SERVER_USER


def test_a_link_in_the_place_of_a_directory_is_refused(short_dir: Path) -> None:
    outside = short_dir / "outside"
    outside.mkdir()
    (short_dir / "keys").symlink_to(outside)
    with pytest.raises(CoveError) as refused:
        give(short_dir)
    assert refused.value.code == "INVALID_REQUEST"
    assert owner(outside) == 0


def test_what_sandboxes_stand_on_must_not_be_the_servers(short_dir: Path) -> None:
    os.chown(short_dir, SERVER_USER, SERVER_USER)
    give(short_dir)
    assert owner(short_dir) == 0
    (short_dir / "layers").mkdir()
    os.chown(short_dir / "layers", SERVER_USER, SERVER_USER)
    with pytest.raises(CoveError, match="chown -R root:root"):
        give(short_dir)


def test_who_the_server_may_be() -> None:
    assert server_user("root") is None
    assert server_user("0") is None
    found = server_user("nobody")
    assert found is not None
    assert found.uid not in {0, SERVER_USER}
    chosen = server_user("4242")
    assert chosen is not None
    assert (chosen.uid, chosen.gid) == (4242, 4242)
    default = server_user(None)
    assert default is not None
    assert default.name in {"cove", str(SERVER_USER)}
    for never in (str(TEMPLATE_OWNER), str(SERVER_USER + 70_000), "-1", "", "4294967295", "no such user", "\u0661"):
        with pytest.raises(CoveError, match="is no user of this machine"):
            server_user(never)


def test_an_ordinary_user_stays_who_it_is() -> None:
    code = """
import os
os.setresuid(4242, 4242, 4242)
from cove.server.server_user import server_user
from cove.models.errors import CoveError
print(server_user(None), server_user("4242"))
try:
    server_user("nobody")
except CoveError as refused:
    print(refused.code)
"""
    preloaded = "import cove.server.server_user, cove.models.errors\n"
    done = subprocess.run(
        [sys.executable, "-c", preloaded + code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == ["None", "None", "INVALID_REQUEST"]
