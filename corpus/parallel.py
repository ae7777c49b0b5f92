"""A function over a stream of items in several processes, in their order, with a bounded number of items under way."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from configurator import UserError


def mapped(function, items, num_workers, start, *arguments):
    """Yield function(state, item) for each item, in order. state is what start(*arguments) returns, which is called
    once in each process. One worker means this process. Raises UserError if a process dies."""
    if num_workers == 1:
        state = start(*arguments)
        yield from (function(state, item) for item in items)
        return
    with lack_of_room_named():
        pool = ProcessPoolExecutor(num_workers, initializer=start_worker, initargs=(start, arguments))
    with pool:
        under_way = collections.deque()
        try:
            for item in items:
                with interrupts_held_back(), lack_of_room_named():  # submitting starts the processes
                    under_way.append(pool.submit(call, function, item))
                if len(under_way) > 4 * num_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process died, perhaps for lack of memory: use a smaller --num_workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def lack_of_room_named():
    """An error of the system inside becomes a UserError: it does not say by itself that it is about processes."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"no room for worker processes, which need some of /dev/shm ({error}): --num_workers=1 does without them"
        ) from None


@contextlib.contextmanager
def interrupts_held_back():
    """Ctrl-C, which a terminal sends to every process, takes effect after this block. A process that is started in it
    never gets to see one: it would end in a traceback before start_worker() could have it ignored."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(start, arguments):
    """In a worker process: make its state, a global variable, and have the process end when its parent does."""
    global state

    def end_with_parent():
        """Wait for the parent to end, even if it is killed."""
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=end_with_parent, daemon=True).start()
    state = start(*arguments)


def call(function, item):
    """In a worker process: function(state, item)."""
    return function(state, item)
