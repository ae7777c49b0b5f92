"""What a process of the sandbox gives up for good, before it runs a line that nobody has read.

    rlimits    memory, CPU seconds, the size and number of files
    Landlock   every file but Python's and the system's own (to read) and one empty folder (to write)
    dumpable   nobody looks into its memory, neither through /proc nor with ptrace
    seccomp    new processes, signals, the network, and whatever else FORBIDDEN names

All of it is open to an unprivileged Linux process and cannot be taken back; what a kernel lacks is left out, and the
caller is told what holds. The numbers are those of the kernel's headers, which the comments name.
"""

# No enum, no signal, no dataclasses: importing them takes longer than everything else that a sandbox does to start.
import ctypes
import os
import resource
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def before_fork(settings):
    """Confine this process and those that it will fork; the names of what holds. settings: "folder", the only place to
    write to; "memory" and "file_size" in bytes; "timeout" in seconds of CPU time, "cpu_seconds" the same rounded up."""
    limit_resources(settings)
    has_landlock = restrict_files(settings["folder"])
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    return ["rlimits", "landlock"] if has_landlock else ["rlimits"]


def after_fork(settings):
    """Confine this process alone, when it has forked for the last time; the names of what holds."""
    start_timer(settings["timeout"])
    return ["seccomp"] if restrict_calls() else []


# -- rlimits, and a timer for fractions of a second

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22  # linux/prctl.h
ITIMER_PROF = 2  # sys/time.h: counts the CPU time of all threads, in user space and in the kernel


def limit_resources(settings):
    """rlimits, soft and hard alike, so that the program cannot raise them again."""
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        # Whole seconds, rounded up: start_timer's timer is exact, but a program can stop it.
        resource.RLIMIT_CPU: settings["cpu_seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NPROC: 512,  # counts all of the user's; where seccomp holds, there are no new ones anyway
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for what, amount in limits.items():
        _, most = resource.getrlimit(what)
        amount = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(what, (amount, amount))


def start_timer(seconds):
    """End this process by SIGPROF after so many seconds of CPU time. A fork does not inherit the timer."""
    microseconds = max(1, int(seconds * 1e6))  # 0 would mean no timer
    never_again, first = (0, 0), divmod(microseconds, 1_000_000)
    LIBC.setitimer(ITIMER_PROF, (ctypes.c_long * 4)(*never_again, *first), None)


# -- Landlock: linux/landlock.h

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every processor
ASK_VERSION, PATH_BENEATH = 1, 1
# Access rights: the n-th is bit n. Versions of Landlock before 5 know them up to LAST_RIGHT.
RIGHTS = "execute write_file read_file read_dir remove_dir remove_file make_char make_dir make_reg make_sock".split()
RIGHTS += "make_fifo make_block make_sym refer truncate ioctl_dev".split()
LAST_RIGHT = {1: "make_sym", 2: "refer", 3: "truncate", 4: "truncate"}
BIND_TCP, CONNECT_TCP = 1, 2  # from version 4 on
ABSTRACT_SOCKETS, SIGNALS = 1, 2  # from version 6 on: none to processes outside


def rights(*names):
    """Access rights as the bits of one number."""
    return sum(1 << RIGHTS.index(name) for name in names)


def restrict_files(folder):
    """Landlock: read and run what is Python's and the system's, write to folder, and nothing else. Whether it holds."""
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # what the kernel asks for before Landlock and seccomp
    version = LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    if version < 1:
        return False
    last = LAST_RIGHT.get(version, "ioctl_dev")
    everything = rights(*RIGHTS[: RIGHTS.index(last) + 1])
    # struct landlock_ruleset_attr: what is forbidden unless a rule allows it; it has grown with the versions
    fields = [everything]
    if version >= 4:
        fields.append(BIND_TCP | CONNECT_TCP)
    if version >= 6:
        fields.append(ABSTRACT_SOCKETS | SIGNALS)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(8 * len(fields)), 0)

    readable = ["/usr", "/lib", "/lib64", sys.base_prefix, "/dev/urandom", *sys.path]
    rules = [(path, rights("execute", "read_file", "read_dir")) for path in readable]
    rules += [(folder, everything), (os.devnull, rights("write_file", "read_file"))]
    for path, allowed in rules:
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH)
            if not os.path.isdir(path):  # a rule for a file must not speak of folders
                allowed &= rights("execute", "write_file", "read_file")
            rule = struct.pack("=Qi", allowed, handle)  # struct landlock_path_beneath_attr
            LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
            os.close(handle)
    held = LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return held


# -- seccomp: which system calls

