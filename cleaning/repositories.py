"""The files of a repository, each after the files that it imports (DeepSeek-Coder, arXiv:2401.14196, section 2.2).

    app/area.py    from . import units         app/units.py
    app/main.py    import app.area       ->    app/area.py
    app/units.py                               app/main.py

A model that reads them in this order has seen a function before it sees it called. Imports are found in Python alone;
files of other languages are in the order of their names.
"""

import ast
import hashlib
import heapq
import warnings
from itertools import product


def arranged(files, order):
    """The files [(path, text), ...] of a repository in the order that settings.order asks for: "repository" is that of
    imports, "repository_random" that of a hash; with any other they stay as they are."""
    if order == "repository":
        place = {path: n for n, path in enumerate(dependency_order(imports_of(dict(files))))}
        return sorted(files, key=lambda file: place[file[0]])
    if order == "repository_random":
        return sorted(files, key=lambda file: hashlib.sha256("\n".join(file).encode("utf-8", "surrogatepass")).digest())
    return files


# -- what a file imports


def imports_of(text_of):
    """{path: the paths of other files that it imports} for the files {path: text} of a repository."""
    packages = {folder_of(path) for path in text_of if path.endswith("/__init__.py")}
    # A name is sought from the top of the repository, and from every folder in which a package begins: src/app/area.py
    # is app.area for others.
    roots = sorted({""} | {import_root(path, packages) for path in text_of if folder_of(path) in packages})
    return {path: imported(path, text_of, [import_root(path, packages), *roots]) for path in text_of}


def imported(path, text_of, roots):
    """The paths of the other files that one file imports. roots: the folders from which absolute names are sought."""
    if not path.endswith(".py"):
        return set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in a text
            tree = ast.parse(text_of[path])
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return set()  # Python 2, for instance
    found = set()
    for level, names in import_statements(tree):
        parents = path.split("/")[:-level] if level else []  # a dot is the file's own folder, two are the one above
        starts = ["/".join(parents)] if level else roots
        places = [module_path(name, start, text_of) for name, start in product(names, starts)]
        found.update(list(filter(None, places))[:1])
    return found - {path}


def import_statements(tree):
    """Yield (number of leading dots, names of modules) of what a syntax tree imports. The first of the names that is a
    module is meant: from a import b may mean a.b, or something that a defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, [alias.name]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                yield node.level, [f"{module}.{alias.name}".lstrip("."), module]


def module_path(name, start, text_of):
    """The path of the module of a dotted name that is sought from the folder start, or None."""
    base = "/".join(filter(None, [start, *name.split(".")]))
    return next((path for path in (f"{base}/__init__.py", f"{base}.py") if path in text_of), None)


def folder_of(path):
    """src/app of src/app/area.py."""
    return path.rpartition("/")[0]


def import_root(path, packages):
    """The folder in which the outermost package that holds a file lies: src of src/app/area.py. packages: the folders
    with an __init__.py."""
    folder = folder_of(path)
    while folder in packages:
        folder = folder_of(folder)
    return folder


# -- the order


def dependency_order(imports):
    """The paths of a graph {path: the paths that it imports}: in each connected part of it, those with the fewest
    imports that have not had their turn come first, of several the first by name.

    So each stands behind all that it imports, unless imports form a circle: there one has to begin."""
    users = {path: set() for path in imports}
    for path, used in imports.items():
        for other in used:
            users[other].add(path)
    waits_for = {path: len(used) for path, used in imports.items()}
    order = {}  # a dict, because its keys are in order and quickly found
    for part in connected_parts(imports, users):
        queue = [(waits_for[path], path) for path in part]
        heapq.heapify(queue)
        while queue:
            _, path = heapq.heappop(queue)
            if path in order:
                continue  # it has had its turn when it waited for fewer
            order[path] = None
            for user in users[path]:
                waits_for[user] -= 1
                heapq.heappush(queue, (waits_for[user], user))
    return list(order)


def connected_parts(imports, users):
    """Yield the sets of paths that hang together, in the order of their first paths."""
    done = set()
    for first in sorted(imports):
        if first not in done:
            part, new = set(), {first}
            while new:
                part |= new
                new = set().union(*(imports[path] | users[path] for path in new)) - part
            done |= part
            yield part
