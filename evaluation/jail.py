"""The inside of the sandbox: a fresh interpreter that evaluation/sandbox.py starts for one sample.

    stdin:  settings, the program, the test, each behind its length
    stdout: {"passed": ..., "result": ...}

Two processes, so that a program cannot cheat. The *candidate* is forked off before the test has been read: it runs
the program and answers calls with plain data. The *judge* then reads the test and runs it with a stand-in for every
function of the program. No expected value, no frame and no comparison of the test is ever in the candidate's
memory, and what it returns is made of plain builtin types, so that only a right value compares equal. Whatever the
candidate does to itself - os._exit, patching builtins, odd __eq__ methods - is a call without an answer.

Both are confined by what an unprivileged Linux process can give up for good: rlimits, Landlock (files), seccomp
(no new processes, no network, no signals, no changes of ownership or rights).
"""

import builtins
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
import types

MAX_REPLY = 16_000_000  # bytes of one answer of the candidate


def main():
    settings = json.loads(read_block())
    program = read_block()
    os.chdir(settings["folder"])
    verdict = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    limit_resources(settings)
    active = ["rlimits"] + ["landlock"] * restrict_files(settings["folder"])
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # memory and files of one are closed to the other
    requests, replies = os.pipe(), os.pipe()
    candidate = os.fork()
    if candidate == 0:
        os.dup2(1, 0)
        verdict.close()
        os.close(requests[1]), os.close(replies[0])
        restrict_calls()
        serve(program, os.fdopen(requests[0], "rb"), os.fdopen(replies[1], "wb"))
        os._exit(0)
    os.close(requests[0]), os.close(replies[1])
    active += ["seccomp"] * restrict_calls()
    channel = Channel(candidate, os.fdopen(requests[1], "wb"), os.fdopen(replies[0], "rb"))
    result = judge(json.loads(read_block()), channel)
    json.dump({"passed": result == "passed", "result": result[:400], "active": active}, verdict)


def read_block():
    """The next length-prefixed block of stdin, and not a byte more: what follows is not for the candidate."""
    return read_exactly(int.from_bytes(read_exactly(8))).decode()


def read_exactly(size):
    data = b""
    while len(data) < size:
        data += os.read(0, min(size - len(data), 1 << 20)) or sys.exit("the evaluator has gone")
    return data


# -- what crosses the border: plain data, tagged JSON

TAGS = {"tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value, handle):
    """Plain data as JSON can hold it; any other object stays where it is, and handle(object) is its number."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    for tag, kind in TAGS.items():
        if isinstance(value, kind):
            return {tag: [encode(item, handle) for item in value]}
    if value is None or isinstance(value, list):
        return value if value is None else [encode(item, handle) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k, handle), encode(v, handle)] for k, v in value.items()]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.decode("latin-1")}
    return {"handle": handle(value)}


def decode(data, handle):
    """The value that encode wrote; handle(number) stands for what did not cross."""
    if isinstance(data, list):
        return [decode(item, handle) for item in data]
    if not isinstance(data, dict):
        return data
    ((tag, content),) = data.items()
    if tag in TAGS:
        return TAGS[tag](decode(item, handle) for item in content)
    if tag == "dict":
        return {decode(k, handle): decode(v, handle) for k, v in content}
    if tag == "complex":
        return complex(*content)
    return content.encode("latin-1") if tag == "bytes" else handle(content)


# -- the candidate


def serve(program, requests, replies):
    """Run the program, then answer the judge's requests until it has gone."""
    module, objects = types.ModuleType("candidate"), []
    sys.modules["candidate"] = module  # dataclasses look their module up

    def keep(thing):
        objects.append(thing)
        return len(objects) - 1

    def answer(op, target, *more):
        if op == "get":
            return module.__dict__[target]
        thing, more = objects[target], [decode(item, objects.__getitem__) for item in more]
        if op == "call":
            return thing(*more[0], **more[1])
        if op == "list":
            return list(thing)
        return getattr(thing, *more) if op == "attribute" else setattr(thing, *more)

    def reply(function, *arguments):
        try:
            content = json.dumps({"value": encode(function(*arguments), keep)})
        except BaseException as error:  # sys.exit is no way out either
            content = json.dumps({"error": type(error).__name__, "message": str(error)[:300]})
        replies.write(content.encode() + b"\n")
        replies.flush()

    reply(lambda: exec(compile(program, "<program>", "exec"), module.__dict__))
    for line in requests:
        reply(answer, *json.loads(line))


# -- the judge


class Ended(Exception):
    """The candidate's process has ended, or sends what is no answer."""


class Channel:
    """Asks the candidate and decodes its answers; its exceptions are raised here, where they are of a builtin type."""

    def __init__(self, candidate, requests, replies):
        self.candidate, self.requests, self.replies = candidate, requests, replies

    def ask(self, *request):
        try:
            self.requests.write(json.dumps(request).encode() + b"\n")
            self.requests.flush()
        except BrokenPipeError:
            raise self.ended() from None
        return self.answer()

    def answer(self):
        line = self.replies.readline(MAX_REPLY)
        if not line:
            raise self.ended()
        try:
            reply = json.loads(line)
            if "error" not in reply:
                return decode(reply["value"], lambda number: Remote(self, number))
            name, message = str(reply["error"]), str(reply["message"])
        except Exception:
            raise Ended("an answer that is not plain data") from None
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(message)
        raise Ended(f"{name}: {message}")

    def ended(self):
        _, status = os.waitpid(self.candidate, 0)
        return Ended(
            "timed out" if os.WIFSIGNALED(status) and os.WTERMSIG(status) in CPU_LIMIT else "the program ended itself"
        )


CPU_LIMIT = (signal.SIGXCPU, signal.SIGKILL)


class Remote:
    """Stands for an object of the candidate. It can be called and looked into, but it equals nothing and is neither
    true nor false: plain data alone decides a test."""

    def __init__(self, channel, number):
        self.__dict__.update(channel=channel, number=number)

    def ask(self, op, *more):
        return self.channel.ask(op, self.number, *(encode(item, number_of) for item in more))

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
        exec(test["helpers"], namespace)
        code = compile(test["code"], "<test>", "exec")
        for name in sorted(names_in(code)):
            if name in test["entry_points"] or not (name in namespace or hasattr(builtins, name)):
                if name in sys.stdlib_module_names:
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
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
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


def restrict_calls():
    """seccomp: a filter of system calls that this process cannot take back. Threads stay possible. Whether it holds."""
    machine = platform.machine()
    if machine not in FORBIDDEN:
        return False
    architecture, clone, clone3 = ARCHITECTURE[machine]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, DENY), (LOAD, 0, 0, 0)]
    program += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, DENY)]  # x32's calls have numbers of their own
    program += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, NO_SUCH_CALL)]  # its flags cannot be seen: libc then uses clone
    for number in sorted(FORBIDDEN[machine]):
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, DENY)]
    program += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, 0x10000), (RETURN, 0, 0, DENY)]  # CLONE_THREAD
    program += [(RETURN, 0, 0, ALLOW)]
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(packed)
    filter = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    return ctypes.CDLL(None).prctl(PR_SET_SECCOMP, 2, filter, 0, 0) == 0


if __name__ == "__main__":
    main()
