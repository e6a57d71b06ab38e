"""Numbers as people read them."""

import pytest

from codestage.report.text import count


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "–"),
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (999_400, "999k"),
        (999_936, "1M"),
        (999_999_999, "1B"),
        (4_560_000, "4.56M"),
        (-999_936, "-1M"),
        (7.8e12, "7.8T"),
    ],
)
def test_counts_are_rounded_before_their_unit_is_chosen(value, told):
    assert count(value) == told
