"""What is taken from a process of the sandbox, for good, before it runs a program that nobody has read.

    rlimits              more than some memory, CPU seconds, threads, and number and size of files
    capabilities         what root may do beyond a user
    Landlock             every file but the standard library and shared libraries (to read) and one empty folder (to
                         write); signals to processes outside
    a second domain      the judge, its memory and its descriptors: a process can't look into one of an outer domain
    seccomp              every system call that calls.py does not name
    parent-death signal  living on when the parent has ended

A Linux process needs no privileges to give these up, and cannot get them back. What a kernel lacks raises an error
before any program runs, unless settings["unconfined"] is true. The caller is told what holds. The numbers are those of
the kernel's headers, which the comments name.

settings: "folder", the only place to write to; "memory" and "file_size" in bytes; "timeout", seconds of CPU time, and
"cpu_seconds", whole ones that end what ignores that; "readable", absolute paths of packages; "max_processes", how many
processes and threads the user may have, all that run now counted; "unconfined"; "server", the process that the judge
must not outlive (its parent, if not given). before_fork() adds "judge", which the candidate must not outlive.
"""

# Neither enum nor signal nor dataclasses: importing them takes longer than all else that a sandbox does to start.
import ctypes
import os
import resource
import struct
import sys
import time

from evaluation import calls

LIBC = ctypes.CDLL(None, use_errno=True)
PREPARED = {}  # what has been worked out, and is the same for each process forked from this one


class Missing(Exception):
    """The system does not offer a protection."""


def prepare(settings):
    """Work out what takes long: a process that forks many judges calls this before. It pays most where all of them use
    the same folder, which may be emptied but not removed in between."""
    if landlock_version():
        file_ruleset(settings)
    if os.uname().machine in calls.PROCESSORS:
        call_filter(landlock_version())


