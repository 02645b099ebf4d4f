"""Which changes of the code that judges would no test notice?

    pip install --target build/mutmut mutmut
    PYTHONPATH=build/mutmut python -m benchmarks.mutation [--first 1000] [--only '*.rule.*']

mutmut writes the mutants: a function each, of `ablations/statistics` and `ablations/verdicts`, in a
copy of the checkout. They are tried here, since mutmut itself passes over cached functions and
collects the tests again for each. Here these are collected once; each mutant is a fork that runs
those that call its function, until one fails.

Mutants of a text with a space in it are words for people, and not counted.
"""

import argparse
import ast
import contextlib
import difflib
import fnmatch
import gc
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from scipy.stats import binomtest

FOLDERS = ("ablations/statistics", "ablations/verdicts")
TESTS = tuple(f"tests/{folder}" for folder in FOLDERS)
CACHED = re.compile(r"^@(functools\.lru_cache\(.*\))\n(?=def (\w+))", re.MULTILINE)
MEMORY = 4 << 30
"""Bytes that a mutant may fill: one that asks for more is killed by the error."""


@dataclass(frozen=True)
class Mutant:
    name: str
    """As mutmut has it: module.x_function__mutmut_number."""
    change: str

    @property
    def function(self) -> str:
        return self.name.partition("__mutmut_")[0]

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]


def copied(folder: Path) -> None:
    """Copy what git has of this checkout."""
    files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True)
    for name in filter(None, files.stdout.split("\0")):
        if Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, folder / name)


def uncached(source: str) -> str:
    """The module with caches put on after the definitions: mutmut passes over what is decorated."""
    later = "".join(f"\n\n{name} = {cache}({name})\n" for cache, name in CACHED.findall(source))
    return CACHED.sub("", source) + later


def words_gone(code: str) -> str:
    """A function without its name, and without strings that have a space."""
    tree = ast.parse(textwrap.dedent(code)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.name = "function"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            node.value = " "
    return ast.unparse(tree)


def mutated(folder: Path) -> Iterator[Mutant]:
    """Put every mutant of the copy in `folder` beside its function; yield those that count."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    for path in sorted(one for part in FOLDERS for one in (folder / part).glob("*.py")):
        name = path.relative_to(folder)
        made = mutate_file_contents(str(name), uncached(path.read_text()))
        path.write_text(made.code)
        lines = made.code.splitlines()

        def body(function: str, spans=made.line_span_by_function_name, lines=lines) -> str:
            return words_gone("\n".join(lines[spans[function].start - 1 : spans[function].end]))

        for mutant in made.mutant_names:
            before, after = body(f"{mutant.partition('__mutmut_')[0]}__mutmut_orig"), body(mutant)
            if before != after:
                diff = list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=0))[2:]
                change = "\n".join(line for line in diff if not line.startswith("@@"))
                yield Mutant(".".join([*name.with_suffix("").parts, mutant]), change)


def cold() -> None:
    """Empty every cache of the code under test."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ablations."):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def measure(items: Sequence[pytest.Item], path: Path) -> None:
    """Run each test once; write the functions that it calls and its processor seconds."""
    from mutmut.mutation import trampoline

    os.environ["MUTANT_UNDER_TEST"] = "stats"
    called: set[str] = set()
    trampoline.record_trampoline_hit = lambda name, caller=None: called.add(name)
    found = {}
    for item in items:
        cold()
        called.clear()
        before = time.process_time()
        if not passes(item):
            raise SystemExit(f"{item.nodeid} fails without a mutant.")
        found[item.nodeid] = (time.process_time() - before, sorted(called))
    path.write_text(json.dumps(found))


