"""Blobs come in the order of the rows whatever fails, lost ones are told. Speed: python -m tests.test_blobs"""

import asyncio
import gzip
import itertools
import json
import multiprocessing
import os
import sqlite3
import tempfile
import threading
import time
import urllib.request
import zlib

import pytest

from configurator import UserError
from corpus import blobs
from corpus.records import Problem

FORK = multiprocessing.get_context("fork")
WORDS = [f"{('get', 'set', 'line')[i * i % 3]}_{i * 7919 % 10_000}" for i in range(4000)]
ENCODED = {"latin-1": "déjà vu", "utf-16": "zażółć 😀", "gb18030": "中文，代码", "utf-8": "naïve 中"}
LARGE = gzip.compress(bytes(1_000_001))
FAULTS = ("slow", "500", "429", "close", "cut", "short", "crc")
LOST = {"302": (1, "302"), "400": (1, "400"), "429": (6, "429"), "500": (6, "500"), "large": (1, "too large")}
LOST |= {"cut": (6, "truncated"), "short": (6, "truncated"), "crc": (6, "incorrect data"), "hang": (6, "timed out")}
LOST |= {"403": (1, "403"), "404": (1, "404"), "410": (1, "410"), "close": (6, "closed connection")}


def text_of(blob_id):
    """The text of a blob: that of an encoding, or 5 kB that no other blob has."""
    start = zlib.crc32(blob_id.encode()) % 3500
    return ENCODED.get(blob_id.split(".")[0]) or f"# {blob_id}\n" + " ".join(WORDS[start : start + 480])


class Server(asyncio.Protocol):
    """A bucket that answers from memory. "500.2.tag.7" answers its first two requests with 500, then with the blob."""

    asked, received = {}, b""  # blob id -> requests; bytes that are no request yet

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        *heads, self.received = (self.received + data).split(b"\r\n\r\n")
        for head in heads:
            self.request(head.decode().split()[1].split("/")[-1])

    def request(self, blob_id):
        self.asked[blob_id] = self.asked.get(blob_id, 0) + 1
        kind, times, *_ = blob_id.split(".")
        body = gzip.compress(text_of(blob_id).encode(kind if kind in ENCODED else "utf-8"), 1)
        changed = {"short": body[:-100], "crc": body[:-8] + bytes(8), "large": LARGE}
        if self.asked[blob_id] > int(times):
            self.answer(json.dumps(self.asked).encode() if kind == "log" else body)
        elif kind == "slow":
            asyncio.get_running_loop().call_later(0.05, self.answer, body)
        elif kind in ("close", "cut"):
            self.answer(body, sent=body[:-100]) if kind == "cut" else None
            self.transport.close()
        elif kind != "hang":
            self.answer(changed.get(kind, b""), "200 OK" if kind in changed else f"{kind} Oh")

    def answer(self, body, status="200 OK", sent=None):
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nLocation: /content/ok.0.elsewhere\r\n\r\n"
        self.transport.write(head.encode() + (body if sent is None else sent))


