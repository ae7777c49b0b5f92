"""Rows that name their texts -> records with the texts, fetched from Software Heritage's public bucket.

The Stack v2, stack-edu and python-edu publish a blob_id for each file, or for each repository a list of such files; the
text is a gzip stream at BASE/<blob_id>. A SQLite file keeps what has come, as it came: no run asks for it again.
"""

import codecs
import http.client
import random
import re
import socket
import sqlite3
import zlib
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

from configurator import UserError
from corpus.records import Problem, escaped

BASE = "https://softwareheritage.s3.amazonaws.com/content"
CACHE = "data/blobs.sqlite"
WINDOW = 4096  # rows and files of repositories that are read ahead: so many can come while a slow one is waited for
MAX_SIZE, TIMEOUT = 64_000_000, 30  # bytes of a blob, compressed or not; seconds without a byte that end an attempt
WAITS = (0.1, 0.3, 0.9, 2.7, 8.1, 0)  # seconds after each attempt that fails; there are no more attempts
MAX_SILENT = 300  # attempts in a row, of all connections, without any answer, that end the run


class Lost(Exception):
    """A text that is not to be had. Its arguments are the rule and the detail of a Problem."""


def completed(items, base=BASE, cache=CACHE, connections=64, window=0):
    """Yield the items of a reader, (record, where) or Problem, in their order, each record with its text in the field
    "content", and so each file of a repository. A Problem takes the place of a text that is not to be had: no_blob,
    lost_blob, bad_encoding, vendor, generated. A file's comes before its repository, which goes on without the file.
    base is that address, cache that file; window: in WINDOW's place. Raises UserError if nobody answers, and for a
    cache that cannot be used."""
    if not re.fullmatch(r"https?://([\w.-]+|\[[\w:.]+\])(:\d{1,5})?(/[\w.~%/-]*)?", base, re.ASCII):
        raise UserError(f"{base!r} is no address of blobs: it takes http:// or https://, a host and a path")
    ahead, n_ahead, bucket = [], 0, None
    try:
        with ExitStack() as stack:
            for item in items:
                if not bucket and parts(item):  # data sets that have their texts need no threads and no cache
                    bucket = stack.enter_context(closing(Bucket(base, cache, connections)))
                row = [(part, where, bucket.ask(part) if lacks_text(part) else None) for part, where in parts(item)]
                ahead.append((item, row))
                n_ahead += 1 + len(row)
                while ahead and (n_ahead > (window or WINDOW) or not ahead[0][1]):
                    n_ahead -= 1 + len(ahead[0][1])
                    yield from finished(*ahead.pop(0))
            while ahead:
                yield from finished(*ahead.pop(0))
    except sqlite3.Error as error:
        raise UserError(f"cannot use the cache {cache}: {error}. If it is damaged, delete it") from None


def parts(item):
    """[(part, where)] of a row that lacks texts: the row itself, or all files of a repository. [] of any other item."""
    record, where = (None, None) if isinstance(item, Problem) else item
    files = record.get("files") if isinstance(record, dict) and not lacks_text(record) else None
    if isinstance(files, list) and any(map(lacks_text, files)):
        return [(file, f"{where}:{file.get('path') if isinstance(file, dict) else file}") for file in files]
    return [(record, where)] if lacks_text(record) else []


def lacks_text(part):
    """Whether a row, or a file of a repository, names a blob and has no text."""
    names_blob = isinstance(part, dict) and part.get("blob_id") is not None
    return names_blob and all(part.get(name) is None for name in ("content", "text", "code"))


def finished(item, row):
    """Yield an item with its texts, which are waited for, after the Problems of those that are not to be had."""
    found = []
    for part, where, blob in row:
        try:
            found.append({**part, "content": decoded(part, blob.result())} if blob else part)
        except Lost as lost:
            yield Problem(where, *lost.args)
    if not row:
        yield item
    elif found:
        yield (found[0] if row[0][0] is item[0] else {**item[0], "files": found}), item[1]


def decoded(part, body):
    """The text of a row or file, from the gzip bytes of its blob. Raises Lost."""
    encoding = part.get("src_encoding") or "utf-8"
    try:
        if codecs.lookup(encoding).name in ("unicode-escape", "raw-unicode-escape", "punycode", "idna"):  # of no file
            raise LookupError(f"unknown encoding: {encoding}")
        return gunzip(body).decode(encoding)
    except (LookupError, ValueError, TypeError) as error:  # TypeError: its name is no string
        raise Lost("bad_encoding", escaped(str(error))[:200]) from None


