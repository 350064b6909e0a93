"""What is tried, what must happen, and how it is known that the wall makes the difference: a mark on every test here.

`tools/generate_security_table.py` makes docs/security-results.md of these marks and of the outcomes of a run.
"""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Attack:
    """One row of the table.

    Attributes:
        tried: the attempt.
        expected: what must happen.
        control: what shows that the attempt works where the wall is not; empty where trying would harm the machine.
    """

    tried: str
    expected: str
    control: str


def attack(tried: str, *, expected: str, control: str) -> pytest.MarkDecorator:
    """Mark a test with its row."""
    return pytest.mark.attack.with_args(Attack(tried, expected, control))
