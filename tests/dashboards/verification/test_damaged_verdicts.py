"""Whatever stands in `verdicts.json`, a verification says it in a line."""

from pathlib import Path

import pytest

from dashboards.verification.derived import Derived, _check_verdicts
from dashboards.verification.looks import _taken
from dashboards.verification.study import _judged_as
from trainers.system.store import open_store

LOOK = '{{"hypotheses": {{"h": {{"verdict": {{"looks": [{{"seeds": {}}}], "seeds": [0]}}}}}}}}'
NUMBERS = ["Infinity", "-Infinity", "NaN", "1e999", "9" * 5000, "true", "null", "[6]", '"6"', "6.5"]
CONTENTS = [
    *(LOOK.format(one) for one in NUMBERS),
    *("", "Infinity", "[]", "true", "\x00", "[" * 200_000, '{"hypotheses": [1]}'),
    *('{"registration": [1]}', '{"registration": {"sha256": [1]}}', LOOK.format(6) + "}"),
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda one: repr(one[:90]))
def test_it_is_a_finding_and_no_look(tmp_path: Path, content: str) -> None:
    assert _taken(content.encode()) == {}
    derived = Derived()
    _check_verdicts(content.encode(), {"hypotheses": {}}, "studies/s", derived)
    (found,) = derived.findings
    assert found.kind in ("damaged", "differs")
    assert "\n" not in found.line
    store = open_store(tmp_path, make=True)
    store.put("studies/s/verdicts.json", content.encode())
    assert _judged_as(store, "s", []) == 0


ODD = ["\\ud800", "a\\nb", "a\\u2028b", "\\u001b[2J", "\\u202e"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("of", ["a name", "a value"])
def test_odd_characters_are_said_in_one_line_that_can_be_written(odd: str, of: str) -> None:
    verdict = '{"verdict": {"looks": [{"seeds": 6}], "seeds": [0]}}'
    text = f'"h{odd}": {verdict}' if of == "a name" else f'"h": {{"verdict": "{odd}"}}'
    content = f'{{"hypotheses": {{{text}}}}}'.encode()
    derived = Derived()
    _check_verdicts(content, {"hypotheses": {}}, "studies/s", derived)
    for name in _taken(content):
        derived.found("deviated", "studies/s", f"hypothesis {name} was looked at")
    assert len(derived.findings) == 1 + (of == "a name")
    for found in derived.findings:
        for said in (found.line, *found.to_json().values()):
            assert said.encode().decode().isprintable()
