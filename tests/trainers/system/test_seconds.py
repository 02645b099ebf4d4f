"""Seconds that a variable of the environment gives."""

import pytest

from trainers.errors import ConfigError
from trainers.system.seconds import seconds_given

NAME = "DINOLAB_SOME_S"


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 60), ("", 60), ("1", 1), ("2.5", 2.5), ("100", 100)]
)
def test_it_is_what_the_variable_says_or_the_default(monkeypatch, given, seconds):
    monkeypatch.delenv(NAME, raising=False)
    if given is not None:
        monkeypatch.setenv(NAME, given)
    assert seconds_given(NAME, 60, 100) == seconds


@pytest.mark.parametrize("given", ["0", "0.99", "-1", "101", "soon", "nan", "inf"])
def test_what_is_no_such_time_is_one_line(monkeypatch, given):
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ConfigError) as caught:
        seconds_given(NAME, 60, 100)
    assert str(caught.value) == f"{NAME}={given}: give seconds, from 1 to 100"
