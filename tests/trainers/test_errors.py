"""What errors say on one line."""

import pytest

from trainers.errors import DataError, first_line, listed, printable, reason


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


@pytest.mark.parametrize(
    ("names", "line"),
    [([], ""), (["a"], "a"), (list("abc"), "a, b, c"), (list("abcde"), "a, b, c and 2 more")],
)
def test_many_names_are_the_first_and_how_many_more_there_are(names, line):
    assert listed(names, most=3) == line


def test_what_is_shown_is_one_line_whatever_was_given():
    assert printable("a\nb\x1b[31mé") == r"a\nb\x1b[31mé"
    assert reason(OSError(2, "No such file")) == "No such file"
    assert reason(ValueError("a\n  b" + "c" * 400)) == "a b" + "c" * 297
