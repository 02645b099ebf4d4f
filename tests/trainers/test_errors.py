"""What errors say on one line."""

import pytest

from trainers.errors import DataError, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n\n  one\r\ntwo"), "one"),
        (ValueError("  "), "ValueError"),
        (DataError(), "DataError"),
    ],
)
def test_the_first_line_of_an_error_is_its_text_or_its_kind(error, line):
    assert first_line(error) == line
