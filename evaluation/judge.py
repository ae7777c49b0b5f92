"""The inside of the sandbox: a fresh interpreter that evaluation/sandbox.py starts for one sample.

    stdin:  settings, the program, the test, each behind its length
    stdout: {"passed": ..., "result": ..., "active": ...}, all as Python literals

Two processes, so that a program cannot cheat. The *candidate* is forked off before the test has been read: it runs
the program and answers calls with plain data. The *judge* then reads the test and runs it with a stand-in for every
function of the program. No expected value, no frame and no comparison of the test is ever in the candidate's
memory, and what it returns is made of plain builtin types, so that only a right value compares equal. Whatever the
candidate does to itself - os._exit, patching builtins, odd __eq__ methods - is a call without an answer.

Both are confined by what an unprivileged Linux process can give up for good: rlimits, Landlock (files), seccomp
(no new processes, no network, no signals, no changes of ownership or rights).
"""

# Few and small modules: starting takes most of the time of a run. json, platform, signal and types would double it.
import builtins
import ctypes
import os
import resource
import struct
import sys

MAX_REPLY = 16_000_000  # bytes of one answer of the candidate
CodeType, ModuleType = type((lambda: 0).__code__), type(sys)


def main():
    sys.set_int_max_str_digits(0)
    settings = decode(read_block())
    program = read_block()
    os.chdir(settings["folder"])
    verdict = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    limit_resources(settings)
    active = ["rlimits"] + ["landlock"] * restrict_files(settings["folder"])
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # memory and files of one are closed to the other
    requests, replies, calls = os.pipe(), os.pipe(), call_filter()
    candidate = os.fork()
    if candidate == 0:
        os.dup2(1, 0)
        verdict.close()
        os.close(requests[1]), os.close(replies[0])
        restrict_calls(calls)
        serve(program, os.fdopen(requests[0], "rb"), os.fdopen(replies[1], "wb"))
        os._exit(0)
    os.close(requests[0]), os.close(replies[1])
    active += ["seccomp"] * restrict_calls(calls)
    channel = Channel(candidate, os.fdopen(requests[1], "wb"), os.fdopen(replies[0], "rb"))
    result = judge(decode(read_block()), channel)
    verdict.write(repr({"passed": result == "passed", "result": result[:400], "active": active}))


def read_block():
    """The next length-prefixed block of stdin, and not a byte more: what follows is not for the candidate."""
    return read_exactly(int.from_bytes(read_exactly(8))).decode()


def read_exactly(size):
    data = b""
    while len(data) < size:
        data += os.read(0, min(size - len(data), 1 << 20)) or sys.exit("the evaluator has gone")
    return data


# -- what crosses the border: Python literals, one a line

PLAIN = (bool, int, float, str, bytes)  # bool before int, which it is a kind of
CALLS = {"set": set, "frozenset": frozenset, "complex": complex, "bytearray": bytearray}


def encode(value, handle=None):
    """Plain data as a literal; any other object stays where it is, and handle(object) is its number."""
    for kind in PLAIN:
        if isinstance(value, kind):
            return repr(kind(value))
    if value is None:
        return "None"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{encode(k, handle)}: {encode(v, handle)}" for k, v in value.items()) + "}"
    if isinstance(value, complex):
        return f"complex({value.real!r}, {value.imag!r})"
    for kind, shape in (
        (list, "[%s]"),
        (tuple, "(%s)"),
        (set, "set([%s])"),
        (frozenset, "frozenset([%s])"),
        (bytearray, "bytearray([%s])"),
    ):
        if isinstance(value, kind):
            return shape % "".join(encode(item, handle) + ", " for item in value)
    return f"handle({handle(value)})"


def decode(text, handle=None):
    """The value of a literal that encode wrote; handle(number) stands for what did not cross. Nothing is executed: the
    text is parsed, and anything but a literal raises ValueError."""

    def value(node):
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
            if node.func.id == "handle" and handle:
                return handle(*map(value, node.args))
            return CALLS[node.func.id](*map(value, node.args))
        raise ValueError(f"{kind} in an answer")

    return value(compile(text, "<answer>", "eval", 0x400).body)  # ast.PyCF_ONLY_AST


# -- the candidate


