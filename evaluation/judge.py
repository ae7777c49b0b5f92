"""The inside of the sandbox: a fresh interpreter that evaluation/sandbox.py starts for one sample.

    sandbox.py                         judge                                  candidate
        |-- settings, program --------->|
        |                               |-- fork ------------------------------>| runs the program
        |-- the test ------------------>|                                       |
        |                               |-- ("call", handle(0), [[1, 2]], {}) ->|
        |                               |<- ("value", [2, 3]) ------------------|
        |<- {"passed": True, ...} ------|

There are two processes, so that a program cannot cheat. The *candidate* is forked off before the test has been read:
it runs the program and answers requests with plain data. The *judge* then reads the test and runs it with a stand-in
for every function of the program. No value that the test expects, and none of its code, is ever in the candidate's
memory; and an answer is rebuilt here from builtin types, so that only a right value compares equal. Whatever the
candidate does to itself - os._exit, patching builtins, odd __eq__ methods - can at most spoil its answers.

sandbox.py writes length-prefixed blocks. Judge and candidate write Python literals, one a line. An object that is not
plain data stays in the candidate's process, and handle(n) stands for the n-th of them.
"""

# Few and small modules: starting takes most of the time of a run. json, platform, signal and types would double it.
import builtins
import os
import sys

from evaluation import confine

MAX_REPLY = 16_000_000  # bytes of one answer of the candidate
PARSE_ONLY = 0x400  # ast.PyCF_ONLY_AST
SIGKILL, SIGXCPU, SIGPROF = 9, 24, 27
TIME_IS_UP = (SIGKILL, SIGXCPU, SIGPROF)  # what the limits of CPU time end a process with
CodeType, ModuleType = type((lambda: 0).__code__), type(sys)


def main():
    """Read settings, program and test from stdin; write the verdict, a dict as a literal, to stdout."""
    forget_the_repository()
    sys.set_int_max_str_digits(0)
    settings = decode(read_block())
    program = read_block()
    os.chdir(settings["folder"])
    verdict = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # whatever is printed from here on goes nowhere
    os.dup2(1, 2)
    active = confine.before_fork(settings)
    requests, replies = os.pipe(), os.pipe()  # (end to read from, end to write to)
    candidate = os.fork()
    if candidate == 0:
        os.dup2(1, 0)
        verdict.close()
        os.close(requests[1])
        os.close(replies[0])
        confine.after_fork(settings)
        serve(program, os.fdopen(requests[0], "rb"), os.fdopen(replies[1], "wb"))
        os._exit(0)
    os.close(requests[0])
    os.close(replies[1])
    active += confine.after_fork(settings)
    channel = Channel(candidate, os.fdopen(requests[1], "wb"), os.fdopen(replies[0], "rb"))
    result = judge(decode(read_block()), channel)
    verdict.write(repr({"passed": result == "passed", "result": result[:400], "active": active}))


def forget_the_repository():
    """Take this repository, which PYTHONPATH had to name for this module, out of sys.path, so that the program cannot
    import it; nor can it read its files, since confine.py allows to read only the folders in sys.path."""
    sys.dont_write_bytecode = True  # this module's own has been written
    sys.path.remove(os.environ.pop("PYTHONPATH"))
    for name in ("evaluation", "evaluation.judge", "evaluation.confine"):
        del sys.modules[name]


def read_block():
    """The next length-prefixed block of stdin, and not a byte more: what follows is not for the candidate."""
    return read_exactly(int.from_bytes(read_exactly(8))).decode()


def read_exactly(size):
    """size bytes of stdin, without Python's buffer, which would read more."""
    data = b""
    while len(data) < size:
        data += os.read(0, min(size - len(data), 1 << 20)) or sys.exit("the evaluator has gone")
    return data


# -- what crosses the border

PLAIN = (bool, int, float, str, bytes)  # bool before int, which it is a kind of
LITERALS = {list: "[%s]", tuple: "(%s)", set: "set([%s])", frozenset: "frozenset([%s])", bytearray: "bytearray([%s])"}
CALLS = {"set": set, "frozenset": frozenset, "complex": complex, "bytearray": bytearray}