def before_fork(settings):
    """Confine the judge, before it forks the candidate. Returns {name: version} of what holds.
    Raises Missing where a protection is missing, unless settings["unconfined"]."""
    prepare(settings)
    settings["judge"] = os.getpid()
    limit_resources(settings)
    held = {"rlimits": ""}
    demand(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs", settings)
    if demand(drop_capabilities(), "dropping capabilities", settings):
        held["capabilities"] = ""
    version = landlock_version()
    if demand(version and enter_domain(file_ruleset(settings)), "Landlock, which Linux has from 5.13 on", settings):
        held["landlock"] = f"version {version}"
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no other process of the user looks into this one
    die_with(settings.get("server", os.getppid()))
    return held


def candidate(settings):
    """Confine the candidate after it has been forked: it can't reach the judge. Returns {name: version} as well."""
    die_with(settings["judge"])  # a fork does not inherit it
    version = landlock_version()
    if version:
        demand(enter_domain(create_ruleset(MAKE_BLOCK, version)), "a second Landlock domain", settings)
    return judge(settings)


def judge(settings):
    """Confine the judge after it has forked the candidate. Returns {name: version} as well."""
    demand(end_after(settings["timeout"]), "timer of CPU time", settings)  # a fork would not inherit it
    return {"seccomp": ""} if demand(restrict_calls(), f"seccomp for {os.uname().machine}", settings) else {}


def demand(holds, what, settings):
    """Whether a protection holds. Raises Missing if it does not and settings do not say that this is all right."""
    if not holds and not settings["unconfined"]:
        raise Missing(f"programs can't be confined: this system offers no {what}")
    return holds


# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CLOCK_PROCESS_CPUTIME_ID = 2  # linux/time.h: CPU time of all threads, in user space and in the kernel
SIGKILL, SIGPROF = 9, 27
# As system calls, since before glibc 2.34 the functions lie in another library.
TIMER_CREATE, TIMER_SETTIME = (222, 223) if os.uname().machine == "x86_64" else (107, 110)


def die_with(parent):
    """Be killed when the parent ends, or end now if it has."""
    LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


TIMER_ABSTIME = 1  # linux/time.h
TIMER = {}  # "id", and "end", the CPU seconds of this process at which SIGPROF ends it


def end_after(seconds):
    """SIGPROF ends this process after so many seconds of CPU time. This timer counts what has run, where setitimer
    counts ticks of the clock and is early on a busy machine. Returns whether it holds."""
    event = struct.pack("=Qii48x", 0, SIGPROF, 0)  # struct sigevent: a signal
    timer = ctypes.c_int()
    LIBC.syscall(TIMER_CREATE, CLOCK_PROCESS_CPUTIME_ID, event, ctypes.byref(timer))
    TIMER.update(id=timer, end=time.process_time() + seconds)
    return set_timer(TIMER["end"])


def set_timer(end):
    """Have the timer run out at so many CPU seconds of this process, or never if that is 0. Returns whether it holds.
    The program can do the same: what it then meets are RLIMIT_CPU and the clock."""
    when = struct.pack("=4q", 0, 0, *divmod(int(end * 1e9), 1_000_000_000))
    return LIBC.syscall(TIMER_SETTIME, TIMER["id"], TIMER_ABSTIME, when, None) == 0


class Unhurried:
    """In a with statement the CPU time that counts stands still: what crosses between the processes is not the
    program's to pay for."""

    def __enter__(self):
        self.start = time.process_time()
        set_timer(0)

    def __exit__(self, *_):
        TIMER["end"] += time.process_time() - self.start
        set_timer(TIMER["end"])


def limit_resources(settings):
    """Set rlimits, soft and hard alike, so that the program cannot raise them again."""
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        # In whole seconds, since a program can ignore the signal of the exact timer, or stop it.
        resource.RLIMIT_CPU: settings["cpu_seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NPROC: settings["max_processes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 1024,  # of all processes of the user; the timer takes one
    }
    for what, amount in limits.items():
        _, most = resource.getrlimit(what)
        amount = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(what, (amount, amount))


def drop_capabilities():
    """Root is then a user like others, who owns root's files. Returns whether it holds."""
    header = struct.pack("=Ii", 0x20080522, 0)  # linux/capability.h: the version of the structs; this process
    none = bytes(24)  # effective, permitted and inheritable, twice 32 bits each
    return LIBC.capset(header, none) == 0  # no_new_privs keeps a new program from gaining any


# -- Landlock: linux/landlock.h

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every processor
ASK_VERSION, PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, MAKE_BLOCK = 1 << 1, 1 << 2, 1 << 3, 1 << 11  # access rights, a bit for each
N_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many a version of Landlock knows; 16 from version 5 on
BIND_TCP, CONNECT_TCP = 1, 2  # from version 4 on
ABSTRACT_SOCKETS, SIGNALS = 1, 2  # from version 6 on: none to processes outside


def landlock_version():
    """The kernel's version of Landlock, 0 if it has none."""
    return max(0, LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION))


def create_ruleset(rights, version):
    """A descriptor of a ruleset: what is forbidden unless a rule allows it."""
    fields = [rights]  # struct landlock_ruleset_attr, which has grown with the versions
    if version >= 4:
        fields.append(BIND_TCP | CONNECT_TCP)
    if version >= 6:
        fields.append(ABSTRACT_SOCKETS | SIGNALS)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    return LIBC.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(8 * len(fields)), 0)


def enter_domain(ruleset):
    """Restrict this process and those that it will fork by a ruleset, which is closed. Returns whether it holds."""
    held = LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return held


def file_ruleset(settings):
    """A descriptor of the ruleset for files: read what readable_paths finds, write to the folder, nothing else. The
    last one made is kept, for the next process that is forked with the same folder and packages."""
    about = os.stat(settings["folder"])
    key = (about.st_dev, about.st_ino, *settings["readable"])  # the folder itself: its name may be another's later
    kept_key, ruleset = PREPARED.get("ruleset", (None, None))
    if kept_key == key:
        return ruleset
    if kept_key:
        os.close(ruleset)
    version = landlock_version()
    everything = (1 << N_RIGHTS.get(version, 16)) - 1
    ruleset = create_ruleset(everything, version)
    for path, allowed in [*readable_paths(settings["readable"]), (settings["folder"], everything)]:
        handle = os.open(path, os.O_PATH)
        rule = struct.pack("=Qi", allowed, handle)  # struct landlock_path_beneath_attr
        LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        os.close(handle)
    PREPARED["ruleset"] = key, ruleset
    return ruleset


