"""What is taken from a process of the sandbox, for good, before it runs a program that nobody has read.

    rlimits    more than some memory, CPU seconds, and number and size of files
    Landlock   every file but Python's and the system's own (to read) and one empty folder (to write)
    dumpable   access for other processes to its memory, through /proc or with ptrace
    seccomp    new processes, signals, the network, and whatever else FORBIDDEN names

A Linux process needs no privileges to give these up, and cannot get them back. What a kernel lacks is left out, and
the caller is told what holds. The numbers are those of the kernel's headers, which the comments name.
"""

# Neither enum nor signal nor dataclasses: importing them takes longer than all else that a sandbox does to start.
import ctypes
import os
import resource
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def before_fork(settings):
    """Confine this process and those that it will fork; returns the names of what holds. settings: "folder", the only
    place to write to; "memory" and "file_size" in bytes; "timeout", seconds of CPU time; "cpu_seconds", rounded up."""
    limit_resources(settings)
    has_landlock = restrict_files(settings["folder"])
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    return ["rlimits", "landlock"] if has_landlock else ["rlimits"]


def after_fork(settings):
    """Confine this process when it has forked for the last time; returns the names of what holds."""
    # SIGPROF ends this process after so much CPU time. A fork would not inherit the timer.
    microseconds = max(1, int(settings["timeout"] * 1e6))  # 0 would mean no timer
    never_again, first = (0, 0), divmod(microseconds, 1_000_000)
    LIBC.setitimer(ITIMER_PROF, (ctypes.c_long * 4)(*never_again, *first), None)
    return ["seccomp"] if restrict_calls() else []


PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22  # linux/prctl.h
ITIMER_PROF = 2  # sys/time.h: counts the CPU time of all threads, in user space and in the kernel


def limit_resources(settings):
    """Set rlimits, soft and hard alike, so that the program cannot raise them again."""
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        # In whole seconds, since a program can stop the exact timer of after_fork.
        resource.RLIMIT_CPU: settings["cpu_seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NPROC: 512,  # of all processes of the user; where seccomp holds, there are no new ones anyway
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for what, amount in limits.items():
        _, most = resource.getrlimit(what)
        amount = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(what, (amount, amount))


# -- Landlock: linux/landlock.h

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every processor
ASK_VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8  # the first access rights, a bit for each
N_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many a version of Landlock knows; 16 from version 5 on
BIND_TCP, CONNECT_TCP = 1, 2  # from version 4 on
ABSTRACT_SOCKETS, SIGNALS = 1, 2  # from version 6 on: none to processes outside


def restrict_files(folder):
    """Landlock: this process may read and run what is Python's and the system's, write to folder, and nothing else.
    Returns whether it holds."""
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # what the kernel asks for before Landlock and seccomp
    version = LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    if version < 1:
        return False
    everything = (1 << N_RIGHTS.get(version, 16)) - 1
    # struct landlock_ruleset_attr, which has grown with the versions: what is forbidden unless a rule allows it
    fields = [everything]
    if version >= 4:
        fields.append(BIND_TCP | CONNECT_TCP)
    if version >= 6:
        fields.append(ABSTRACT_SOCKETS | SIGNALS)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(8 * len(fields)), 0)

    readable = ["/usr", "/lib", "/lib64", sys.base_prefix, "/dev/urandom", *sys.path]
    rules = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    rules += [(folder, everything), (os.devnull, WRITE_FILE | READ_FILE)]
    for path, allowed in rules:
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH)
            if not os.path.isdir(path):  # a rule for a file must not hold rights on folders
                allowed &= EXECUTE | WRITE_FILE | READ_FILE
            rule = struct.pack("=Qi", allowed, handle)  # struct landlock_path_beneath_attr
            LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
            os.close(handle)
    held = LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return held


# -- seccomp: which system calls