def attempt(name: str, items: Sequence[pytest.Item], seconds: float) -> None:
    """Ends this process: with 0 if no test fails, 1 if one does, a signal after `seconds`."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.environ["MUTANT_UNDER_TEST"] = name
    cold()
    raise SystemExit(0 if all(map(passes, items)) else 1)


@dataclass
class Trials:
    """A plugin of pytest: in place of each test once, the tests of each mutant."""

    mutants: Sequence[Mutant]
    results: Path
    seconds: float
    at_once: int

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        fork = multiprocessing.get_context("fork")
        measured = self.results.with_suffix(".tests.json")
        first = fork.Process(target=measure, args=(session.items, measured))
        first.start()
        first.join()
        if first.exitcode:
            raise pytest.UsageError("the tests do not pass without a mutant")
        found = json.loads(measured.read_text())
        gc.freeze()  # so that forks share what is there
        by_function = defaultdict(list)
        for item in session.items:
            for function in found[item.nodeid][1]:
                by_function[function].append(item)

        def chosen(mutant: Mutant) -> tuple[list[pytest.Item], float]:
            """Tests of its module first, quickest first, and their seconds."""
            own = "test_" + mutant.module.rpartition(".")[2]
            items = sorted(
                by_function[mutant.function],
                key=lambda item: (item.path.stem != own, found[item.nodeid][0]),
            )
            spent, some = 0.0, []
            for item in items:
                if spent + found[item.nodeid][0] <= self.seconds:
                    spent += found[item.nodeid][0]
                    some.append(item)
            return some, spent

        running = {}
        with self.results.open("a") as out:

            def ended() -> None:
                for sentinel in wait(list(running)):
                    process, mutant, count = running.pop(sentinel)
                    process.join()
                    outcome = {0: "survived", 1: "killed"}.get(process.exitcode, "timeout")
                    row = {"mutant": mutant.name, "outcome": outcome, "tests": count}
                    out.write(json.dumps({**row, "change": mutant.change}) + "\n")
                    out.flush()

            for mutant in self.mutants:
                items, spent = chosen(mutant)
                process = fork.Process(target=attempt, args=(mutant.name, items, 10 + 3 * spent))
                process.start()
                running[process.sentinel] = process, mutant, len(items)
                if len(running) == self.at_once:
                    ended()
            while running:
                ended()
        return True


def share(killed: int, tried: int) -> str:
    """A share in percent, and its 95 % interval by Wilson."""
    interval = binomtest(killed, tried).proportion_ci(method="wilson")
    return f"{killed / tried:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def rows_of(results: Path) -> list[dict[str, Any]]:
    """What became of each mutant, the newest trial of each."""
    rows = map(json.loads, results.read_text().splitlines())
    return list({row["mutant"]: row for row in rows}.values())


def is_killed(row: dict[str, Any]) -> bool:
    return row["outcome"] != "survived"


def report(mutants: Sequence[Mutant], results: Path) -> None:
    """Print the table, and every survivor with what it changes."""
    made = Counter(one.module for one in mutants)
    tried = defaultdict(list)
    for row in rows_of(results):
        tried[row["mutant"].rpartition(".")[0]].append(row)
    print("| module | mutants | tried | killed | survived | share killed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for module in [*sorted(tried), ""]:
        rows = tried[module] if module else [row for of in tried.values() for row in of]
        killed = sum(map(is_killed, rows))
        name = module.removeprefix("ablations.") or "all"
        of = made[module] if module else len(mutants)
        lived = len(rows) - killed
        print(f"| {name} | {of} | {len(rows)} | {killed} | {lived} | {share(killed, len(rows))} |")
    for row in sorted(rows, key=lambda row: row["mutant"]):
        if not is_killed(row):
            print(f"\n{row['mutant']}, {row['tests']} tests\n{row['change']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--first", type=int, help="so many of the mutants, drawn at random")
    parser.add_argument("--draw", type=int, default=0, help="which draw: seed of that order")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names of mutants")
    parser.add_argument("--seconds", type=float, default=10, help="of tests for each")
    parser.add_argument("--at-once", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path("build/mutation.jsonl"))
    parser.add_argument("--again", action="store_true", help="only what survived in the results")
    parser.add_argument("--report", action="store_true", help="print the results that are there")
    asked = parser.parse_args()
    results = asked.results.resolve()
    results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "copy")
        copied(folder)
        mutants = list(mutated(folder))
        if not asked.report:
            some = [one for one in mutants if any(fnmatch.fnmatch(one.name, p) for p in asked.only)]
            random.Random(asked.draw).shuffle(some)
            if asked.again:
                survived = {row["mutant"] for row in rows_of(results) if not is_killed(row)}
                some = [one for one in some if one.name in survived]
            else:
                results.unlink(missing_ok=True)
            sys.path.insert(0, str(folder))
            trials = Trials(some[: asked.first], results, asked.seconds, asked.at_once)
            # Without the conftest of all tests, which imports torch.
            plain = ["-q", "-n0", "--noconftest", "-p", "no:cacheprovider"]
            with contextlib.chdir(folder):
                code = pytest.main([*plain, f"--basetemp={place}/pytest", *TESTS], plugins=[trials])
            if code:
                sys.exit(code)
    report(mutants, results)


if __name__ == "__main__":
    main()
