"""Between the judge's process and the candidate's: messages in a pair of pipes, and how a process has ended."""

import gc
import os

from evaluation import confine

MAX_MESSAGE = 64_000_000  # bytes of one answer of the candidate
SIGXCPU = 24
TIME_IS_UP = (confine.SIGKILL, SIGXCPU, confine.SIGPROF)  # what the limits of CPU time end a process with


def read_exactly(file, size):
    """size bytes of a file descriptor. Raises EOFError."""
    parts = []
    while size:
        part = os.read(file, min(size, 1 << 20))
        if not part:
            raise EOFError("the other side has gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_all(file, data):
    """Write bytes to a file descriptor."""
    data = memoryview(data)
    while data:
        data = data[os.write(file, data) :]


class Unhurried(confine.Unhurried):
    """In a with statement no garbage is looked for either, as what crosses is none."""

    def __enter__(self):
        super().__enter__()
        self.collects = gc.isenabled()
        gc.disable()

    def __exit__(self, *error):
        if self.collects:
            gc.enable()
        super().__exit__(*error)


class Connection:
    """Messages, with their lengths before them, in a pair of pipes. child: the number of the process at the other end,
    for the judge."""

    unhurried = Unhurried

    def __init__(self, read_from, write_to, child=None):
        self.read_from, self.write_to, self.child = read_from, write_to, child

    def send(self, data):
        """Send bytes. Raises EOFError if nobody reads them."""
        try:
            write_all(self.write_to, len(data).to_bytes(8) + data)
        except BrokenPipeError:
            raise EOFError(self.reason()) from None

    def receive(self):
        """The bytes of the next message. Raises EOFError, with the verdict, if there is none or it is too large."""
        try:
            size = int.from_bytes(read_exactly(self.read_from, 8))
            if not self.child or size <= MAX_MESSAGE:
                return read_exactly(self.read_from, size)
        except EOFError:
            raise EOFError(self.reason()) from None
        raise EOFError(f"failed: an answer of {size} bytes; at most {MAX_MESSAGE} are read")

    def reason(self):
        """Why the other end has gone."""
        if not self.child:
            return "the judge has gone"
        _, status = os.waitpid(self.child, 0)
        return why_ended(status) or "failed: the program ended itself"


def why_ended(status):
    """The verdict on a process that a signal has ended, given its status from os.waitpid; else ""."""
    if not os.WIFSIGNALED(status):
        return ""
    number = os.WTERMSIG(status)
    return "timed out" if number in TIME_IS_UP else f"failed: the program was ended by signal {number}"


def close_all_but(*files):
    """Close all file descriptors but the first three and these."""
    lowest = 3
    for file in sorted(files):
        os.closerange(lowest, file)
        lowest = file + 1
    os.closerange(lowest, 1 << 16)


def failure(error):
    """The verdict on a test that raised an exception."""
    try:
        return f"failed: {type(error).__name__}: {error}"
    except BaseException:  # what the exception is asked may fail as well
        return f"failed: {type(error).__name__}"
