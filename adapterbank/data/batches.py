"""Many images decoded by a few threads, in order and a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from adapterbank.cores import usable_cores

DECODERS = 4
"""Threads that decode at once, at most: PIL releases the interpreter lock."""

TOGETHER = 64
"""Images that are decoded together; 10 MB at 224 px."""

Progress = Callable[[int, int], None]
"""Called with (images decoded, images in all), in the thread that asked for them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    decode: Callable[[Item], Result], items: Iterable[Item], size: int, *, ahead: bool = True
) -> Generator[list[Result], None, None]:
    """Decode items by a few threads and yield what they give, in order, a batch at a time.

    While the caller works on one batch the next is decoded, and no more than that one, so at most
    two are in memory. Closing the generator stops the threads.

    Args:
        decode: makes one result of one item; called in a thread.
        items: taken a batch at a time, in the caller's thread.
        size: items in a batch.
        ahead: take the next batch before the caller asks for it. Not for items that have to be
            waited for: the results before them would wait too.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(min(DECODERS, usable_cores()), thread_name_prefix="decode")

    def start() -> list[Future[Result]]:
        return [pool.submit(decode, item) for item in islice(rest, size)]

    try:
        batch = start()
        while batch:
            results = [future.result() for future in batch]
            batch = start() if ahead else []
            yield results
            batch = batch if ahead else start()
    finally:
        pool.shutdown(cancel_futures=True)
