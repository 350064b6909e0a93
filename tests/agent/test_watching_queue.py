"""The bounded queue of changes, without a file system."""

from cove.agent.files.watching_queue import MAX_CHANGES, Change, ChangeQueue, Kind
from cove.models.frames import ChangeFrame, OverflowFrame


def taken(queue: ChangeQueue) -> list[str]:
    """All that waits, in words."""
    found: list[str] = []
    while not queue.empty:
        frame = queue.take()
        found.append("overflow" if isinstance(frame, OverflowFrame) else f"{frame.event} {frame.path}")
    return found


def filled() -> ChangeQueue:
    queue = ChangeQueue(b"/w")
    for number in range(MAX_CHANGES + 1000):
        queue.put(Change(b"/w/%d" % number, "created"))
    return queue


def test_what_is_told_anyway_is_told_once() -> None:
    queue = ChangeQueue(b"/w")
    kinds: tuple[Kind, ...] = ("created", "modified", "modified", "deleted", "created", "modified", "modified")
    for kind in kinds:
        queue.put(Change(b"/w/a", kind))
    assert taken(queue) == ["created /w/a", "deleted /w/a", "created /w/a"]


def test_what_was_told_is_told_again() -> None:
    queue = ChangeQueue(b"/w")
    queue.put(Change(b"/w/a", "modified"))
    assert taken(queue) == ["modified /w/a"]
    queue.put(Change(b"/w/a", "modified"))
    assert taken(queue) == ["modified /w/a"]


def test_a_path_is_new_after_a_rename() -> None:
    queue = ChangeQueue(b"/w")
    queue.put(Change(b"/w/a", "created"))
    queue.put(Change(b"/w/b", "renamed", old_path=b"/w/a"))
    queue.put(Change(b"/w/a", "created"))
    queue.put(Change(b"/w/b", "modified"))
    assert taken(queue) == ["created /w/a", "renamed /w/b", "created /w/a", "modified /w/b"]


def test_what_is_too_much_is_one_overflow_at_its_place() -> None:
    queue = filled()
    found = taken(queue)
    assert len(found) == MAX_CHANGES + 1
    assert found[-1] == "overflow"
    queue.put(Change(b"/w/new", "created"))
    assert taken(queue) == ["created /w/new"]


def test_nothing_is_told_between_the_loss_and_its_mark() -> None:
    queue = filled()
    first = queue.take()
    assert isinstance(first, ChangeFrame)
    queue.put(Change(b"/w/later", "created"))
    queue.overflow()
    assert taken(queue)[-2:] == [f"created /w/{MAX_CHANGES - 1}", "overflow"]


def test_paths_that_were_told_are_not_remembered() -> None:
    queue = ChangeQueue(b"/w")
    queue.put(Change(b"/w/stays", "created"))
    for number in range(10 * MAX_CHANGES):
        queue.put(Change(b"/w/n%d" % number, "renamed", old_path=b"/w/o%d" % number))
        queue.take()
    assert len(queue._last) <= 3  # pyright: ignore[reportPrivateUsage]
