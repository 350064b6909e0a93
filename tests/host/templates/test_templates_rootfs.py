import os
import stat
from pathlib import Path

import pytest

from cove.host.templates.rootfs import Rootfs, is_trusted, merged, remove_tree, seal


@pytest.fixture
def rootfs(tmp_path: Path) -> Rootfs:
    (tmp_path / "root").mkdir()
    return Rootfs(tmp_path / "root")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/bin/sh", "/usr/bin/sh"), ("/lib64/x.so", "/usr/lib64/x.so"), ("/usr/bin/../lib/x", "/usr/lib/x"), ("/", "/")],
)
def test_paths_are_mapped_to_merged_usr(path: str, expected: str) -> None:
    assert str(merged(path)) == expected


@pytest.mark.parametrize("path", ["/usr/bin/env", "/bin/sh", "/lib/x/libc.so.6", "/usr/share/zoneinfo"])
def test_distribution_is_trusted(path: str) -> None:
    assert is_trusted(path)


@pytest.mark.parametrize(
    "path",
    ["/usr/local/bin/x", "/opt/x", "/home/u/x", "/root/x", "/var/x", "/etc/shadow", "/usr/bin/../local/bin/x", "/usr"],
)
def test_everything_else_is_not(path: str) -> None:
    assert not is_trusted(path)


def test_copies_are_files_of_their_own_without_special_bits(rootfs: Rootfs, tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_text("x")
    source.chmod(0o6777)

    rootfs.copy_file(source, "/usr/bin/program")

    copy = rootfs.locate("/usr/bin/program")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755
    assert copy.stat().st_ino != source.stat().st_ino
    assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns


def test_links_out_of_a_tree_do_not_lead_to_the_host(rootfs: Rootfs, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tree / "file").write_text("content")
    (tree / "sub" / "inner").symlink_to("../file")
    (tree / "absolute").symlink_to(tree / "file")
    (tree / "leak").symlink_to(secret)
    (tree / "passwd").symlink_to("/etc/passwd")
    (tree / "trusted").symlink_to("/usr/bin/env")
    (tree / "dangling").symlink_to("nowhere-at-all")
    os.mkfifo(tree / "fifo")

    rootfs.copy_tree(tree, "/usr/share/tree", exclude=("never",))

    copied = rootfs.locate("/usr/share/tree")
    assert (copied / "sub" / "inner").readlink() == Path("../file")
    assert (copied / "absolute").readlink() == Path("file")
    assert (copied / "absolute").read_text() == "content"
    assert (copied / "trusted").read_bytes() == Path("/usr/bin/env").read_bytes()
    assert not (copied / "trusted").is_symlink()
    for name in ("leak", "passwd", "fifo"):
        assert not os.path.lexists(copied / name), name


def test_a_directory_that_matches_an_exclusion_is_left_out_whole(rootfs: Rootfs, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("test/a", "keep/test/b", "keep/c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")

    rootfs.copy_tree(tree, "/t", exclude=("test", "*/test"))

    found = {str(path.relative_to(rootfs.locate("/t"))) for path in rootfs.locate("/t").rglob("*")}
    assert found == {"keep", "keep/c"}


def test_links_are_relative_so_that_they_hold_below_any_root(rootfs: Rootfs) -> None:
    rootfs.link("/usr/bin/python", "/usr/bin/python3")
    rootfs.link("/etc/localtime", "/usr/share/zoneinfo/UTC")

    assert rootfs.locate("/usr/bin/python").readlink() == Path("python3")
    assert rootfs.locate("/etc/localtime").readlink() == Path("../usr/share/zoneinfo/UTC")


def test_sealing_removes_special_files_and_bits(tmp_path: Path) -> None:
    root = tmp_path / "layer"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "program").write_bytes(b"x" * 5000)
    (root / "program").chmod(0o4755)
    (root / "link").symlink_to("/nowhere")
    os.mkfifo(root / "fifo")

    size = seal(root, None)

    assert size >= 5000
    assert stat.S_IMODE((root / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert not os.path.lexists(root / "fifo")
    assert (root / "link").is_symlink()


@pytest.mark.root
def test_sealing_sets_the_owner_of_everything_and_follows_no_link(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing owners needs root")
    root = tmp_path / "layer"
    (root / "directory").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("")
    (root / "directory" / "link").symlink_to(outside)
    (root / "linked-directory").symlink_to(tmp_path)

    seal(root, 1879048192)

    for path in (root, *root.rglob("*")):
        assert path.lstat().st_uid == 1879048192, path
    assert outside.stat().st_uid == 0
    assert tmp_path.stat().st_uid == 0


def test_removing_follows_no_link_and_copes_with_closed_directories(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    tree = tmp_path / "tree"
    (tree / "closed" / "deep").mkdir(parents=True)
    (tree / "closed").chmod(0)
    (tree / "link").symlink_to(kept)
    (tmp_path / "alias").symlink_to(kept)

    remove_tree(tree)
    remove_tree(tmp_path / "alias")
    remove_tree(tmp_path / "missing")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (kept / "file").exists()
