"""A function over a stream of items in several processes, in their order, with a bounded number of items under way.

Each process has a pipe of its own, and a thread that gives it one item at a time and waits for the result. A process
that dies, even halfway through a result, closes its pipe, which the thread sees at once. (In the library's
ProcessPoolExecutor all processes write to one pipe, which stays open: it can wait for ever for a result's other half.)
"""

import collections
import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

from configurator import UserError


def mapped(function, items, num_workers, start, *arguments):
    """Yield function(state, item) for each item, in order. state is what start(*arguments) returns, which is called
    once in each process. One worker means this process. Raises UserError if a process dies."""
    if num_workers == 1:
        state = start(*arguments)
        yield from (function(state, item) for item in items)
        return
    workers, idle, under_way = [], queue.SimpleQueue(), collections.deque()
    threads = ThreadPoolExecutor(num_workers)
    try:
        for _ in range(num_workers):
            workers.append(Worker(function, start, arguments))
            idle.put(workers[-1])
        for item in items:
            under_way.append(threads.submit(ask, idle, item))
            if len(under_way) > 4 * num_workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for worker in workers:
            worker.process.kill()  # it is idle, or nobody wants its result any more
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def ask(idle, item):
    """The result for one item of a worker that is idle."""
    worker = idle.get()
    try:
        worker.pipe.send(item)
        result, error = worker.pipe.recv()
    except (EOFError, OSError):
        raise UserError("a worker process died, perhaps for lack of memory: use a smaller --num_workers") from None
    finally:
        idle.put(worker)
    if error:
        raise error
    return result


class Worker:
    """A process that answers each item with (function(state, item), None) or (None, the error it raised)."""

    def __init__(self, function, start, arguments):
        try:
            self.pipe, other_end = multiprocessing.Pipe()
            job = (other_end, function, start, arguments)
            self.process = multiprocessing.Process(target=answer, args=job, daemon=True)
            if multiprocessing.get_start_method() != "fork":
                # Started with the first process, it would let signals through again while that one starts.
                resource_tracker.ensure_running()
            with interrupts_held_back():
                self.process.start()
        except OSError as error:  # it does not say by itself that it is about processes
            raise UserError(f"no room for a worker process ({error}): --num_workers=1 does without them") from None
        other_end.close()  # so that the pipe ends with the process


def answer(pipe, function, start, arguments):
    """What a worker process does."""
    live_with_parent()
    state = functools.cache(lambda: start(*arguments))  # made for the first item, which then has its error
    while True:
        item = pipe.recv()
        try:
            pipe.send((function(state(), item), None))
        except Exception as error:
            error.add_note("In a worker process:\n" + traceback.format_exc())  # an error alone crosses without it
            pipe.send((None, error))


def live_with_parent():
    """In a process that multiprocessing has started: leave Ctrl-C to the parent, and end when that ends, even if it is
    killed."""

    def end_with_parent():
        """Wait for the parent to end."""
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def interrupts_held_back():
    """Ctrl-C, which a terminal sends to every process, takes effect after this block. A process that is started in it
    never gets to see one: it would end in a traceback before answer() could have it ignored."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
