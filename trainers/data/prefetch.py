"""The next batches are made while this one is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], steps: range, ahead: int, threads: int = 1) -> Iterator[T]:
    """`make(step)` for each step in order, up to `ahead` of them made beforehand on `threads`.

    Only those threads call `make`. What it raises is raised here, in its turn. When the iterator is
    closed, or forgotten, calls under way are waited for and no other begins. With `ahead` 0 all
    is made here, when it is asked for.
    """
    if ahead == 0:
        for step in steps:
            yield make(step)
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
