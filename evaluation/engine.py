"""Many people's requests in one batch: a thread that gives every text in it its next token, again and again. A new
request joins at the next token, one that has ended, or whose person has gone, leaves its place to another.

    asks:      Job(rows) -> Engine.add() -> its rows wait -> a free row of the batch -> Row.add() token by token
    answers:   every row tells its job what is new; the thread that serves the person waits for that
"""

import queue
import threading
from collections import deque

import torch

from evaluation.generate import begin, go_on
from model import KVCache


class Full(Exception):
    """More texts wait than the engine takes."""


class Job:
    """What one request asks for: Rows, and what has become of them. news: a queue of (number of the row, new bytes), of
    (number, None) for each row that has ended, and of an exception where the engine has failed."""

    def __init__(self):
        self.rows, self.news = [], queue.SimpleQueue()

    def add(self, row):
        """Take a Row into this job: what it writes goes to the job's news."""
        number = len(self.rows)
        row.on_bytes = lambda data: self.news.put((number, data))
        row.on_end = lambda: self.news.put((number, None))
        self.rows.append(row)
        if row.reason:  # nothing to write
            row.on_end()

    def n_open(self):
        """How many of its rows have not ended."""
        return sum(not row.reason for row in self.rows)

    def cancel(self):
        """Nobody waits for the answer any more: the engine drops the rows at the next token."""
        for row in self.rows:
            row.reason = row.reason or "cancelled"


class Engine:
    """The thread, and what waits for it. on_step(number of rows): called behind every step, for tests and figures."""

    def __init__(self, model, tokenizer, batch_size, most_waiting, on_step=None):
        self.model, self.tokenizer, self.on_step = model, tokenizer, on_step
        self.waiting, self.most_waiting, self.changed = deque(), most_waiting, threading.Condition()
        self.rows, self.stopping, self.tasks = [None] * batch_size, False, deque()
        self.cache = KVCache(model, batch_size, model.config.block_size)
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def add(self, job):
        """Let a job's rows wait for their turn. Raises Full."""
        new = [row for row in job.rows if not row.reason]
        with self.changed:
            self.waiting = deque(pair for pair in self.waiting if not pair[0].reason)  # without those whose client left
            if len(self.waiting) + len(new) > self.most_waiting + self.rows.count(None):  # free places need no waiting
                raise Full
            self.waiting += [(row, job) for row in new]
            self.changed.notify()

    def run(self, function):
        """function(model) of the engine's thread, which alone uses the model: what it returns or raises."""
        done = queue.SimpleQueue()
        with self.changed:
            if len(self.waiting) + len(self.tasks) >= self.most_waiting:
                raise Full
            self.tasks.append((function, done))
            self.changed.notify()
        result, error = done.get()
        if error:
            raise error
        return result

    def stop(self):
        """End the thread."""
        with self.changed:
            self.stopping = True
            self.changed.notify()
        self.thread.join()

    @torch.inference_mode()
    def work(self):
        """One step after another, as long as there is something to do."""
        while True:
            with self.changed:
                while not (self.waiting or self.tasks or any(self.rows) or self.stopping):
                    self.changed.wait()
                if self.stopping:
                    return
                task = self.tasks.popleft() if self.tasks else None  # one at a time: the batch waits for it
                new = self.take_places()
            if task:
                function, done = task
                try:
                    done.put((function(self.model), None))
                except Exception as error:  # it is raised where the result is asked for
                    done.put((None, error))
            self.step(new)

    def take_places(self):
        """Give free places of the batch to rows that wait; the numbers of these places."""
        new = []
        for number, taken in enumerate(self.rows):
            while taken is None and self.waiting:
                row, job = self.waiting.popleft()
                if not row.reason:  # else it was cancelled
                    self.rows[number] = taken = row, job
                    new.append(number)
        return new

    def step(self, new):
        """The next token of every row in the batch; new: the places whose texts have none yet."""
        old = [number for number, taken in enumerate(self.rows) if taken and number not in new]
        rows = [taken and taken[0] for taken in self.rows]
        try:
            if new:
                begin(self.model, self.tokenizer, self.cache, rows, new)
            if old:
                go_on(self.model, self.tokenizer, self.cache, rows, old)
        except Exception as error:  # of the device: the requests in the batch fail, later ones may succeed
            for row, job in filter(None, self.rows):
                if not row.reason:  # else its text has just ended
                    row.reason = "error"
                    job.news.put(error)
        if self.on_step:
            self.on_step(len(new) + len(old))
        for number, row in enumerate(rows):
            if row and row.reason:
                self.rows[number] = None
