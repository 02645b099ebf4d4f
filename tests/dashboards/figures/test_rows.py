"""Rows of a forest: everything has room, and numbers of the axis can be read."""

import itertools

import pytest

from dashboards.figures.rows import WIDTH, Row, Scale, row_of, scale_for


@pytest.mark.parametrize("largest", [0.0, 0.3, 2.0, 7.9, 8.1, 24.0, 250.0, 3e5, 1e9])
def test_whatever_is_drawn_has_room_and_numbers_stand_apart(largest):
    row = Row([(largest, ""), (-largest, "")], 0.0, [((-largest, largest), 2)])
    scale = scale_for([row])
    assert scale(0) == WIDTH / 2
    assert scale(largest) + scale(-largest) == pytest.approx(WIDTH)
    assert 6 <= scale(-largest) <= scale(largest) <= WIDTH - 6
    places = [place for place, _ in scale.ticks]
    assert all(later - one >= 30 for one, later in itertools.pairwise(places))
    ends = [(place - 3.5 * len(text), place + 3.5 * len(text)) for place, text in scale.ticks]
    assert all(later - end >= 5 for (_, end), (later, _) in itertools.pairwise(ends))
    assert ends[0][0] >= 0
    assert ends[-1][1] <= WIDTH
    assert "0" in [text for _, text in scale.ticks]


def test_only_large_effects_compress_the_axis():
    assert not scale_for([Row([(8.0, "")], None, [])]).stretched
    assert scale_for([Row([(8.1, "")], None, [])]).stretched
    assert scale_for([]) == Scale(2.2)


@pytest.mark.parametrize(
    ("direction", "ends"),
    [
        ("rises", [(1, 2)]),
        ("falls", [(-2, -1)]),
        ("differs", [(-2, -1), (1, 2)]),
        ("holds", [(-1, 1)]),
    ],
)
def test_what_is_shaded_is_what_was_predicted(direction, ends):
    scale = Scale(2.0)
    row = row_of("failed", direction, [], None, None, None)
    assert row.intervals == []
    assert row.bands(scale) == [(scale(low), scale(high)) for low, high in ends]
