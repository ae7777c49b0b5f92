"""The lists of system calls against the kernel's headers, and the filter made of them, run as the kernel would."""

import re
from pathlib import Path

import pytest

from evaluation import calls

# -- the lists, against the kernel's headers


def header(processor):
    """{name: number} from the headers of the kernel."""
    if processor == "x86_64":
        paths = [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")]
    else:
        paths = [Path("/usr/include/asm-generic/unistd.h")]
    text = "".join(path.read_text() for path in paths if path.exists())
    if not text:
        pytest.skip("no headers of the kernel: apt-get install linux-libc-dev")
    # The generic header calls some __NR3264_..., which a processor of 64 bits calls without 3264; fstatat is renamed.
    found = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    return found | {"newfstatat": found.get("newfstatat", found.get("fstatat"))}


def named(processor):
    """{name: number} of all calls that calls.py names."""
    column = list(calls.PROCESSORS).index(processor)
    plain = calls.ALLOWED | calls.PRETENDED | calls.UNSUPPORTED | calls.MISSING | calls.TO_ITSELF
    checked = calls.CHECKED | calls.OPENING
    numbers = plain | {name: both for name, (both, _) in checked.items()} | {"truncate": calls.TRUNCATE}
    return {name: both[column] for name, both in numbers.items() if both[column] is not None}


@pytest.mark.parametrize("processor", calls.PROCESSORS)
def test_the_numbers_are_the_kernels(processor):
    known, used = header(processor), named(processor)
    newer = {"fchmodat2": 452}
    assert {name: (known | newer).get(name) for name in used} == used
    assert len(set(used.values())) == len(used)


def test_a_call_without_a_number_is_one_that_the_processor_lacks():
    assert not (set(named("x86_64")) - set(named("aarch64"))) & set(header("aarch64"))


# -- the filter, as the kernel would run it, for both processors

ALLOWED, REFUSED, NO_SUCH_CALL, PRETENDED, UNSUPPORTED = 0x7FFF0000, 0x50001, 0x50026, 0x50000, 0x5005F


def verdict_of(program, architecture, number, *arguments):
    """Run a program of classic BPF as the kernel does: its return value for one system call."""
    data = {0: number, 4: architecture} | {16 + 4 * half: 0 for half in range(12)}
    for i, argument in enumerate(arguments):
        data |= {16 + 8 * i: argument & 0xFFFFFFFF, 20 + 8 * i: argument >> 32}
    register, line = None, 0
    while True:
        operation, if_true, if_false, operand = program[line]
        line += 1
        if operation == 0x06:  # return
            return operand
        if operation == 0x20:
            register = data[operand]
        elif operation == 0x54:
            register &= operand
        else:
            holds = {0x15: register == operand, 0x35: register >= operand, 0x45: bool(register & operand)}[operation]
            line += if_true if holds else if_false


@pytest.fixture(params=[(processor, version) for processor in calls.PROCESSORS for version in (0, 2, 3, 7)])
def judged(request):
    """verdict(name or number, *arguments) of the filter of process 77, for a processor and a version of Landlock."""
    processor, version = request.param
    program, numbers = calls.head(processor, 77) + calls.tail(processor, version), named(processor)
    architecture = calls.PROCESSORS[processor]

    def verdict(call, *arguments, architecture=architecture):
        return verdict_of(program, architecture, numbers.get(call, call), *arguments)

    verdict.processor, verdict.version, verdict.numbers = processor, version, numbers
    return verdict


def test_each_call_gets_the_verdict_of_its_list_and_all_others_are_refused(judged):
    column = list(calls.PROCESSORS).index(judged.processor)
    expected = dict.fromkeys(range(700), REFUSED)
    lists = {ALLOWED: calls.ALLOWED, PRETENDED: calls.PRETENDED}
    lists |= {UNSUPPORTED: calls.UNSUPPORTED, NO_SUCH_CALL: calls.MISSING}
    for verdict, names in lists.items():
        expected |= {numbers[column]: verdict for numbers in names.values() if numbers[column] is not None}
    for name in [*calls.CHECKED, *calls.OPENING, *calls.TO_ITSELF, "truncate"]:  # by their arguments: below
        expected.pop(judged.numbers.get(name), None)
    for number, verdict in expected.items():
        assert judged(number, 5, 5, 5) == verdict, number
        assert judged(number, architecture=calls.PROCESSORS[judged.processor] ^ 1) == REFUSED
        assert judged(number + 0x40000000) == REFUSED, "x32"
    assert judged(0xFFFFFFFF) == REFUSED


def test_arguments_decide_where_they_matter(judged):
    assert judged("kill", 77, 9) == judged("tgkill", 77, 80, 6) == ALLOWED
    assert {judged("kill", other, 0) for other in (0, 1, 78, 0xFFFFFFFF, -77 & 0xFFFFFFFF)} == {REFUSED}
    assert judged("clone", 0x3D0F00) == ALLOWED
    # fork; vfork; a thread in new namespaces; one that signals the parent
    assert {judged("clone", flags) for flags in (0x1200011, 0x4111, 0x3D0F00 | 0x10000000, 0x3D8F00)} == {REFUSED}
    assert judged("fcntl", 3, 4, 0x800) == judged("fcntl", 3, 7, 0x7FFF2000) == ALLOWED
    refused = [(4, 0x2000), *((command, 1) for command in (8, 10, 15, 1024, 1026, 1031, 1033, 1034))]
    assert {judged("fcntl", 3, *command) for command in refused} == {REFUSED}
    assert judged("ioctl", 3, 0x5401) == ALLOWED
    # the flags of a file; typing into a terminal; signals to an owner
    assert {judged("ioctl", 3, command) for command in (0x40086602, 0x5412, 0x5452, 0x8901, 0x8902)} == {REFUSED}
    assert judged("prlimit64", 0, 7, 0, 1 << 40) == judged("prlimit64", 0, 3, 1 << 40) == ALLOWED
    assert judged("prlimit64", 0, 0, 1 << 40) == judged("prlimit64", 78, 7, 0, 1 << 40) == REFUSED
    assert judged("socketpair", 1, 0x80001) == ALLOWED
    assert judged("socketpair", 2, 1) == judged("socketpair", 1, 2) == REFUSED
    assert judged("sendto", 3, 1, 1, 0, 0) == ALLOWED and judged("sendto", 3, 1, 1, 0, 1 << 32) == REFUSED
    assert judged("mmap", 0, 1, 3, 0x22) == ALLOWED and judged("mmap", 0, 1, 3, 0x40022) == REFUSED
    assert judged("prctl", 15) == ALLOWED and judged("prctl", 1) == judged("prctl", 4) == REFUSED


def test_before_version_3_of_landlock_nothing_is_emptied_that_is_not_opened_to_write(judged):
    empty_read, empty_write, empty_neither = 0x200, 0x241, 0x203
    by_version = ALLOWED if judged.version >= 3 else REFUSED
    assert judged("openat", -100 & 0xFFFFFFFF, 1, empty_write) == judged("openat", 3, 1, 0x80000) == ALLOWED
    assert judged("openat", 3, 1, empty_read) == judged("openat", 3, 1, empty_neither) == by_version
    assert judged("truncate", 1, 0) == by_version
    if judged.processor == "x86_64":
        assert judged("open", 1, empty_write) == ALLOWED and judged("open", 1, empty_read) == by_version


# -- what is on no list

REFUSED_TO_ALL = [
    *("fork", "vfork", "execve", "execveat", "unshare", "setns", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("kcmp", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill"),
    *("setsid", "setpgid", "socket", "connect", "bind", "sendmsg", "sendmmsg", "sched_setscheduler", "sched_setattr"),
    *("sched_setaffinity", "sched_setparam", "setpriority", "ioprio_set", "shmget", "shmat", "msgget", "semget"),
    *("mq_open", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "chown", "fchown", "mknod", "memfd_create"),
    *("memfd_secret", "inotify_init1", "fanotify_init", "signalfd4", "timer_create", "userfaultfd", "io_setup"),
    *("io_uring_setup", "keyctl", "add_key", "bpf", "perf_event_open", "openat2", "open_by_handle_at", "mount"),
    *("flock", "mlock", "mlockall", "swapon", "quotactl", "acct", "syslog", "seccomp", "landlock_restrict_self"),
    *("sync", "syncfs", "splice", "vmsplice", "tee", "setuid", "capset", "personality", "move_pages", "mbind"),
]


def test_what_has_been_used_to_break_out_is_on_no_list():
    assert not set(REFUSED_TO_ALL) & set(named("x86_64")) and set(REFUSED_TO_ALL) <= set(header("x86_64"))
