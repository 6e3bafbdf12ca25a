"""No golden case is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

CASES = range(1, 72)


def test_every_golden_case_is_a_named_test():
    text = "".join(each.read_text() for each in Path(__file__).parent.glob("test_*.py"))

    named = [
        number for name in re.findall(r"^def test((?:_g\d\d)+)_", text, re.MULTILINE) for number in name.split("_g")
    ]

    assert {int(number) for number in named if number} == {*CASES}
