"""A function over a stream of items in several processes, in their order, with a bounded number of items under way;
and items handed out to threads so that Ctrl-C leaves none of them waiting.

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

from endings import UserError


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
            with interrupts_held_back():  # or a worker that has just started would not be in the list
                workers.append(Worker(function, start, arguments))
            idle.put(workers[-1])
        for item in items:
            under_way.append(queue.SimpleQueue())  # for one result, which a Future would guard with a lock
            with interrupts_held_back():
                threads.submit(ask, idle, item, under_way[-1])
            if len(under_way) > 4 * num_workers:
                yield result_of(under_way.popleft())
        while under_way:
            yield result_of(under_way.popleft())
    finally:
        with interrupts_held_back():
            for worker in workers:
                worker.process.kill()  # it is idle, or nobody wants its result any more
            threads.shutdown(cancel_futures=True)
            for worker in workers:
                worker.process.join()
                worker.pipe.close()


def ask(idle, item, answers):
    """Put into answers what a worker that is idle answers to an item, or (None, an error)."""
    worker = idle.get()
    try:
        worker.pipe.send(item)
        answers.put(worker.pipe.recv())
    except (EOFError, OSError):
        died = UserError("a worker process died, perhaps for lack of memory: use a smaller --num_workers")
        answers.put((None, died))
    except Exception as error:  # an item that cannot be sent, or a result that cannot be read
        answers.put((None, error))
    finally:
        idle.put(worker)


def result_of(answers):
    """The result that ask() puts into answers, when it is there. Raises the error."""
    result, error = answers.get()
    if error:
        raise error
    return result


def submitted(pool, function, items):
    """Have a ThreadPoolExecutor call function(item) for each item, and yield (item, its Future) in the order in which
    they end. Ctrl-C waits until all items are handed out. (Behind one in the library's as_completed() the threads can
    wait for ever.)"""
    ended, item_of = queue.SimpleQueue(), {}
    with interrupts_held_back():
        for item in items:
            future = pool.submit(function, item)
            item_of[future] = item
            future.add_done_callback(ended.put)
    for _ in range(len(item_of)):
        future = ended.get()
        yield item_of[future], future


@contextlib.contextmanager
def interrupts_held_back():
    """Ctrl-C takes effect after this block. Where threads are given work it could leave a lock closed, for which they
    then wait without end: the library's Condition, Semaphore and Event are Python code, in which it may come at any
    place."""
    came, before = [], signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # it is ignored, or comes in another thread
        return
    try:
        signal.signal(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])


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
            # With Ctrl-C masked it never gets to see one, which a terminal sends to every process: it would end in a
            # traceback before answer() could have it ignored.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self.process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
