"""Programs that are wrong in one place. Tests that mean something fail them, and a model that has understood a function
finds them less likely than the right one."""

import ast

# What a mutant has in place of an operator.
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
OTHER |= {ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr}
OTHER |= {ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.MatMult: ast.Add}
OTHER |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And}
OTHER |= {ast.Gt: ast.LtE, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.LtE: ast.Gt}
OTHER |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}


def mutants(program, draw=None):
    """Yield programs that differ from this one in one operator, comparison or constant (off by one), or that lack one
    statement of a function, in the order of its syntax tree, or in the one that draw, a random.Random, shuffles them
    into. Each is made when it is asked for: a long program has thousands. Raises SyntaxError where the program is none.
    """
    places = []  # (number of a node, number of the statement that is left out of it, or None)
    for i, node in enumerate(list(ast.walk(ast.parse(program)))):
        if isinstance(node, ast.FunctionDef):
            places += [(i, k) for k, statement in enumerate(node.body[:-1]) if k or not is_docstring(statement)]
        elif change(node):
            places.append((i, None))
    if draw:
        draw.shuffle(places)
    for i, k in places:
        tree = ast.parse(program)
        node = list(ast.walk(tree))[i]
        if k is None:
            change(node)
        else:
            del node.body[k]
        yield ast.unparse(tree)


def is_docstring(statement):
    """Whether a function's first statement is its docstring, without which it does the same."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def change(node):
    """Make a node of a syntax tree a wrong one. Whether that was possible."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        node.op = OTHER[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = OTHER[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) == 1:
        node.value = "q"
    else:
        return False
    return True
