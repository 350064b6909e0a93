"""What builds say is bounded."""

from cove.core.build_log import MAX_CHARACTERS, BuildLog


def test_a_long_log_is_cut_and_says_so() -> None:
    log = BuildLog()
    line = "x" * 1000
    for _ in range(MAX_CHARACTERS // 1000):
        log.say(line)
    log.say("never seen")
    assert len(log.text) == MAX_CHARACTERS
    assert log.text.endswith("what follows is left out]\n")
    assert log.text.count("left out") == 1


def test_of_a_long_output_the_end_is_kept() -> None:
    log = BuildLog()
    log.output("a" * 100_000 + "the reason")
    log.output("")
    assert log.text.endswith("the reason\n")
    assert log.text.startswith("[34474 characters left out]\n")
    assert len(log.text) < 66_000