def gunzip(body):
    """The decompressed bytes of a gzip stream. Raises Lost, EOFError or zlib.error."""
    stream = zlib.decompressobj(wbits=31)
    data = stream.decompress(body, MAX_SIZE)
    if stream.unconsumed_tail or len(body) > MAX_SIZE:
        raise Lost("lost_blob", "too large")
    if not stream.eof or stream.unused_data:
        raise EOFError("truncated")
    return data


class Bucket:
    """Threads that fetch blobs, each over its own connection, and the cache, which one of them uses at a time."""

    def __init__(self, base, cache, connections):
        self.base, self.address = base, urlsplit(base.rstrip("/"))
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(cache, timeout=60, isolation_level=None, check_same_thread=False)
        with suppress(sqlite3.OperationalError):  # another process is just doing the same
            self.database.executescript("PRAGMA synchronous = NORMAL; PRAGMA journal_mode = WAL")  # enough for a kill
        self.database.execute("CREATE TABLE IF NOT EXISTS blobs (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self.jobs, self.under_way, self.lock, self.closing, self.n_silent = SimpleQueue(), {}, Lock(), Event(), 0
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        self.links = [kind(self.address.netloc, timeout=TIMEOUT) for _ in range(connections)]
        self.threads = [Thread(target=self.work, args=(link,), daemon=True) for link in self.links]
        for thread in self.threads:
            thread.start()

    def ask(self, part):
        """The Future of the gzip bytes of the blob that a row or file names. It may raise Lost."""
        key = str(part["blob_id"]), part.get("is_vendor") is True, part.get("is_generated") is True
        if not (blob := self.under_way.get(key)):
            blob = self.under_way[key] = Future()
            blob.add_done_callback(lambda _: self.under_way.pop(key))
            self.jobs.put((key, blob))
        return blob

    def work(self, link):
        """What a thread does: one blob after another. It keeps no process from ending, whatever it waits for."""
        while (job := self.jobs.get()) and not self.closing.is_set():
            key, blob = job
            try:
                blob.set_result(self.get(link, *key))
            except Exception as error:  # it is raised where the result is asked for
                blob.set_exception(error)

    def get(self, link, blob_id, is_vendor, is_generated):
        """The gzip bytes of a blob, from the cache if it has them. Raises Lost."""
        if is_vendor or is_generated:
            raise Lost("vendor" if is_vendor else "generated")
        if not re.fullmatch(r"(?!\.+$)[\w.-]{1,128}", blob_id, re.ASCII):  # ".." would be another path
            raise Lost("no_blob", f"not an id: {ascii(blob_id)[:140]}")
        with self.lock:
            row = self.database.execute("SELECT body FROM blobs WHERE id = ?", (blob_id,)).fetchone()
        with suppress(TypeError, EOFError, zlib.error):  # it is not there, or damaged
            gunzip(row[0])
            return row[0]
        body = self.fetch(link, blob_id)
        with self.lock:
            self.database.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?)", (blob_id, body))
        return body

    def fetch(self, link, blob_id):
        """The gzip bytes of a blob from the bucket, after as many attempts as there are WAITS. Raises Lost."""
        for seconds in WAITS:
            try:
                return self.attempt(link, blob_id)
            except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
                self.n_silent += isinstance(error, OSError)
                detail = getattr(error, "strerror", None) or str(error)
            link.close()
            if self.closing.wait(seconds * random.SystemRandom().uniform(0.5, 1)):  # no seeded numbers are drawn
                break
        if self.n_silent >= MAX_SILENT:
            raise UserError(f"cannot reach {self.base}: {detail}")
        raise Lost("lost_blob", detail[:200])

    def attempt(self, link, blob_id):
        """The gzip bytes of one answer. Raises Lost, or anything else where another attempt may do better."""
        link.request("GET", f"{self.address.path}/{blob_id}")
        response = link.getresponse()
        self.n_silent = 0
        body, status = response.read(MAX_SIZE + 1), response.status
        if status >= 500 or status in (408, 429):
            raise http.client.HTTPException(str(status))
        if status != 200:  # redirects too, which may lead anywhere
            raise Lost("no_blob" if status in (403, 404, 410) else "lost_blob", str(status))
        gunzip(body)  # only a whole body passes, whatever Content-Length says
        return body

    def close(self):
        """End the threads, as far as they can be ended, and close the cache, which holds all that has come."""
        self.closing.set()
        for _ in range(200):  # two seconds at most: nothing disturbs a thread that is connecting
            for link in self.links:
                self.jobs.put(None)
                with suppress(OSError, AttributeError):  # it may have no socket now
                    link.sock.shutdown(socket.SHUT_RDWR)  # nobody waits for its answer
            max(self.threads, key=Thread.is_alive).join(0.01)
        self.database.close()