def running():
    """Yield the base of a server, which runs in a process of its own until then."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Server, "127.0.0.1", 0, backlog=500))
    process = FORK.Process(target=loop.run_forever, daemon=True)
    process.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/content"
    process.kill()
    loop.close()


base = pytest.fixture(scope="module", name="base")(running)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(blobs, "WAITS", (0.001, 0.001, 0.001, 0.001, 0.001, 0))


def asked(base, tag):
    """{blob id: requests} of the blobs with a tag."""
    log = json.loads(urllib.request.urlopen(f"{base}/log.0.log").read())
    return {blob_id: n for blob_id, n in log.items() if blob_id.split(".")[2] == tag}


def in_cache():
    return {blob_id for (blob_id,) in sqlite3.connect(blobs.CACHE).execute("SELECT id FROM blobs")}


def rows_of(ids):
    return [({"blob_id": blob_id, "path": f"{i}.py"}, f"x:{i}") for i, blob_id in enumerate(ids)]


def with_texts(rows):
    return [({**record, "content": text_of(record["blob_id"])}, where) for record, where in rows]


def one(base, **record):
    [found] = blobs.completed([(record, "x:1")], base, connections=2)
    return found


def measure(base, n, most=2):
    """(blobs per second, whether all came) of n blobs: one in 20 fails once, or one in 400 so many times, and comes."""
    times = [0 if i % 20 else 1 if i % 400 else most for i in range(n)]
    names = [f"{FAULTS[i // 20 % len(FAULTS)]}.{times[i]}" if times[i] else "ok.0" for i in range(n)]
    rows, start = rows_of(f"{name}.speed.{i}" for i, name in enumerate(names)), time.monotonic()
    found = list(blobs.completed(iter(rows), f"{base}/"))
    return n / (time.monotonic() - start), found == with_texts(rows)


def test_rows_come_whole_and_in_order_whatever_fails_and_once(base):
    assert measure(base, 3000, most=5)[1]
    log = asked(base, "speed")
    assert all(log[f"ok.0.speed.{i}"] == 1 for i in range(3000) if i % 20)
    assert measure(base, 3000, most=5)[1] and asked(base, "speed") == log


def test_every_row_is_told_of_and_a_blob_of_two_rows_is_fetched_once(base):
    rows = rows_of(f"{kind}.{n}.told.{i // 2}" for i in range(60) for kind in ("404", "500", "cut") for n in (0, 99))
    found = list(blobs.completed(rows, base))
    assert found[::2] == with_texts(rows[::2])
    lost = [("no_blob", "404"), ("lost_blob", "500"), ("lost_blob", "truncated")] * 60
    assert found[1::2] == [Problem(where, *why) for (_, where), why in zip(rows[1::2], lost, strict=True)]
    assert {n for blob_id, n in asked(base, "told").items() if ".0." in blob_id} == {1}


@pytest.mark.parametrize("kind", LOST)
def test_a_blob_that_is_lost(base, monkeypatch, kind):
    monkeypatch.setattr(blobs, "MAX_SIZE", 1_000_000)
    monkeypatch.setattr(blobs, "TIMEOUT", 0.1)
    problem, (n_requests, detail) = one(base, blob_id=f"{kind}.99.lost"), LOST[kind]
    assert problem.rule == ("no_blob" if kind in ("403", "404", "410") else "lost_blob") and problem.where == "x:1"
    assert detail in problem.detail and asked(base, "lost")[f"{kind}.99.lost"] == n_requests
    assert not asked(base, "elsewhere"), "no redirect is followed"


def test_text_is_decoded(base):
    for name, text in ENCODED.items():
        record, _ = one(base, blob_id=f"{name}.0.encoded", content=None, src_encoding=name.replace("utf-8", "").upper())
        assert record["content"] == text
    for name in ("ascii", "utf-8", None, "no-such", "hex", "rot13", "unicode_escape", "idna", "a\0b", "\udcff", 5):
        problem = one(base, blob_id="latin-1.0.bytes", src_encoding=name)
        assert problem.rule == "bad_encoding" and problem.detail.isascii()


def test_what_is_no_id_or_no_address_is_not_asked_for():
    for blob_id in ("", "..", "../log", "a/b", "a b", "é", "a\n", "a\r\nX: y", "x" * 129, ["a"], "%2e", "a?b"):
        problem = one("http://127.0.0.1:9/content", blob_id=blob_id)
        assert problem.rule == "no_blob" and problem.detail.startswith("not an id: ") and problem.detail.isascii()
    for base in ("", "ftp://x/y", "s3://x", "http://", "http://me:word@x/y", "http://x/y?z", "http://x y"):
        with pytest.raises(UserError, match="no address of blobs"):
            one(base, blob_id="a")


def test_rows_that_need_nothing_pass_and_leave_no_cache():
    records = [{"blob_id": "a", name: "", "is_vendor": True} for name in ("content", "text", "code")]
    records += [{"text": "x"}, {"blob_id": None}, {"files": []}, {"files": [{"path": "a"}, 3]}, ["x"], None]
    items = [Problem("x", "empty"), *((record, f"x:{i}") for i, record in enumerate(records))]
    assert list(blobs.completed(items)) == items and not os.path.exists("data")


def test_repositories(base):
    """Problems come before the repository that goes on without the file; one that has none left does not come."""
    files = [{"blob_id": f"{name}.files.{name}", "path": f"{name}.py"} for name in ("ok.0", "404.9", "ok.1", "ok.2")]
    files[2]["is_vendor"] = files[3]["is_generated"] = True
    rows = [({"n": 1, "files": [*files, {"content": "x"}]}, "x:1"), ({"files": files[1:2]}, "x:2"), (files[0], "x:3")]
    before, found = json.dumps(rows), list(blobs.completed(rows, base))
    lost = [Problem("x:1:404.9.py", "no_blob", "404"), Problem("x:1:ok.1.py", "vendor")]
    assert found[:3] == [*lost, Problem("x:1:ok.2.py", "generated")]
    [(file, _)] = with_texts(rows[2:])
    assert found[3] == ({"n": 1, "files": [file, {"content": "x"}]}, "x:1")
    assert found[4:] == [Problem("x:2:404.9.py", "no_blob", "404"), (file, "x:3")]
    assert json.dumps(rows) == before, "records are not changed in place"


@pytest.mark.parametrize("n_files", [0, 50])
def test_no_more_is_read_than_the_window(base, monkeypatch, n_files):
    monkeypatch.setattr(blobs, "WINDOW", 200)
    n_read, files = itertools.count(), [{"blob_id": f"ok.0.window.{i}"} for i in range(n_files)]
    found = blobs.completed((({"files": files} if files else {"blob_id": f"ok.0.window.{i}"}, i) for i in n_read), base)
    assert [next(found)[1] for _ in range(30)] == list(range(30))
    found.close()
    assert next(n_read) - 30 <= 200 // (n_files + 1) + 2


def test_an_early_end_ends_the_threads_and_keeps_what_has_come(base, monkeypatch):
    before = threading.active_count()
    monkeypatch.setattr(blobs, "WAITS", (1000,))
    monkeypatch.setattr(blobs, "WINDOW", 100)
    rows = rows_of(f"{'ok.0' if i < 60 else 'hang.9' if i % 2 else '500.9'}.early.{i}" for i in range(300))
    found = blobs.completed(rows, base)
    assert list(itertools.islice(found, 60)) == with_texts(rows[:60])
    found.close()
    assert threading.active_count() == before
    assert in_cache() == {row["blob_id"] for row, _ in rows[:60]}


def test_a_run_that_is_killed_goes_on_where_it_was(base, monkeypatch):
    monkeypatch.setattr(blobs, "WINDOW", 300)
    rows = rows_of(f"ok.0.killed.{i}" for i in range(2000))
    die = lambda: [os.kill(os.getpid(), 9) for _, where in blobs.completed(rows, base) if where == "x:700"]  # noqa: E731
    process = FORK.Process(target=die)
    process.start()
    process.join()
    before, cached = asked(base, "killed"), in_cache()
    assert process.exitcode == -9 and 700 < len(cached) < 1100
    assert list(blobs.completed(rows, base)) == with_texts(rows)
    after = asked(base, "killed")
    assert {blob_id for blob_id, n in after.items() if n > 1} == before.keys() - cached
    assert sum(after.values()) - 2000 <= 64, "what was on its way, one by connection"


def test_two_runs_with_one_cache(base):
    rows = rows_of(f"ok.0.shared.{i}" for i in range(500))
    both = zip(blobs.completed(rows, base), blobs.completed(rows[::-1], base), strict=True)
    assert list(both) == list(zip(with_texts(rows), with_texts(rows)[::-1]))


def test_a_dead_server_is_one_line():
    with pytest.raises(UserError, match="^cannot reach http://127.0.0.1:9/content: Connection refused$"):
        list(blobs.completed(rows_of(f"ok.0.dead.{i}" for i in range(200)), "http://127.0.0.1:9/content"))


@pytest.mark.parametrize("size", [0, 5000])
def test_a_damaged_cache_is_told(base, size):
    rows = rows_of(f"ok.0.damaged.{i}" for i in range(20))
    list(blobs.completed(rows, base))
    os.truncate(blobs.CACHE, size)
    with open(blobs.CACHE, "ab") as file:
        file.write(b"x" * (5000 - size))
    with pytest.raises(UserError, match="cannot use the cache .*delete it"):
        list(blobs.completed(rows, base))


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    for base in running():
        print("{:.0f} blobs/s, whole: {}".format(*measure(base, 20_000)))
