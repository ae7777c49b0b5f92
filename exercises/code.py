"""Bodies of functions put together: names replaced, a condition or a change written into them, one behind the other."""

import ast
import functools
import itertools
import re
import textwrap

TEXT = r"\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?"  # in code
# A name that is no attribute; texts and comments are found too, so that the names in them are passed over.
NAME = re.compile(rf"{TEXT}|#.*|(?<![\w.])[A-Za-z_]\w*")
CONSTANT = re.compile(rf"{TEXT}|(?<![\w.])\d+(?:\.\d+)?")


def renamed(code, names):
    """Code with other names; texts, comments and what follows a dot stay."""
    return NAME.sub(lambda match: names.get(match[0], match[0]), code)


@functools.lru_cache(16_384)  # more than the tables have bodies
def local_names(bodies):
    """The names that a tuple of bodies binds, but those of imports and of keyword arguments."""
    bound, kept = {}, set()
    for body in bodies:
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound[node.id] = True
            elif isinstance(node, ast.arg):
                bound[node.arg] = True
            elif isinstance(node, ast.FunctionDef):
                bound[node.name] = True
            elif isinstance(node, ast.keyword):
                kept.add(node.arg)
    return [name for name in bound if name not in kept]


def shape(body, first, *others):
    """A body without its names and constants: `return max(xs) > k` and `return max(ns) > 0` have one shape. first and
    others: the parameters; a later one may become a constant."""
    names = {name: f"name_{n}" for n, name in enumerate(dict.fromkeys([first, *local_names((body,))]))}
    plain = ast.unparse(ast.parse(body))  # without brackets and blank lines that change nothing
    return CONSTANT.sub("0", renamed(plain, names | dict.fromkeys(others, "0")))


def compares_constants(body):
    """Whether a constant is compared with another, `if a == 3 == 4`, which no program does that people write."""
    comparisons = [node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Compare)]
    sides = [(node.left, *node.comparators) for node in comparisons]
    pairs = itertools.chain.from_iterable(map(itertools.pairwise, sides))
    return any(isinstance(one, ast.Constant) and isinstance(other, ast.Constant) for one, other in pairs)


def indented(text):
    """A body inside of a function."""
    return textwrap.indent(text, "    ")


def expression(body):
    """What a body of a single return returns, as code; None for a longer one."""
    return body.removeprefix("return ") if body.startswith("return ") and "\n" not in body else None


def grouped(code):
    """An expression in brackets, if it needs them inside of a larger one."""
    node = ast.parse(code, mode="eval").body
    simple = ast.Call | ast.Name | ast.Subscript | ast.List | ast.ListComp | ast.Constant | ast.Attribute | ast.Dict
    return code if isinstance(node, simple) else f"({code})"


OPPOSITE = {"==": "!=", "!=": "==", "in": "not in", "not in": "in", "is": "is not", "is not": "is"}


def opposite(code):
    """An expression that is true where this one is false: `n % 2 != 0` for `n % 2 == 0`, `not f(x)` for `f(x)`."""
    node = ast.parse(code, mode="eval").body
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and code.isascii():
        start, end = node.left.end_col_offset, node.comparators[0].col_offset
        between, n_found = re.subn(r"==|!=|not in|in|is not|is", lambda match: OPPOSITE[match[0]], code[start:end])
        if n_found:
            return code[:start] + between + code[end:]
    return f"not {grouped(code)}"


def inlined(body, name, asked):
    """A body in which name(x) is the code of a condition or a change, or calls a helper if that has several lines."""
    code = expression(asked.bodies[0])
    if code is None:
        return f"def {name}({asked.first}):\n{indented(asked.bodies[0])}\n\n{body}"
    call = re.compile(rf"\b{name}\((\w+)\)")
    alone = call.sub(lambda match: renamed(code, {asked.first: match[1]}), body)
    inside = call.sub(lambda match: f"({renamed(code, {asked.first: match[1]})})", body)
    # Brackets only where they change the meaning: the two texts are then different programs.
    return alone if ast.dump(ast.parse(alone)) == ast.dump(ast.parse(inside)) else inside


def joined_bodies(rng, outer, inner, number):
    """The ways to write outer on the result of inner: each way of the one with one of the other."""
    bodies = []
    for n, body in enumerate(outer.bodies):
        source = inner.bodies[n] if n < len(inner.bodies) else rng.choice(inner.bodies)
        bodies.append(joined(body, outer.first, source, inner, number))
    return bodies


def joined(body, slot, source, inner, number):
    """A body whose parameter `slot` is what source returns: inside the expression, in a line before, or by a helper."""
    outer_code, inner_code = expression(body), expression(source)
    if outer_code and inner_code and len(inner_code) < 50 and len(re.findall(rf"\b{slot}\b", outer_code)) == 1:
        # Inside of a loop it would be computed again and again, but not as what the loop runs over.
        if f"in {slot}" in outer_code or not re.search(r"\b(for|lambda)\b", outer_code):
            return f"return {renamed(outer_code, {slot: grouped(inner_code)})}"
    imports = [line for line in body.split("\n") if re.match(r"(import|from) ", line)]
    rest = "\n".join(line for line in body.split("\n") if line not in imports)
    *lines, last = source.split("\n")
    if last.startswith("return ") and source.count("return ") == 1:
        return "\n".join([*imports, *lines, f"{slot} = {last.removeprefix('return ')}", rest])
    helper = f"{inner.parts[0]}_{number + 7}"
    lines = [f"def {helper}({inner.first}):", indented(source), "", f"{slot} = {helper}({inner.first})"]
    return "\n".join([*imports, *lines, rest])
