"""Problems whose program reads and prints: it is run anew for each input, and what it prints is compared.

The candidate's side, serve(), sees the inputs; the outputs that are expected are in the judge's process alone.
"""

import atexit
import contextlib
import os
import re
import sys
import threading
from json import dumps, loads  # bound before a program can replace them
from types import ModuleType

from evaluation import confine
from evaluation.pipes import close_all_but, failure, why_ended


def serve(program, settings, connection):
    """Run the program once for each input that the judge sends; answer with [what went wrong, what was printed]. This
    process sees the inputs and no output that is expected."""
    settings = settings | {"judge": os.getpid()}  # with which a candidate dies
    while True:
        with open("stdin", "wb+") as stdin, open("stdout", "wb+") as stdout, open("stderr", "wb+") as stderr:
            stdin.write(connection.receive())
            stdin.seek(0)
            for file in (stdin, stdout, stderr):
                os.unlink(file.name)  # what a script writes elsewhere is not its output
            child = os.fork()
            if child == 0:
                try:
                    for number, file in enumerate((stdin, stdout, stderr)):
                        os.dup2(file.fileno(), number)
                    close_all_but()
                    confine.candidate(settings)
                    run_script(program)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            stdout.seek(0)
            stderr.seek(0)
            failed = why_ended(status)
            if status and not failed:
                failed = "failed: " + stderr.read()[-300:].decode("utf-8", "replace")
            connection.send(dumps([failed, stdout.read().decode("utf-8", "replace")]).encode())


def run_script(program):
    """Run a program as `python FILE` does, to the end of its threads and of what is to run at its exit; ends this
    process."""
    sys.stdin, sys.stdout = open(0, encoding="utf-8", errors="replace"), open(1, "w", encoding="utf-8")
    sys.stderr = open(2, "w", encoding="utf-8")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    module = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = ["program.py"]
    atexit._clear()  # of this process's own
    status = 0
    try:
        exec(compile(program, "<program>", "exec"), module.__dict__)
    except SystemExit:
        pass  # what was printed before decides, as in LiveCodeBench
    except BaseException as error:
        status = 1
        print(failure(error).removeprefix("failed: "), file=sys.__stderr__)
    for end in (threading._shutdown, atexit._run_exitfuncs, lambda: sys.stdout.flush()):
        with contextlib.suppress(BaseException):
            end()
    sys.__stdout__.flush()
    sys.__stderr__.flush()
    os._exit(status)


def judge(test, connection):
    """Compare what the program prints for each of test["inputs"] with test["outputs"]."""
    for number, (text, expected) in enumerate(zip(test["inputs"], test["outputs"], strict=True), 1):
        connection.send(text.encode("utf-8", "surrogatepass"))
        answer = connection.receive()
        with connection.unhurried():  # the test's time is not for comparing what a program prints
            failed, printed = loads(answer)
            is_same = not failed and same_output(printed, expected)
        if failed:
            return failed if failed == "timed out" else f"failed: input {number}: {failed.removeprefix('failed: ')}"
        if not is_same:
            return f"failed: input {number}: another output is expected"
    return "passed"


def same_output(printed, expected):
    """Whether a text is what is expected, but for white space at the end of lines and of the text; or, as the judges of
    contests compare, whether it has the same words, where numbers may differ by 1e-6, absolute or relative."""
    texts = [[line.rstrip() for line in text.rstrip().split("\n")] for text in (printed, expected)]
    if texts[0] == texts[1]:
        return True
    words, expected_words = printed.split(), expected.split()
    return len(words) == len(expected_words) and all(map(same_word, words, expected_words))


def same_word(word, expected):
    """Whether a word of the output is the expected one, or nearly the same number. Whole numbers must be equal."""
    if word == expected:
        return True
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
    if not re.fullmatch(number, word) or not re.fullmatch(number, expected):
        return False
    if len(word) > 300 or len(expected) > 300:
        return False
    if expected.lstrip("+-").isdecimal():
        if word.lstrip("+-").isdecimal():
            return int(word) == int(expected)
        return abs(int(expected)) <= 2**53 and float(word) == int(expected)  # above that, float() rounds
    difference = abs(float(word) - float(expected))
    return difference <= 1e-6 * max(1.0, abs(float(expected)))
