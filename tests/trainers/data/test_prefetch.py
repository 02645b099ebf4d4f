"""The next batches are made while one is used, in order, and nothing is left running."""

import gc
import threading

import pytest

from trainers.data.prefetch import prefetch


def running() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
def test_all_steps_come_in_order(ahead):
    assert list(prefetch(lambda step: step * step, range(3, 20), ahead)) == [
        step * step for step in range(3, 20)
    ]
    assert running() == 0


def test_two_threads_make_two_steps_at_once_and_keep_their_order():
    both = threading.Barrier(2, timeout=30)

    def make(step: int) -> int:
        both.wait()  # broken if the steps came one after the other
        return step

    assert list(prefetch(make, range(8), 3, threads=2)) == list(range(8))
    assert running() == 0


def test_no_steps_give_nothing():
    assert list(prefetch(str, range(0), 2)) == []


def test_the_next_is_made_while_this_one_is_used():
    begun = threading.Event()

    def make(step: int) -> int:
        if step == 1:
            begun.set()
        return step

    made = prefetch(make, range(3), 1)
    assert next(made) == 0
    assert begun.wait(30)  # set by no one if step 1 waited to be asked for
    made.close()


def test_no_more_than_asked_for_are_made_beforehand():
    called: list[int] = []

    def make(step: int) -> int:
        called.append(step)
        return step

    made = prefetch(make, range(100), 3)
    next(made)
    next(made)
    made.close()
    assert len(called) <= 2 + 3


def test_an_error_comes_in_its_turn():
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    made = prefetch(make, range(5), 4)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="step 2"):
        next(made)
    assert running() == 0


@pytest.mark.parametrize("way", ["close", "break", "forget", "throw"])
def test_an_early_end_leaves_no_thread(way):
    made = prefetch(lambda step: step, range(1000), 5)
    if way == "break":
        for step in made:
            if step == 3:
                break
    else:
        next(made)
    if way == "throw":
        with pytest.raises(KeyboardInterrupt):
            made.throw(KeyboardInterrupt)
    elif way == "close":
        made.close()
    del made
    gc.collect()
    assert running() == 0


def test_only_one_thread_makes():
    threads = set(prefetch(lambda _: threading.get_ident(), range(50), 4))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