def serve(program, requests, replies):
    """Run the program, then answer the judge's requests until it has gone."""
    module, objects = ModuleType("candidate"), []
    sys.modules["candidate"] = module  # dataclasses look their module up

    def keep(thing):
        objects.append(thing)
        return len(objects) - 1

    def answer(op, thing, *more):
        if op == "get":
            return module.__dict__[thing]
        if op == "call":
            return thing(*more[0], **more[1])
        if op == "list":
            return list(thing)
        return getattr(thing, *more) if op == "attribute" else setattr(thing, *more)

    def reply(function, *arguments):
        try:
            content = f"('value', {encode(function(*arguments), keep)})"
        except BaseException as error:  # sys.exit is no way out either
            content = encode(("error", type(error).__name__, str(error)[:300]))
        replies.write(content.encode() + b"\n")
        replies.flush()

    reply(lambda: exec(compile(program, "<program>", "exec"), module.__dict__))
    for line in requests:
        reply(answer, *decode(line.decode(), objects.__getitem__))


# -- the judge


class Ended(Exception):
    """The candidate's process has ended, or sends what is no answer."""


class Channel:
    """Asks the candidate and decodes its answers; its exceptions are raised here, where they are of a builtin type."""

    def __init__(self, candidate, requests, replies):
        self.candidate, self.requests, self.replies = candidate, requests, replies

    def ask(self, *request):
        try:
            self.requests.write(encode(request, number_of).encode() + b"\n")
            self.requests.flush()
        except BrokenPipeError:
            raise self.ended() from None
        return self.answer()

    def answer(self):
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
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(message)
        raise Ended(f"{name}: {message}")

    def ended(self):
        _, status = os.waitpid(self.candidate, 0)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return Ended("timed out" if killed_by in (SIGKILL, SIGXCPU) else "the program ended itself")


SIGKILL, SIGXCPU = 9, 24


class Remote:
    """Stands for an object of the candidate. It can be called and looked into, but it equals nothing and is neither
    true nor false: plain data alone decides a test."""

    def __init__(self, channel, number):
        self.__dict__.update(channel=channel, number=number)

    def ask(self, op, *more):
        return self.channel.ask(op, self, *more)

    def __call__(self, *arguments, **keywords):
        return self.ask("call", list(arguments), keywords)

    def __getattr__(self, name):
        return self.ask("attribute", name)

    def __setattr__(self, name, value):
        self.ask("set", name, value)

    def __iter__(self):
        return iter(self.ask("list"))

    def undecided(self, *_):
        raise TypeError("the program returned an object that is not plain data")

    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __bool__ = __hash__ = undecided


def number_of(thing):
    if type(thing) is not Remote:
        raise TypeError(f"the test passes a {type(thing).__name__}, which cannot cross into the program's process")
    return thing.number


def judge(test, channel):
    """Run the test, {"helpers", "code", "entry_points"}: "passed", or why not. The entry points are the
    program's, and so is any other name that the test uses and that neither it, the helpers nor Python define."""
    namespace = {}
    try:
        channel.answer()  # the program has been run
        code, helpers = (compile(test[key], "<test>", "exec") for key in ("code", "helpers"))
        wanted = names_in(code)
        if wanted & set(helpers.co_names) - set(test["entry_points"]):
            exec(helpers, namespace)
        for name in sorted(wanted):
            if name in test["entry_points"] or not (name in namespace or hasattr(builtins, name)):
                if name in sys.stdlib_module_names and name not in test["entry_points"]:
                    namespace[name] = __import__(name)
                elif not name.startswith("__"):
                    try:
                        namespace[name] = channel.ask("get", name)
                    except KeyError:
                        pass  # the test's own
        exec(code, namespace)
        return "passed"
    except Ended as error:
        return str(error) if str(error) == "timed out" else f"failed: {error}"
    except BaseException as error:
        return f"failed: {type(error).__name__}: {error}"