def encode(value, number_of=None):
    """Plain data as a literal, any other object as handle(number), where number is number_of(object)."""
    for kind in PLAIN:
        if isinstance(value, kind):
            return repr(kind(value))
    if value is None:
        return "None"
    if isinstance(value, dict):
        items = [f"{encode(key, number_of)}: {encode(item, number_of)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, complex):
        return f"complex({value.real!r}, {value.imag!r})"
    for kind, literal in LITERALS.items():
        if isinstance(value, kind):
            return literal % "".join(encode(item, number_of) + ", " for item in value)
    return f"handle({number_of(value)})"


def decode(text, handle=None):
    """The value of a literal that encode wrote; handle is called with the number of an object that did not cross.
    Nothing is executed: the text is parsed, and anything but a literal raises an error."""

    def value(node):
        """The value of a node of the syntax tree."""
        kind = type(node).__name__
        if kind == "Constant":
            return node.value
        if kind in ("List", "Tuple"):
            return (list if kind == "List" else tuple)(map(value, node.elts))
        if kind == "Dict":
            return dict(zip(map(value, node.keys), map(value, node.values)))
        if kind == "UnaryOp" and type(node.op).__name__ == "USub":
            return -value(node.operand)
        if kind == "Name" and node.id in ("inf", "nan"):
            return float(node.id)
        if kind == "Call" and not node.keywords:
            called = handle if handle and node.func.id == "handle" else CALLS[node.func.id]
            return called(*map(value, node.args))
        raise ValueError(f"{kind} in an answer")

    return value(compile(text, "<answer>", "eval", PARSE_ONLY).body)


# -- the candidate


def serve(program, requests, replies):
    """Run the program, then answer the judge's requests until it has gone."""
    module, objects = ModuleType("candidate"), []
    sys.modules["candidate"] = module  # dataclasses look their module up

    def keep(thing):
        """Number an object that stays here."""
        objects.append(thing)
        return len(objects) - 1

    def run_program():
        """Define what the program defines."""
        exec(compile(program, "<program>", "exec"), module.__dict__)

    def call(function, arguments, keywords):
        """Call a function of the program."""
        return function(*arguments, **keywords)

    def reply(function, *arguments):
        """Send what a function returns, or the exception that it raises."""
        try:
            content = f"('value', {encode(function(*arguments), keep)})"
        except BaseException as error:  # sys.exit is no way out either
            content = encode(("error", type(error).__name__, str(error)[:300]))
        replies.write(content.encode() + b"\n")
        replies.flush()

    operations = {"get": module.__dict__.__getitem__, "call": call, "list": list, "attribute": getattr, "set": setattr}
    reply(run_program)
    for line in requests:
        operation, *arguments = decode(line.decode(), objects.__getitem__)
        reply(operations[operation], *arguments)


# -- the judge


class Ended(Exception):
    """The candidate's process has ended, or has sent something that is not an answer."""


class Channel:
    """Asks the candidate and decodes its answers. A builtin exception that the program raised is raised here."""

    def __init__(self, candidate, requests, replies):
        self.candidate, self.requests, self.replies = candidate, requests, replies

    def ask(self, *request):
        """The answer to (operation, object, ...)."""
        try:
            self.requests.write(encode(request, remote_number).encode() + b"\n")
            self.requests.flush()
        except BrokenPipeError:
            raise self.ended() from None
        return self.answer()

    def answer(self):
        """The next answer; the first one says that the program has been run."""
        line = self.replies.readline(MAX_REPLY)
        if not line:
            raise self.ended()
        try:
            kind, *content = decode(line.decode(), lambda number: Remote(self, number))
            if kind == "value":
                return content[0]
            name, message = map(str, content)
        except Exception:
            raise Ended("an answer that is not plain data") from None
        error = getattr(builtins, name, None)
        if isinstance(error, type) and issubclass(error, Exception):
            raise error(message)
        raise Ended(f"{name}: {message}")

    def ended(self):
        """An Ended that says why the candidate's process has ended."""
        _, status = os.waitpid(self.candidate, 0)
        is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in TIME_IS_UP
        return Ended("timed out" if is_late else "the program ended itself")


class Remote:
    """Stands for an object of the candidate. It can be called and its attributes can be used, but comparing it, or
    asking whether it is true, raises TypeError: plain data alone decides a test."""

    def __init__(self, channel, number):
        self.__dict__.update(_channel=channel, _number=number)

    def __call__(self, *arguments, **keywords):
        return self._channel.ask("call", self, list(arguments), keywords)

    def __getattr__(self, name):
        return self._channel.ask("attribute", self, name)

    def __setattr__(self, name, value):
        self._channel.ask("set", self, name, value)

    def __iter__(self):
        return iter(self._channel.ask("list", self))

    def _undecided(self, *_):
        raise TypeError("the program returned an object that is not plain data")

    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __bool__ = __hash__ = _undecided


def remote_number(thing):
    """The number of a Remote. Raises TypeError for any other object: the candidate has nothing of the kind."""
    if type(thing) is not Remote:
        raise TypeError(f"the test passes a {type(thing).__name__}, which cannot cross into the program's process")
    return thing._number


def judge(test, channel):
    """Run the test, {"helpers", "code", "entry_points"}; returns "passed" or why not. In its code, the entry points
    stand for those of the program, and so does any other name that neither the test, the helpers nor Python define."""
    try:
        channel.answer()  # the program has been run
        code, helpers = compile(test["code"], "<test>", "exec"), compile(test["helpers"], "<test>", "exec")
        namespace, wanted, entry_points = {}, names_in(code), set(test["entry_points"])
        if wanted & set(helpers.co_names) - entry_points:
            exec(helpers, namespace)
        for name in sorted(wanted):
            is_entry_point = name in entry_points
            if not is_entry_point and (name in namespace or hasattr(builtins, name)):
                continue
            if not is_entry_point and name in sys.stdlib_module_names:
                namespace[name] = __import__(name)
            elif not name.startswith("__"):
                try:
                    namespace[name] = channel.ask("get", name)
                except KeyError:
                    pass  # a name that the test itself defines
        exec(code, namespace)
        return "passed"
    except Ended as error:
        return str(error) if str(error) == "timed out" else f"failed: {error}"
    except BaseException as error:
        return f"failed: {type(error).__name__}: {error}"


def names_in(code):
    """The names that a code object and those inside it use."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)
