"""inotify(7) itself."""

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from cove.linux.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    Event,
    Inotify,
)

MASK = IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    instance = Inotify()
    yield instance
    instance.close()


def test_events_have_names_and_kinds(inotify: Inotify, tmp_path: Path) -> None:
    watch = inotify.add(os.fsencode(tmp_path), MASK)
    (tmp_path / "file").touch()
    (tmp_path / ("n" * 255)).mkdir()
    assert inotify.read() == [
        Event(watch, IN_CREATE, 0, b"file"),
        Event(watch, IN_CREATE | IN_ISDIR, 0, b"n" * 255),
    ]


def test_reading_never_blocks(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(os.fsencode(tmp_path), MASK)
    assert inotify.read() == []
    (tmp_path / "file").touch()
    assert select.select([inotify.fileno()], [], [], 10)[0]


def test_both_halves_of_a_rename_have_one_cookie(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(os.fsencode(tmp_path), MASK)
    (tmp_path / "a").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    _, gone, come = inotify.read()
    assert (gone.mask, gone.name, come.mask, come.name) == (IN_MOVED_FROM, b"a", IN_MOVED_TO, b"b")
    assert gone.cookie == come.cookie != 0


def test_one_directory_is_one_watch(inotify: Inotify, tmp_path: Path) -> None:
    assert inotify.add(os.fsencode(tmp_path), MASK) == inotify.add(os.fsencode(tmp_path) + b"/.", MASK)


def test_a_watch_ends_with_its_directory(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    watch = inotify.add(os.fsencode(tmp_path / "d"), MASK)
    (tmp_path / "d").rmdir()
    assert [event.mask for event in inotify.read() if event.watch == watch] == [IN_DELETE_SELF, IN_IGNORED]
    inotify.remove(watch)


@pytest.mark.parametrize(("name", "number"), [("link", errno.ENOTDIR), ("file", errno.ENOTDIR), ("no", errno.ENOENT)])
def test_only_directories_themselves(inotify: Inotify, tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError) as raised:
        inotify.add(os.fsencode(tmp_path / name), MASK)
    assert raised.value.errno == number


def test_it_is_not_inherited_by_programs(inotify: Inotify) -> None:
    assert not os.get_inheritable(inotify.fileno())
