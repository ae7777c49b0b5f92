"""A function over a stream of items in several processes, in their order, with a bounded number of items under way."""

import collections
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from configurator import UserError


def mapped(function, items, num_workers, start, *arguments):
    """Yield function(state, item), state being what start(*arguments) gives in each process."""
    if num_workers == 1:
        state = start(*arguments)
        yield from (function(state, item) for item in items)
        return
    with ProcessPoolExecutor(num_workers, initializer=start_worker, initargs=(start, arguments)) as pool:
        under_way = collections.deque()
        try:
            for item in items:
                under_way.append(pool.submit(call, function, item))
                if len(under_way) > 4 * num_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process died, perhaps for lack of memory: use a smaller --num_workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


def start_worker(start, arguments):
    global state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, and the worker ends when that is killed
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    state = start(*arguments)


def call(function, item):
    return function(state, item)