def names_in(code):
    """The names that a code object and those inside it use."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


# -- confinement


def limit_resources(settings):
    def limit(what, amount):
        _, most = resource.getrlimit(what)
        amount = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(what, (amount, amount))

    limit(resource.RLIMIT_AS, settings["memory"])
    limit(resource.RLIMIT_CPU, settings["cpu_seconds"])
    limit(resource.RLIMIT_FSIZE, settings["file_size"])
    limit(resource.RLIMIT_NPROC, 512)  # counts all of the user's; where seccomp holds, there are no new ones anyway
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_CORE, 0)


PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # system calls, the same on every processor
READ_AND_RUN = 0b1101  # of the access rights in linux/landlock.h: execute, read files, read folders
ALL_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many access rights a version of Landlock knows; 16 from 5 on


def restrict_files(folder):
    """Landlock: read the interpreter and the system's libraries, write to folder, and nothing else. Whether it holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = (1 << ALL_RIGHTS.get(version, 16)) - 1
    # files, TCP ports, and from version 6 on signals and abstract sockets: a version reads as many as it knows
    attributes = (ctypes.c_uint64 * 3)(rights, 0b11, 0b11)
    ruleset = libc.syscall(
        LANDLOCK_CREATE, attributes, ctypes.c_size_t(8 if version < 4 else 16 if version < 6 else 24), 0
    )
    readable = ["/usr", "/lib", "/lib64", sys.base_prefix, "/dev/urandom", *sys.path]
    for path, allowed in [(path, READ_AND_RUN) for path in readable] + [(folder, rights), (os.devnull, 0b110)]:
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH)
            allowed &= rights if os.path.isdir(path) else 0b111
            rule = allowed.to_bytes(8, sys.byteorder) + handle.to_bytes(4, sys.byteorder)
            libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0)
            os.close(handle)
    held = libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return held


# System calls that nothing here needs, by processor: their numbers from the kernel's tables.
FORBIDDEN = {
    "x86_64": {  # vfork fork execve kill tkill tgkill rt_sigqueueinfo, ptrace process_vm_*, socket.. bind, setsid setpgid
        *(57, 58, 59, 62, 200, 234, 129, 297, 101, 310, 311, 41, 42, 43, 44, 49, 50, 53, 109, 112, 322),
        # unshare setns mount umount chroot pivot_root reboot, modules, bpf perf keys io_uring pidfd, shm msg sem
        *(272, 308, 165, 166, 161, 155, 169, 175, 176, 313, 321, 298, 248, 249, 250, 425, 424, 434, 438, 29, 64, 68),
        # chmod chown setxattr utime families, priorities, limits, mknod, clocks and names
        *(90, 91, 92, 93, 94, 260, 268, 452, 188, 189, 190, 132, 235, 261, 280, 141, 203, 160, 302, 133, 259, 227, 164, 170, 171),
    },
    "aarch64": {
        *(221, 129, 130, 131, 138, 240, 117, 270, 271, 198, 199, 200, 201, 202, 203, 206, 154, 157, 281),
        *(97, 268, 40, 39, 51, 41, 142, 105, 106, 273, 280, 241, 217, 218, 219, 425, 424, 434, 438, 194, 190, 186),
        *(52, 53, 54, 55, 452, 5, 6, 7, 88, 140, 122, 164, 261, 33, 112, 170, 161, 162),
    },
}  # fmt: skip
ARCHITECTURE = {"x86_64": (0xC000003E, 56, 435), "aarch64": (0xC00000B7, 220, 435)}  # audit's number, clone, clone3
ALLOW, DENY, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # SECCOMP_RET_ALLOW; _ERRNO with EPERM, ENOSYS
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF


def call_filter():
    """The seccomp program as bytes, or None for a processor whose system calls are not known here."""
    machine = os.uname().machine
    if machine not in FORBIDDEN:
        return None
    architecture, clone, clone3 = ARCHITECTURE[machine]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, DENY), (LOAD, 0, 0, 0)]
    program += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, DENY)]  # x32's calls have numbers of their own
    program += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, NO_SUCH_CALL)]  # its flags cannot be seen: libc then uses clone
    for number in sorted(FORBIDDEN[machine]):
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, DENY)]
    program += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, 0x10000), (RETURN, 0, 0, DENY)]  # CLONE_THREAD
    program += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def restrict_calls(program):
    """seccomp: a filter of system calls that this process cannot take back. Threads stay possible. Whether it holds."""
    if program is None:
        return False
    buffer = ctypes.create_string_buffer(program)
    filter = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    return ctypes.CDLL(None).prctl(PR_SET_SECCOMP, 2, filter, 0, 0) == 0


if __name__ == "__main__":
    main()
