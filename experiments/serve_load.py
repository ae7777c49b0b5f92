"""Load on serve.py: how fast it is for many clients, what it leaks, what breaks it.

    python -m experiments.serve_load --checkpoint=out/demo/sft --json=a.json
    python -m experiments.serve_load --seconds=60 --malformed=10000

One client at a time, then all, then one again: if the server has become slower
in between, the last row shows it. A client sends a chat or a completion, half of
them streamed, waits for the answer, and sends the next; one request in ten is
given up in the middle, and what was written for it does not count. Then
malformed requests, which must all be answered 4xx with a JSON error, and leave
no traceback. A fault of either kind ends in exit code 2.
"""

import needs  # noqa: F401

import collections
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import configurator
from configurator import ROOT, UserError
from corpus.parallel import interrupts_held_back, submitted
from experiments import malformed
from experiments.common import print_table
from ranges import Count, Device, Natural, Positive, Seed, SmallCount

KEY = "secret of the load test"
PROMPTS = ("Write a function that counts the vowels in a text.", "What is a list comprehension?", "Hello!")
SENDERS = 8  # threads that send malformed requests
PATIENCE = 60  # seconds that an answer may take
QUIET = 10  # seconds in which the server's threads may end when the clients have gone


@dataclass
class Settings:
    """Who is served, for how long, and what else is sent."""

    # -- the server
    checkpoint: str = "out/demo/sft"  # what is served
    device: Device | None = None  # what it computes on; auto = the first of these that is there
    # -- the clients
    clients: SmallCount = 32  # at once
    seconds: Positive = 600.0  # for which they send
    seconds_alone: Positive = 30.0  # for which one client sends, before and after that
    max_tokens: Count = 64  # of an answer
    # -- the rest
    malformed: Natural = 0  # requests that are none
    seed: Seed = 0  # of what is sent
    json: str = ""  # write the results here too


def main(settings):
    """Start the server, load it, tell what came of it, and end it."""
    if not os.path.exists("/proc/self/fd"):
        raise UserError("this reads the server's memory and files in /proc, which only Linux has")
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        server = Server(settings, errors)
        try:
            result = measure(settings, server)
        finally:
            server.process.terminate()
            server.process.communicate()
    if settings.json:
        configurator.write_json(settings.json, result | {"settings": vars(settings), "made_by": configurator.made_by()})
    if faults := result["faults"]:
        raise UserError(f"{len(faults)} faults, such as {faults[0]}")


