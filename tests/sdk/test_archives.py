"""Tar streams: those that are made here, and those that a hostile sandbox could send."""

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cove.models.errors import CoveError, PlatformFailure
from cove.sdk._archive_reading import Unpacker
from cove.sdk._archive_writing import Packing, packed, packed_files, stays_inside

Fill = Callable[[tarfile.TarFile], None]


def _archive(fill: Fill, *, form: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        fill(archive)
    return target.getvalue()


def _file(archive: tarfile.TarFile, name: str, content: bytes = b"x", mode: int = 0o644) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), mode
    archive.addfile(header, io.BytesIO(content))


def _other(archive: tarfile.TarFile, name: str, kind: bytes, link: str = "", mode: int = 0o755) -> None:
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.mode = kind, link, mode
    archive.addfile(header)


def _unpack(data: bytes, target: Path, *, piece: int = 1 << 20) -> Unpacker:
    unpacker = Unpacker(target)
    try:
        for start in range(0, len(data), piece):
            unpacker.feed(data[start : start + piece])
        unpacker.finish()
    finally:
        unpacker.close()
    return unpacker


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory with something beside it that must stay as it is."""
    (tmp_path / "beside").write_text("untouched")
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [1, 511, 1 << 20])
def test_every_format_however_it_is_cut(target: Path, form: int, piece: int) -> None:
    long = "d" * 90 + "/" + "f" * 90

    def fill(archive: tarfile.TarFile) -> None:
        _other(archive, "d", tarfile.DIRTYPE)
        _file(archive, "d/run", b"#!", 0o755)
        _file(archive, long, b"long" * 300)
        _file(archive, "empty", b"")
        _other(archive, "link", tarfile.SYMTYPE, "d/run")

    unpacker = _unpack(_archive(fill, form=form), target, piece=piece)
    assert (unpacker.entries, unpacker.size, unpacker.tree.skipped) == (5, 1202, [])
    assert (target / long).read_bytes() == b"long" * 300
    assert stat.S_IMODE((target / "d" / "run").stat().st_mode) == 0o755
    assert (target / "empty").read_bytes() == b""
    assert str((target / "link").readlink()) == "d/run"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_any_bytes(target: Path, form: int) -> None:
    names = ["ä \N{SNAKE}\n", os.fsdecode(b"\xff\xfe"), "x" * 200, "a/" + "y" * 250]

    def fill(archive: tarfile.TarFile) -> None:
        for name in names:
            _file(archive, name)

    unpacker = _unpack(_archive(fill, form=form), target)
    assert unpacker.entries == len(names)
    assert all((target / name).read_bytes() == b"x" for name in names)


@pytest.mark.parametrize("name", ["../beside", "/beside", "a/../../beside", "..", "a/..", "./../beside"])
def test_a_name_that_leads_outside_is_refused(target: Path, name: str) -> None:
    with pytest.raises(PlatformFailure, match="leads outside"):
        _unpack(_archive(lambda archive: _file(archive, name)), target)
    assert _untouched(target)
    assert [*target.iterdir()] == []


@pytest.mark.parametrize("link", ["..", "/etc", "../beside", "x/../../beside", "a/../..", "/"])
def test_a_link_that_leads_outside_is_left_out(target: Path, link: str) -> None:
    unpacker = _unpack(_archive(lambda archive: _other(archive, "link", tarfile.SYMTYPE, link)), target)
    assert [skipped.path for skipped in unpacker.tree.skipped] == ["link"]
    assert [*target.iterdir()] == []


def test_nothing_is_written_through_a_link(target: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        _other(archive, "real", tarfile.DIRTYPE)
        _other(archive, "link", tarfile.SYMTYPE, "real")
        _file(archive, "link/file")

    with pytest.raises(CoveError, match="not followed"):
        _unpack(_archive(fill), target)
    assert [*(target / "real").iterdir()] == []


def test_a_link_is_replaced_and_not_written_through(target: Path) -> None:
    (target / "file").symlink_to("../beside")

    def fill(archive: tarfile.TarFile) -> None:
        _file(archive, "file", b"new")
        _other(archive, "other", tarfile.SYMTYPE, "file")
        _file(archive, "other", b"newer")

    _unpack(_archive(fill), target)
    assert _untouched(target)
    assert ((target / "file").read_bytes(), (target / "other").read_bytes()) == (b"new", b"newer")
    assert not (target / "file").is_symlink()


def test_what_is_no_file_directory_or_link_is_left_out(target: Path) -> None:
    (target / "here").mkdir()

    def fill(archive: tarfile.TarFile) -> None:
        for name, kind in (("c", tarfile.CHRTYPE), ("b", tarfile.BLKTYPE), ("f", tarfile.FIFOTYPE), ("q", b"q")):
            _other(archive, name, kind)
        _other(archive, "hard", tarfile.LNKTYPE, "../beside")
        _file(archive, "here")
        _other(archive, "here", tarfile.SYMTYPE, "x")
        _file(archive, "there")
        _other(archive, "there", tarfile.DIRTYPE)

    unpacker = _unpack(_archive(fill), target)
    left_out = [skipped.path for skipped in unpacker.tree.skipped]
    assert left_out == ["c", "b", "f", "q", "hard", "here", "here", "there"]
    assert sorted(path.name for path in target.iterdir()) == ["here", "there"]


def test_dangerous_modes_are_not_kept(target: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        _file(archive, "suid", mode=0o6777)
        _file(archive, "none", mode=0)
        _other(archive, "closed", tarfile.DIRTYPE, mode=0o1000)
        _file(archive, "closed/file")

    _unpack(_archive(fill), target)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()}
    assert modes == {"suid": 0o755, "none": 0o600, "closed": 0o700}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 512,
        b"\x1f\x8b" + b"x" * 1022,
        _archive(lambda archive: _file(archive, "a", b"x" * 2000))[:1024],
        _archive(lambda archive: _file(archive, "a"))[:512],
        _archive(lambda archive: _file(archive, "x" * 90_000)),
    ],
)
def test_what_is_no_archive(target: Path, data: bytes) -> None:
    with pytest.raises(PlatformFailure, match="cannot be read"):
        _unpack(data, target)
    assert [*target.iterdir()] == []


@pytest.mark.parametrize(
    "record", [b"x", b"9 a=b\n", b"6 ab\n\n", b"99 a=b\n", b"21 GNU.sparse.map=0\n", b"11 size=-5\n", b"11 size=ab\n"]
)
def test_a_bad_pax_header(target: Path, record: bytes) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, len(record)
        archive.addfile(header, io.BytesIO(record))
        _file(archive, "a")

    with pytest.raises(PlatformFailure, match="cannot be read"):
        _unpack(_archive(fill, form=tarfile.USTAR_FORMAT), target)
    assert [*target.iterdir()] == []


def test_what_is_packed_can_be_read_by_tar(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"1" * 1_000_000)
    (root / ("n" * 200)).touch(mode=0o755)
    (root / "link").symlink_to("a/file")
    state = Packing()
    data = b"".join(packed(root, state))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a", "link", "n" * 200, "a/b", "a/file"]
        content = archive.extractfile("a/file")
        assert content is not None
        assert content.read() == b"1" * 1_000_000
        assert archive.getmember("n" * 200).mode == 0o755
    assert (state.entries, state.size, state.skipped) == (5, 1_000_000, ())
    assert b"".join(packed(root, state)) == data
    assert state.entries == 5


def test_files_in_memory_are_packed(target: Path) -> None:
    data = b"".join(packed_files([("a/b", b"1"), ("c", b"")], mode=0o700))
    _unpack(data, target)
    assert (target / "a" / "b").read_bytes() == b"1"
    assert stat.S_IMODE((target / "c").stat().st_mode) == 0o700


def test_a_directory_of_nothing_but_links_outside_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("/proc/self/nothing")
    state = Packing()
    assert b"".join(packed(tmp_path, state)) == bytes(1024)
    assert [skipped.path for skipped in state.skipped] == ["gone"]
    with pytest.raises(FileNotFoundError):
        next(packed(tmp_path / "nothing", Packing()))


@pytest.mark.parametrize(
    ("name", "link", "inside"),
    [
        ("a", "b", True),
        ("a", "./b/c", True),
        ("a/b", "../c", True),
        ("a/b", "../../c", False),
        ("a", "..", False),
        ("a/b/c", "../x/../../y", False),
        ("a", "/b", False),
        ("a", "", False),
        ("a/b", "..", True),
    ],
)
def test_where_links_lead(name: str, link: str, inside: bool) -> None:
    assert stays_inside(name, link) is inside


def _untouched(target: Path) -> bool:
    return (target.parent / "beside").read_text() == "untouched"
