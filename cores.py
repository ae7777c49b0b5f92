"""How many processes or threads this program may use."""

import os


def n_cores():
    """The cores that this process may run on: in a container or under taskset fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
