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


def mutants(program):
    """Yield programs that differ from this one in one operator, comparison or constant (off by one), or that lack one
    statement of a function. Raises SyntaxError where the program is none."""
    n_nodes = len(list(ast.walk(ast.parse(program))))
    for i in range(n_nodes):
        tree = ast.parse(program)
        node = list(ast.walk(tree))[i]
        if isinstance(node, ast.FunctionDef):
            yield from shortened(program, i, len(node.body))
        elif change(node):
            yield ast.unparse(tree)


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


def shortened(program, i, n_statements):
    """Yield the program without one statement, in turn, of the function that is node i of its tree; the last one stays,
    and so does a docstring, which changes nothing."""
    for k in range(n_statements - 1):
        tree = ast.parse(program)
        body = list(ast.walk(tree))[i].body
        if not (k == 0 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)):
            del body[k]
            yield ast.unparse(tree)