# -- what may be read

# Random bytes; where shared libraries are; the time zone; time zones; how languages write numbers, dates and text.
DATA = ("/dev/urandom", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/usr/lib/locale")
# Loaded by libc when a thread ends, and by packages in C++.
RUNTIMES = ("libgcc_s.so.1", "libstdc++.so.6")


def readable_paths(packages):
    """[(path, rights)] of all that may be read. Rules hold for what is below a path too, and a rule can't be taken
    back: so the folder of the standard library, in which site-packages lies, can only be listed, and its modules are
    named one by one."""
    key = tuple(packages)
    if key not in PREPARED:
        library = os.path.dirname(os.__file__)
        names = os.listdir(library) if os.access(library, os.R_OK) else []
        modules = [f"{library}/{name}" for name in names if is_standard(name)]
        paths = [*modules, *packages, *DATA]
        paths += shared_libraries([f"{library}/lib-dynload", *packages])
        rules = {os.devnull: WRITE_FILE | READ_FILE}
        # import lists the folder in which it looks for a module
        rules |= dict.fromkeys([library, *map(os.path.dirname, packages)], READ_DIR)
        # a rule for a file must not hold rights on folders
        rules |= {path: READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE for path in paths}
        PREPARED[key] = [(path, rights) for path, rights in rules.items() if os.path.exists(path)]
    return PREPARED[key]


def is_standard(name):
    """Whether a name in the folder of the standard library is Python's own."""
    module = name.removesuffix(".py")
    is_module = module in sys.stdlib_module_names or name.startswith("_sysconfigdata")
    return is_module or name in ("lib-dynload", "__pycache__")


def shared_libraries(folders):
    """Paths of the shared libraries that extension modules below the folders need. The dynamic loader is asked: a child
    loads all of them, and looks at what has been mapped. Raises OSError where that fails."""
    end, other_end = os.pipe()
    child = os.fork()
    if child == 0:
        modules = [f"{where}/{name}" for folder in folders for where, _, names in os.walk(folder) for name in names]
        for path in [*RUNTIMES, *(path for path in modules if path.endswith(".so"))]:
            try:
                ctypes.CDLL(path)
            except OSError:
                pass  # it can't be imported either
        with open("/proc/self/maps", "rb") as maps, os.fdopen(other_end, "wb") as answer:
            answer.write(maps.read())
        os._exit(0)
    os.close(other_end)
    with os.fdopen(end, encoding=sys.getfilesystemencoding(), errors="surrogateescape") as answer:
        mapped = [line.split(maxsplit=5)[5].strip() for line in answer if "/" in line and ".so" in line]
    if os.waitpid(child, 0)[1]:
        raise OSError(f"an extension module below {' or '.join(folders)} can't be loaded")
    return {path for path in mapped if not path.startswith(tuple(folders))}


# -- seccomp


def call_filter(version):
    """The filter of calls.py but for its head, as bytes, for a version of Landlock."""
    if version not in PREPARED:
        PREPARED[version] = calls.assemble(calls.tail(os.uname().machine, version))
    return PREPARED[version]


def restrict_calls():
    """seccomp: only the calls of calls.py. Returns whether it holds: not on a processor that calls.py does not know."""
    processor = os.uname().machine
    if processor not in calls.PROCESSORS:
        return False
    code = calls.assemble(calls.head(processor, os.getpid())) + call_filter(landlock_version())
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    filter_mode = 2
    return LIBC.prctl(PR_SET_SECCOMP, filter_mode, header, 0, 0) == 0