class Server:
    """serve.py in a process of its own, listening at a port. errors: the file that its standard error goes to."""

    def __init__(self, settings, errors):
        """Start it. Raises UserError with its last line if it does not listen."""
        command = [sys.executable, str(ROOT / "serve.py"), f"--checkpoint={settings.checkpoint}"]
        command += ["--port=0", f"--key={KEY}", f"--device={settings.device or 'auto'}"]
        self.process, self.errors = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True), errors
        found = re.search(r" at http://[^ ]*:(\d+)/ ", self.process.stdout.readline())
        if not found:
            self.process.communicate()
            raise UserError(f"serve.py did not start: {self.last_words()}")
        self.port = int(found[1])

    def said(self):
        """What it has written to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def last_words(self):
        """The last line of that."""
        return (self.said().strip().splitlines() or ["it said nothing"])[-1]

    def look(self, threads=None):
        """Its memory in MB, open files and threads; threads: wait a while until it has no more than these."""
        place, end = f"/proc/{self.process.pid}", time.monotonic() + QUIET
        while True:
            if self.process.poll() is not None:
                raise UserError(f"the server has ended: {self.last_words()}")
            with open(f"{place}/status") as f:
                status = dict(line.split(":", 1) for line in f)
            found = {"files": len(os.listdir(f"{place}/fd")), "threads": int(status["Threads"])}
            if threads is None or found["threads"] <= threads or time.monotonic() > end:
                return {"memory": int(status["VmRSS"].split()[0]) / 1000, **found}
            time.sleep(0.1)


def measure(settings, server):
    """All figures, as JSON has them."""
    many, looks, phases, faults, kinds = f"{settings.clients} clients", {"start": server.look()}, {}, [], {}
    alone, calm = (1, settings.seconds_alone), None
    for name, plan in {"1 client": alone, many: (settings.clients, settings.seconds), "1 client again": alone}.items():
        phases[name], looks[f"amid {name}"], errors = phase(settings, server, *plan)
        faults += [f"{name}: {error}" for error in errors]
        time.sleep(1 if calm is None else 0)  # the first time nobody knows how many threads are the server's own
        looks[f"after {name}"] = found = server.look(calm)
        calm = calm or found["threads"]
    rows = []
    for name, a in phases.items():
        counts = [f"{a[what]:,}" for what in ("requests", "given up", "errors")]
        rows.append([name, *counts, f"{a['tokens per second']:,.0f}", f"{a['median']:.2f} s", f"{a['95 %']:.2f} s"])
    print_table(["", "requests", "given up", "errors", "tokens/s", "median", "95 %"], rows, "<>>>>>>")
    if settings.malformed:
        kinds, wrong = send_malformed(settings, server)
        faults += wrong
        looks["after malformed ones"] = found = server.look(calm)
    rows = [[name, f"{a['memory']:,.0f}", f"{a['files']}", f"{a['threads']}"] for name, a in looks.items()]
    print()
    print_table(["the server", "MB", "open files", "threads"], rows, "<>>>")
    before = looks["after 1 client"]
    faults += [f"{found[it]} {it} are open, {before[it]} were" for it in ("files", "threads") if found[it] > before[it]]
    if "Traceback" in server.said():
        faults.append(f"a traceback: {server.last_words()}")
    print(f"\n{len(faults)} faults", *faults[:20], sep="\n  ")
    return {"phases": phases, "server": looks, "malformed": kinds, "faults": faults}


def phase(settings, server, clients, seconds):
    """(figures, a look at the server in the middle, what went wrong) of so many clients in so many seconds."""
    answers, start = [], time.monotonic()

    def client(number):
        """Ask again and again."""
        rng = random.Random(f"{settings.seed} {clients} {number}")
        while time.monotonic() < start + seconds and server.process.poll() is None:
            answers.append(ask(settings, server, rng))

    with ThreadPoolExecutor(clients) as pool:
        try:
            with interrupts_held_back():
                for number in range(clients):
                    pool.submit(client, number)
            time.sleep(seconds / 2)
            look = server.look()
        except BaseException:  # Ctrl-C: the clients go when the server has gone
            server.process.terminate()
            raise
    passed, errors = time.monotonic() - start, [answer["error"] for answer in answers if answer["error"]]
    times = sorted(answer["seconds"] for answer in answers if answer["whole"]) or [0.0]
    figures = {
        "requests": len(answers),
        "given up": sum(not answer["whole"] for answer in answers) - len(errors),
        "errors": len(errors),
        "tokens per second": sum(answer["tokens"] for answer in answers) / passed,
        "median": statistics.median(times),
        "95 %": times[len(times) * 95 // 100],
    }
    return figures, look, errors


def ask(settings, server, rng):
    """Send one request: its seconds, its tokens, what went wrong, and whether its answer was waited for."""
    is_chat, streams, leaves = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.1
    text, path = rng.choice(PROMPTS), "/v1/chat/completions" if is_chat else "/v1/completions"
    body = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
    body |= {"max_tokens": settings.max_tokens, "temperature": rng.choice([0, 1]), "seed": rng.randrange(2**31)}
    body |= {"stream": True, "stream_options": {"include_usage": True}} if streams else {}
    link, begin = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE), time.monotonic()
    tokens, error = 0, ""
    try:
        link.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {KEY}"})
        if leaves and not streams:
            time.sleep(rng.random() * 0.2)
        else:
            reply = link.getresponse()
            data = reply.read(300 if leaves else None)
            if reply.status != 200:
                error = f"{reply.status} {data[:200]!r}"
            elif not leaves:
                tokens = tokens_of(data, streams)
    except Exception as fault:  # whatever it is, it counts, and the client goes on
        error = f"{type(fault).__name__}: {fault}"
    link.close()
    whole = not leaves and not error
    return {"seconds": time.monotonic() - begin, "tokens": tokens, "error": error, "whole": whole}


def tokens_of(data, streams):
    """The tokens of a whole answer, as it says itself. Raises ValueError where a stream has another end."""
    if streams:
        *_, data, done, rest = data.split(b"\n\n")
        if done != b"data: [DONE]" or rest:
            raise ValueError(f"a stream ends in {done[:200]!r}")
    return json.loads(data.removeprefix(b"data: "))["usage"]["completion_tokens"]


def send_malformed(settings, server):
    """({kind: {answer: how often}}, what was answered wrongly) of requests that are none."""

    def send(number):
        """One of them: its kind, what came back, and what is wrong with that."""
        request = malformed.make(random.Random(f"{settings.seed} {number}"), KEY)
        answer, fault = malformed.verdict(request, malformed.exchange(server.port, request.data, PATIENCE))
        return request.kind, answer, fault and f"malformed request {number} ({request.kind}): {fault}"

    kinds, faults, rows = collections.defaultdict(collections.Counter), [], []
    with ThreadPoolExecutor(SENDERS) as pool:
        for _, done in submitted(pool, send, range(settings.malformed)):
            kind, answer, fault = done.result()
            kinds[kind][answer] += 1
            faults += [fault] if fault else []
    for kind, answers in sorted(kinds.items()):
        rows.append([kind, f"{answers.total():,}", ", ".join(f"{n:,} x {what}" for what, n in answers.most_common())])
    print()
    print_table(["malformed", "sent", "answers"], rows, "<><")
    return kinds, faults


if __name__ == "__main__":
    configurator.run(main, Settings)