FORBIDDEN = [
    # Another program, another process: it would outlive the verdict. (clone, which threads need too, is looked into.)
    *("fork", "vfork", "execve", "execveat"),
    # Signals to others, and leaving the process group that is killed in the end.
    *("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setsid", "setpgid"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
    # Another process's memory: the judge's holds the test.
    *("ptrace", "process_vm_readv", "process_vm_writev"),
    # The network.
    *("socket", "socketpair", "bind", "listen", "accept", "connect", "sendto"),
    # Namespaces, in which the program would be root, and other views of the file system.
    *("unshare", "setns", "mount", "umount2", "chroot", "pivot_root"),
    # Rights, owners, attributes and times of files: Landlock does not cover them. And device files.
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "utime", "utimes", "futimesat", "utimensat", "mknod", "mknodat"),
    # Memory, queues and semaphores of System V stay when the process has gone.
    *("shmget", "msgget", "semget"),
    # Limits, priorities and processors, its own and those of the user's other processes.
    *("setrlimit", "prlimit64", "setpriority", "sched_setaffinity"),
    # The machine's clock, its names, and rebooting it.
    *("settimeofday", "clock_settime", "sethostname", "setdomainname", "reboot"),
    # Large parts of the kernel that have had many holes; io_uring would carry out calls past this filter.
    *("init_module", "finit_module", "delete_module", "bpf", "perf_event_open", "io_uring_setup"),
    *("add_key", "request_key", "keyctl"),
]

# Numbers of these and of clone: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h. A newer
# processor lacks the older calls, such as fork: its libc uses clone.
NUMBERS = {
    "x86_64": (
        {"shmget": 29, "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "bind": 49, "listen": 50}
        | {"socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "semget": 64}
        | {"msgget": 68, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "ptrace": 101}
        | {"setpgid": 109, "setsid": 112, "rt_sigqueueinfo": 129, "utime": 132, "mknod": 133, "setpriority": 141}
        | {"pivot_root": 155, "setrlimit": 160, "chroot": 161, "settimeofday": 164, "mount": 165, "umount2": 166}
        | {"reboot": 169, "sethostname": 170, "setdomainname": 171, "init_module": 175, "delete_module": 176}
        | {"setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "tkill": 200, "sched_setaffinity": 203}
        | {"clock_settime": 227, "tgkill": 234, "utimes": 235, "add_key": 248, "request_key": 249, "keyctl": 250}
        | {"mknodat": 259, "fchownat": 260, "futimesat": 261, "fchmodat": 268, "unshare": 272, "utimensat": 280}
        | {"rt_tgsigqueueinfo": 297, "perf_event_open": 298, "prlimit64": 302, "setns": 308}
        | {"process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313, "bpf": 321, "execveat": 322}
        | {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438}
        | {"fchmodat2": 452}
    ),
    "aarch64": (
        {"setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "mknodat": 33, "umount2": 39, "mount": 40}
        | {"pivot_root": 41, "chroot": 51, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55}
        | {"utimensat": 88, "unshare": 97, "init_module": 105, "delete_module": 106, "clock_settime": 112}
        | {"ptrace": 117, "sched_setaffinity": 122, "kill": 129, "tkill": 130, "tgkill": 131}
        | {"rt_sigqueueinfo": 138, "setpriority": 140, "reboot": 142, "setpgid": 154, "setsid": 157}
        | {"sethostname": 161, "setdomainname": 162, "setrlimit": 164, "settimeofday": 170, "msgget": 186}
        | {"semget": 190, "shmget": 194, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201}
        | {"accept": 202, "connect": 203, "sendto": 206, "add_key": 217, "request_key": 218, "keyctl": 219}
        | {"clone": 220, "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "prlimit64": 261}
        | {"setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280}
        | {"execveat": 281, "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435}
        | {"pidfd_getfd": 438, "fchmodat2": 452}
    ),
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

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_CALLS = 0x40000000  # from this number on: calls for 32-bit pointers on x86_64
CLONE_THREAD = 0x10000  # linux/sched.h

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # the instructions used here
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
ALLOWED, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # SECCOMP_RET_ALLOW; _ERRNO + EPERM, ENOSYS


def call_filter(processor):
    """The filter as [(instruction, skip if true, skip if false, operand)], or None for an unknown processor."""
    if processor not in NUMBERS:
        return None
    numbers = NUMBERS[processor]
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        *return_unless(EQUAL, AUDIT_ARCH[processor], NOT_PERMITTED),
        (LOAD, 0, 0, NUMBER),
        *return_if(AT_LEAST, X32_CALLS, NOT_PERMITTED),
        *return_if(EQUAL, numbers["clone3"], NO_SUCH_CALL),
    ]
    for name in FORBIDDEN:
        if name in numbers:
            program += return_if(EQUAL, numbers[name], NOT_PERMITTED)
    program += [
        *return_unless(EQUAL, numbers["clone"], ALLOWED),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *return_unless(ANY_BIT, CLONE_THREAD, NOT_PERMITTED),
        (RETURN, 0, 0, ALLOWED),
    ]
    return program


def return_if(test, operand, verdict):
    """Two instructions: where the test of the register holds, the verdict is returned; else the next one is skipped."""
    return [(test, 0, 1, operand), (RETURN, 0, 0, verdict)]


def return_unless(test, operand, verdict):
    """The opposite of return_if."""
    return [(test, 1, 0, operand), (RETURN, 0, 0, verdict)]


def restrict_calls():
    """seccomp: put the filter on this process. Threads stay possible. Whether it holds."""
    program = call_filter(os.uname().machine)
    if program is None:
        return False
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    filter_mode = 2
    return LIBC.prctl(PR_SET_SECCOMP, filter_mode, header, 0, 0) == 0
