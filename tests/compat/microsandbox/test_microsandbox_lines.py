"""Lines of output: their order, and that what is kept of them is bounded."""

import pytest

from cove.compat.microsandbox.lines import Transcript


def _texts(transcript: Transcript) -> list[tuple[str, str]]:
    return [(line.stream, line.text) for line in transcript.lines()]


def test_lines_come_in_the_order_in_which_they_were_finished() -> None:
    transcript = Transcript(limit=1000, lines=100)
    for stream, piece in (("stdout", "a"), ("stderr", "x\ny"), ("stdout", "b\n\nc"), ("stderr", "z\r\n")):
        transcript.take(stream, piece)
    assert _texts(transcript) == [
        ("stderr", "x"),
        ("stdout", "ab"),
        ("stdout", ""),
        ("stderr", "yz"),
        ("stdout", "c"),
    ]


def test_nothing_printed_is_no_line() -> None:
    transcript = Transcript(limit=1000, lines=100)
    transcript.take("stdout", "")
    assert _texts(transcript) == []


def test_a_line_of_ours_does_not_run_into_one_of_the_program() -> None:
    transcript = Transcript(limit=1000, lines=100)
    transcript.take("stderr", "unfinished")
    transcript.take_line("stderr", "note")
    assert _texts(transcript) == [("stderr", "unfinished"), ("stderr", "note")]


@pytest.mark.parametrize("piece", [1, 7, 5000])
@pytest.mark.parametrize(
    "printed", ["".join(f"{n}\n" for n in range(2000)), "x" * 9000 + "end", "\n" * 9000, "ab\n" * 30]
)
def test_head_and_tail_are_kept_and_the_rest_is_counted(printed: str, piece: int) -> None:
    limit = 1000
    transcript = Transcript(limit=limit, lines=1000)
    for start in range(0, len(printed), piece):
        transcript.take("stdout", printed[start : start + piece])
    texts = [text for _, text in _texts(transcript)]
    joined = "\n".join(texts)
    marks = [text for text in texts if text.startswith("[... ")]
    if len(printed) <= limit:
        assert joined + "\n" == printed
        return
    assert len(marks) == 1
    kept = len(joined) - len(marks[0])
    assert 0.9 * limit < kept <= limit + 10
    left_out = int(marks[0].split()[1])
    assert abs(kept + left_out - len(printed)) < 20
    assert joined.startswith(printed[:100])
    assert joined.endswith(printed[-100:].removesuffix("\n"))


def test_a_long_line_that_fits_stays_whole() -> None:
    transcript = Transcript(limit=1000, lines=1000)
    transcript.take("stdout", "a" * 900 + "\nb\n")
    assert _texts(transcript) == [("stdout", "a" * 900), ("stdout", "b")]


def test_the_number_of_lines_is_bounded_too() -> None:
    transcript = Transcript(limit=10_000, lines=50)
    transcript.take("stdout", "\n" * 9000)
    assert len(_texts(transcript)) <= 51
