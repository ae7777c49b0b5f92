"""Which system calls a process of the sandbox may make, and the filter that makes the kernel refuse all others.

The lists below are all there is: what they do not name is refused (EPERM), also what a later kernel adds. (The kernel
itself lets two calls pass any filter, uretprobe and uprobe on x86_64; they end a program that makes them.) Landlock
decides which *files* may be opened, read and written; these lists decide what can be done beside that.

Numbers are (x86_64, aarch64), from arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; None:
the processor lacks the call, and its libc uses a later one.
"""

import struct

PROCESSORS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_..., linux/audit.h

# -- what may be called, whatever its arguments

ALLOWED = {
    # Read and write open files, and move within them.
    **{"read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67)},
    **{"pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287)},
    **{"lseek": (8, 62), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83)},
    # From one open file to another: shutil.copyfile.
    **{"sendfile": (40, 71), "copy_file_range": (326, 285)},
    # Close, copy and make descriptors.
    **{"close": (3, 57), "close_range": (436, 436), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24)},
    **{"pipe": (22, None), "pipe2": (293, 59)},
    # Create, look at, rename and remove files: where, is up to Landlock.
    **{"creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None)},
    **{"unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276)},
    **{"link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36)},
    **{"stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291)},
    **{"access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None)},
    **{"readlinkat": (267, 78), "getdents64": (217, 61), "statfs": (137, 43), "fstatfs": (138, 44)},
    # Its own working folder, and the rights of files that it will create.
    **{"getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "umask": (95, 166)},
    # Its own memory; how much, is up to RLIMIT_AS. mprotect: shared libraries are loaded with it.
    **{"munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "brk": (12, 214), "madvise": (28, 233)},
    **{"msync": (26, 227)},
    # Wait for descriptors: select, asyncio.
    **{"poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "eventfd2": (290, 19)},
    **{"epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None)},
    **{"epoll_pwait": (281, 22)},
    # Both ends of a pair of sockets, which is how asyncio wakes itself: no other socket can be made.
    **{"recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205)},
    **{"getsockopt": (55, 209)},
    # Threads: start (clone is below), wait for each other, end.
    **{"futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293)},
    **{"sched_yield": (24, 124), "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94)},
    # The judge waits for the candidate. The candidate has no children.
    **{"wait4": (61, 260)},
    # Its own signals: handlers, blocking, waiting, alarms.
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "pause": (34, None), "alarm": (37, None)},
    **{"getitimer": (36, 102), "setitimer": (38, 103), "timer_settime": (223, 110)},
    # Clocks, and sleeping. The kernel itself goes on with restart_syscall after a signal.
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None)},
    **{"nanosleep": (35, 101), "clock_nanosleep": (230, 115), "restart_syscall": (219, 128)},
    # Who and where it is, and what it has used.
    **{"getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175)},
    **{"getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getresuid": (118, 148)},
    **{"getresgid": (120, 150), "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156)},
    **{"uname": (63, 160), "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153), "getrlimit": (97, 163)},
    # Random numbers.
    **{"getrandom": (318, 278)},
}

# -- what does nothing and says that it has: a plain program goes on, as shutil.copy does
#
# Rights and times, also of files outside that Landlock lets it read; and advice about what will be read.

PRETENDED = {
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88)},
    **{"fadvise64": (221, 223)},
}

# -- what "this file system does not have" (EOPNOTSUPP): extended attributes, which shutil.copy2 then leaves out, and
# room for bytes that have not been written, which libc then writes

UNSUPPORTED = {
    **{"getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10)},
    **{"listxattr": (194, 11), "llistxattr": (195, 12), "flistxattr": (196, 13), "fallocate": (285, 47)},
}

# -- what the kernel "does not have" (ENOSYS): clone3's flags are out of a filter's sight; libc then uses clone

MISSING = {"clone3": (435, 435)}

# -- the filter's language: classic BPF (linux/filter.h), a machine with one register
#
# An instruction is (operation, instructions to skip if true, to skip if false, operand). It is run before every system
# call, on a struct seccomp_data (linux/seccomp.h), and what it returns decides.

LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data


def low(argument):
    """Offset of the lower half of the n-th argument (both processors are little-endian): the whole of an int."""
    return 16 + 8 * argument


def high(argument):
    """Offset of the upper half of the n-th argument."""
    return low(argument) + 4


def error(number):
    """The instruction that ends the call with an error, or with 0."""
    return (RETURN, 0, 0, 0x00050000 | number)  # SECCOMP_RET_ERRNO


ALLOW, REFUSE = (RETURN, 0, 0, 0x7FFF0000), error(1)  # SECCOMP_RET_ALLOW; EPERM


def needs(offset, *values):
    """Go on only if this half of an argument is one of the values."""
    jumps = [(EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(LOAD, 0, 0, offset), *jumps, REFUSE]


def lacks(offset, bits):
    """Go on only if none of the bits is set."""
    return [(LOAD, 0, 0, offset), (ANY_BIT, 0, 1, bits), REFUSE]


def when(offset, value, then):
    """Where this half of an argument is the value, run the instructions of then before those that follow."""
    return [(LOAD, 0, 0, offset), (EQUAL, 0, len(then), value), *then]


def unless(offset, value, then):
    """Where this half of an argument is not the value, run the instructions of then before those that follow."""
    return [(LOAD, 0, 0, offset), (EQUAL, len(then), 0, value), *then]


def null(argument):
    """Go on only if the argument, a pointer, is NULL."""
    return [*needs(low(argument), 0), *needs(high(argument), 0)]


# -- what may be called with some arguments only: {name: (numbers, instructions that go on where it may)}

AF_UNIX, STREAMS = 1, (1, 0x80001)  # SOCK_STREAM, without and with SOCK_CLOEXEC
MAP_HUGETLB, O_ASYNC, O_TRUNC, O_ACCMODE = 0x40000, 0x2000, 0x200, 3
TMPFILE = 0x400000  # in O_TMPFILE: a file without a name, which nobody can count
RLIMIT_STACK = 3
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL; F_GETLK, F_SETLK, F_SETLKW (sqlite); F_DUPFD_CLOEXEC
F_SETFL, FCNTL_COMMANDS = 4, (0, 1, 2, 3, 4, 5, 6, 7, 1030)
# TCGETS (isatty), TIOCGWINSZ (size of a terminal), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
PR_SET_NAME, PR_GET_NAME = 15, 16
# VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID; musl adds DETACHED
THREAD_FLAGS = (0x3D0F00, 0x7D0F00)

CHECKED = {
    # A thread, not a process, which would outlive the verdict.
    "clone": ((56, 220), needs(low(0), *THREAD_FLAGS)),
    # No pages from the machine's pool of huge ones, which RLIMIT_AS is not about.
    "mmap": ((9, 222), lacks(low(3), MAP_HUGETLB)),
    # No descriptors that signal another process (F_SETOWN, F_SETSIG, O_ASYNC), no leases on others' files, no
    # larger pipes.
    "fcntl": ((72, 25), [*when(low(1), F_SETFL, lacks(low(2), O_ASYNC)), *needs(low(1), *FCNTL_COMMANDS)]),
    # Nothing that changes a device or the flags of a file.
    "ioctl": ((16, 29), needs(low(1), *IOCTL_COMMANDS)),
    # A thread's name; not the parent-death signal, nor anything else that confine.py has set.
    "prctl": ((157, 167), needs(low(0), PR_SET_NAME, PR_GET_NAME)),
    # Read its own limits. A stack can be raised, as programs for contests do: it lies within RLIMIT_AS.
    "prlimit64": ((302, 261), [*needs(low(0), 0), *unless(low(1), RLIMIT_STACK, null(2))]),
    # Connected to each other from the start; and no address to send to.
    "socketpair": ((53, 199), [*needs(low(0), AF_UNIX), *needs(low(1), *STREAMS)]),
    "sendto": ((44, 206), null(4)),
}
OPENING = {"open": ((2, None), low(1)), "openat": ((257, 56), low(2))}  # and where their flags are
TRUNCATE = (76, 45)
# With its own number as first argument: os.kill, raise, abort. Not to others, nor to its group.
TO_ITSELF = {"kill": (62, 129), "tgkill": (234, 131)}


def by_landlock_version(version):
    """{name: (numbers, instructions)} of calls that depend on the version of Landlock. Before version 3 it does not
    say which files may be emptied: files are then emptied only where they are opened to write, which it does say."""
    if version >= 3:
        opening = {name: (numbers, lacks(flags, TMPFILE)) for name, (numbers, flags) in OPENING.items()}
        return opening | {"truncate": (TRUNCATE, [])}
    opening = {}
    for name, (numbers, flags) in OPENING.items():
        mode = [*lacks(flags, TMPFILE), (LOAD, 0, 0, flags), (AND, 0, 0, O_TRUNC | O_ACCMODE)]
        # 0 is reading; 3 is neither reading nor writing, and Landlock lets it pass
        opening[name] = (numbers, [*mode, (EQUAL, 1, 0, O_TRUNC), (EQUAL, 0, 1, O_TRUNC | 3), REFUSE])
    return opening


# -- the filter
#
#     load the architecture   not this processor's?       refuse
#     load the call's number  kill or tgkill?             allow if the first argument is this process, else refuse
#                             search for the number by halves; the instructions found there decide


def head(processor, process_id):
    """The first instructions, which allow signals to this process alone."""
    column = list(PROCESSORS).index(processor)
    kill, tgkill = (numbers[column] for numbers in TO_ITSELF.values())
    to_itself = [*needs(low(0), process_id), ALLOW]
    return [
        *needs(ARCHITECTURE, PROCESSORS[processor]),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 1, 0, kill),
        (EQUAL, 0, len(to_itself), tgkill),
        *to_itself,
    ]


def decisions(processor, landlock_version):
    """{number of a call: the instructions that decide about it}, for all calls of the lists."""
    column = list(PROCESSORS).index(processor)
    found = {numbers[column]: [ALLOW] for numbers in ALLOWED.values()}
    for calls, error_number in ((PRETENDED, 0), (UNSUPPORTED, 95), (MISSING, 38)):
        found |= {numbers[column]: [error(error_number)] for numbers in calls.values()}
    for numbers, instructions in (CHECKED | by_landlock_version(landlock_version)).values():
        found[numbers[column]] = [*instructions, ALLOW]
    found.pop(None, None)
    return found


def tail(processor, landlock_version):
    """The rest of the instructions. The register holds the call's number."""
    found = decisions(processor, landlock_version)
    ranges = [(0, found.get(0, [REFUSE]))]  # (the first number, instructions for it and those up to the next range)
    for number in range(1, max(found) + 2):  # the last range refuses all later numbers, and those of x32
        instructions = found.get(number, [REFUSE])
        if instructions != ranges[-1][1]:
            ranges.append((number, instructions))
    return search(ranges)


def search(ranges):
    """Instructions that find the range of the register by halves: each call takes few steps, the first and the last."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below = search(ranges[:middle])
    return [(AT_LEAST, len(below), 0, ranges[middle][0]), *below, *search(ranges[middle:])]


def assemble(instructions):
    """The instructions as the kernel reads them: an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
