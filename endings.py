"""How a stage ends: what a person or the machine got wrong is told in one line, with an exit code to rely on.

    0    done
    2    a mistake that a person can mend, which the line "error: ..." names
    130  Ctrl-C, 143 SIGTERM: stopped, and the line "stopped: ..." says how to go on
    141  what read the output has ended, as `| head` does

torchrun starts several processes that meet the same mistake: the first one on each machine tells it, another one only
what it alone has met. torchrun would start them again, or add a report of fifty lines, and exits with code 1 whatever
they exit with. So it is ended by a signal (138 in a shell), and the processes end when it does.
"""

import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import NoReturn

PATIENCE = 10  # seconds that another process than the first waits for that one to tell the same mistake


class UserError(Exception):
    """Something the person at the terminal can mend; shown as one line, exit code 2."""


class Stopped(Exception):
    """A stage ended early because of a signal, and saved what it had; exit code 128 + the signal's number."""

    def __init__(self, signal_number, message="the same command with --resume goes on from here"):
        super().__init__(message)
        self.signal_number = signal_number


@contextmanager
def told_in_one_line():
    """Within it, errors that a person can mend end the process as the text above says; any others are raised."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal of few characters shows the others as \u4e2d
            stream.reconfigure(errors="backslashreplace")
    if by_torchrun():
        end_with_torchrun()
    try:
        yield
        sys.stdout.flush()
    except Stopped as stopped:
        end(f"stopped: {stopped}", 128 + stopped.signal_number)
    except KeyboardInterrupt:
        end("stopped", 128 + signal.SIGINT)
    except BrokenPipeError:
        end("", 128 + signal.SIGPIPE)
    except (UserError, OSError) as error:
        end(f"error: {error}", 2)
    except (MemoryError, RuntimeError) as error:  # PyTorch tells a lack of memory as a RuntimeError
        if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
            end(f"error: out of memory: {str(error)[:200]}", 2)
        if (path := half_compiled(error)) is None:
            raise
        with suppress(FileNotFoundError):  # another process has met it, too
            os.remove(path)
        end(f"error: {path} was left half-compiled by a run that was killed: deleted, start again", 2)


def half_compiled(error):
    """The path of the file that made PyTorch's compiler raise this error, if a run that was killed while it compiled
    left it unfinished; else None. PyTorch does not make such a file again: every later run finds it, and fails."""
    if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return None
    if library := re.search(r"ImportError: (/.+\.so): (?!undefined symbol)", str(error)):
        return library[1]
    header = re.search(r"-include (\S+)", str(error))  # of the compiler's command line
    is_unreadable = re.search(r"reading precompiled header|cannot read \S+\.gch", str(error))
    return f"{header[1]}.gch" if header and is_unreadable else None


def end(message, code) -> NoReturn:
    """Tell a message on one line of standard error, and exit."""
    if by_torchrun() and os.environ["LOCAL_RANK"] != "0":
        time.sleep(PATIENCE)
    try:
        if message:
            line = " ".join(re.sub(r"[\0-\x1f\x7f-\x9f]", " ", message).split())
            print(line[:1000], file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # nobody reads it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells so when it ends
    if by_torchrun():
        time.sleep(1)  # the others may be connecting, and would complain where they lose this process or torchrun
        os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(1)
    sys.exit(code)


# -- torchrun


def by_torchrun():
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_torchrun():
    """Have this process end when torchrun does, even if that is killed: it would wait for the others for ever."""
    launcher = os.getppid()

    def wait():
        """Until the process has another parent."""
        while os.getppid() == launcher:
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def rank():
    """The number of this process among those that torchrun started, or 0.

    Raises UserError for an environment that names other processes and does not say where they are.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    shown = " ".join(f"{name}={value!r}" for name, value in given.items())
    if not all(re.fullmatch(r"[0-9]{1,6}", value) for value in given.values()):
        raise UserError(f"the environment says {shown[:200]}, which are no whole numbers: unset them")
    own, n_processes = int(given.get("RANK", 0)), int(given.get("WORLD_SIZE", 1))
    found = all(name in os.environ for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    if own >= n_processes or (n_processes > 1 and not found):
        raise UserError(f"the environment says {shown}, but nobody started such processes: start with torchrun")
    return own