# The forbidden calls: {name: (number on x86_64, number on aarch64)}, from arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h. aarch64 lacks the older calls, such as fork: its libc uses clone.
FORBIDDEN = {
    # New programs and processes, which would outlive the verdict. (Threads need clone: the filter looks at its flags.)
    **{"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)},
    # Signals to others, and leaving the process group that is killed in the end.
    **{"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "setsid": (112, 157), "setpgid": (109, 154), "pidfd_open": (434, 434)},
    **{"pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424)},
    # Reading the memory of other processes: the judge's holds the test.
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    # The network.
    **{"socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202)},
    **{"connect": (42, 203), "sendto": (44, 206)},
    # Namespaces, in which the program would be root, and changes to what the file system looks like.
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51)},
    **{"pivot_root": (155, 41)},
    # Rights, owners, attributes and times of files: Landlock does not cover them. And device files.
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None)},
    **{"fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6)},
    **{"fsetxattr": (190, 7), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None)},
    **{"utimensat": (280, 88), "mknod": (133, None), "mknodat": (259, 33)},
    # Memory, queues and semaphores of System V stay when the process has gone.
    **{"shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190)},
    # Limits, priorities and processors, its own and those of the user's other processes.
    **{"setrlimit": (160, 164), "prlimit64": (302, 261), "setpriority": (141, 140), "sched_setaffinity": (203, 122)},
    # The machine's clock, its names, and rebooting it.
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162)},
    **{"reboot": (169, 142)},
    # Large parts of the kernel that have had many holes; io_uring would make calls past this filter.
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "bpf": (321, 280)},
    **{"perf_event_open": (298, 241), "io_uring_setup": (425, 425), "add_key": (248, 217), "request_key": (249, 218)},
    **{"keyctl": (250, 219)},
}

# -- seccomp: the filter
#
# The kernel runs it before every system call, on a struct seccomp_data (linux/seccomp.h); the value that it returns
# decides. It is a program for a machine with one register, classic BPF (linux/filter.h):
#
#     load the architecture   not this processor's?   return NOT PERMITTED
#     load the call's number  a call of x32?          return NOT PERMITTED
#                             clone3?                 return NO SUCH CALL    its flags are out of sight; libc uses clone
#                             FORBIDDEN[0]?           return NOT PERMITTED
#                             FORBIDDEN[1]?           return NOT PERMITTED   and so on
#                             not clone?              return ALLOWED
#     load clone's flags      not for a thread?       return NOT PERMITTED
#                                                     return ALLOWED

PROCESSORS = ("x86_64", "aarch64")
AUDIT_ARCH = (0xC000003E, 0xC00000B7)  # linux/audit.h
CLONE, CLONE3 = (56, 220), 435
X32_CALLS = 0x40000000  # from this number on: calls for 32-bit pointers on x86_64
CLONE_THREAD = 0x10000  # linux/sched.h

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # the instructions used here
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
ALLOWED, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # SECCOMP_RET_ALLOW; _ERRNO + EPERM, ENOSYS


def call_filter(processor):
    """The filter as [(instruction, skip if true, skip if false, operand)], or None for an unknown processor."""
    if processor not in PROCESSORS:
        return None
    column = PROCESSORS.index(processor)
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        *return_if(EQUAL, AUDIT_ARCH[column], NOT_PERMITTED, unless=True),
        (LOAD, 0, 0, NUMBER),
        *return_if(AT_LEAST, X32_CALLS, NOT_PERMITTED),
        *return_if(EQUAL, CLONE3, NO_SUCH_CALL),
    ]
    for numbers in FORBIDDEN.values():
        if numbers[column] is not None:
            program += return_if(EQUAL, numbers[column], NOT_PERMITTED)
    program += return_if(EQUAL, CLONE[column], ALLOWED, unless=True)
    program += [(LOAD, 0, 0, FIRST_ARGUMENT), *return_if(ANY_BIT, CLONE_THREAD, NOT_PERMITTED, unless=True)]
    return [*program, (RETURN, 0, 0, ALLOWED)]


def return_if(test, operand, verdict, unless=False):
    """Two instructions, a jump and a return: where the test of the register holds - unless: where it does not - the
    verdict is returned; otherwise the return is skipped."""
    skips = (1, 0) if unless else (0, 1)
    return [(test, *skips, operand), (RETURN, 0, 0, verdict)]


def restrict_calls():
    """seccomp: put the filter on this process, which can still start threads. Returns whether it holds."""
    program = call_filter(os.uname().machine)
    if program is None:
        return False
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    filter_mode = 2
    return LIBC.prctl(PR_SET_SECCOMP, filter_mode, header, 0, 0) == 0
