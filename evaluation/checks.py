"""Tests of benchmarks that ship data or a class in place of a test that can be called.

The source text of these functions becomes part of a Problem's test, which is run far from here. So each of them imports
what it needs inside, uses nothing of this file but what text_of() adds, and has a name that no program will use.
"""

import inspect


def text_of(*functions):
    """The source of functions of this file, as the text of a test."""
    return "\n\n".join(inspect.getsource(function) for function in functions)


def check_suite(*cases):
    """Run classes of unittest.TestCase: every test must succeed, none may be left out. Raises AssertionError with the
    last line of the first traceback."""
    import unittest

    class Result(unittest.TestResult):
        """Counts what has succeeded too."""

        n_successes = 0

        def addSuccess(self, test):
            """What unittest calls."""
            self.n_successes += 1

    result, suite = Result(), unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
    n_tests = suite.countTestCases()
    suite.run(result)
    if result.errors or result.failures:
        raise AssertionError([*result.errors, *result.failures][0][1].strip().rpartition("\n")[2])
    assert n_tests and result.n_successes + len(result.expectedFailures) == n_tests, "not all tests have succeeded"


def check_apps_calls(candidate, text):
    """APPS' problems with a fn_name. text: its input_output. JSON has made lists of tuples and texts of keys, and some
    outputs are in a list of their own: an answer is right in any of these forms, as in APPS' testing_util.py."""
    import json

    def with_numbers(value):
        """A dict whose keys are numbers again."""
        try:
            return {int(key): item for key, item in value.items()}
        except (AttributeError, ValueError):
            return value

    data = json.loads(text)
    for arguments, expected in zip(data["inputs"], data["outputs"], strict=True):
        if arguments and isinstance(arguments[0], dict):
            arguments = [with_numbers(arguments[0])]
        first = expected[0] if isinstance(expected, list) and expected else expected
        if isinstance(first, dict):
            first = with_numbers(first)
            expected = [first]
        answer = candidate(*arguments)
        answer = list(answer) if isinstance(answer, tuple) else answer
        of_tuples = isinstance(answer, list) and answer and isinstance(answer[0], tuple)
        is_right = answer == expected or isinstance(expected, list) and expected and answer == first
        is_right = is_right or of_tuples and list(map(list, answer)) == first
        assert is_right, f"{answer!r:.200} is not {expected!r:.200}"


def check_livecodebench_calls(candidate, cases):
    """LiveCodeBench's problems with a func_name. cases: [(a JSON value in each line, the output as JSON), ...]."""
    import json

    for lines, output in cases:
        answer, expected = candidate(*map(json.loads, lines.split("\n"))), json.loads(output)
        answer = list(answer) if isinstance(answer, tuple) else answer
        assert answer == expected, f"{answer!r:.200} is not {expected!r:.200}"


def check_evalplus(candidate, reference, entry_point, groups, atol, is_mbpp):
    """EvalPlus' test: the candidate answers as its reference does. reference: a text that defines entry_point too.
    groups: two lists of arguments, those of the benchmark that it builds on and its own. atol: the absolute tolerance
    that floats have beside a relative one of 1e-7; where it is 0, it becomes 1e-6 with the first answer of floats.
    As in evalplus/eval/__init__.py, but without numpy."""
    import copy

    namespace = {"__name__": "reference"}
    exec(reference, namespace)
    for group in groups:
        tolerance = atol
        for arguments in group:
            expected = namespace[entry_point](*copy.deepcopy(arguments))
            if is_mbpp and entry_point in ("check_str", "text_match_three", "text_starta_endb"):
                expected = expected is not None  # the reference's own is a match of a pattern
            answer = candidate(*copy.deepcopy(arguments))
            is_right = evalplus_oracle(entry_point, arguments, answer, expected, atol, is_mbpp)
            items = expected if isinstance(expected, (list, tuple)) and expected else [expected]
            if tolerance == 0 and all(isinstance(item, float) for item in items):
                tolerance = 1e-6
            if not is_right and tolerance and type(answer) is type(expected) and entry_point != "find_zero":
                is_right = evalplus_close(answer, expected, tolerance)
            assert is_right, f"{answer!r:.200} is not {expected!r:.200}"


def evalplus_close(answer, expected, atol):
    """Whether numbers, or lists of them that are nested alike, are close as in numpy.allclose with rtol=1e-7."""
    if isinstance(answer, (list, tuple)) and isinstance(expected, (list, tuple)):
        pairs = zip(answer, expected)
        return len(answer) == len(expected) and all(evalplus_close(a, b, atol) for a, b in pairs)
    if not isinstance(answer, (int, float, complex)) or not isinstance(expected, (int, float, complex)):
        return False
    return answer == expected or abs(answer - expected) <= atol + 1e-7 * abs(expected) < float("inf")


def evalplus_oracle(entry_point, arguments, answer, expected, atol, is_mbpp):
    """Whether an answer is right: where a problem has several right ones, or its reference is wrong, by the rules of
    evalplus/eval/_special_oracle.py, else whether it equals the reference's."""
    import math

    if not is_mbpp:
        if entry_point != "find_zero":
            return answer == expected
        return abs(sum(factor * math.pow(answer, i) for i, factor in enumerate(arguments[0]))) <= atol
    if entry_point in ("check_str", "text_match_three", "text_starta_endb"):  # whether there is a match
        return (answer if isinstance(answer, bool) else answer is not None) == expected
    in_any_order = "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array"
    if entry_point in (*in_any_order.split(), "find_dissimilar", "Diff"):
        return set(answer) == set(expected)
    if answer == expected or entry_point == "are_equivalent":
        return True
    if entry_point == "sum_div":
        return answer == 0
    if entry_point == "surface_Area":  # of a pyramid whose height is given, not its slant height
        edge, height = arguments
        return abs(answer - round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))) <= atol
    if entry_point == "digit_distance_nums":  # of numbers that are filled up with zeros to the same length
        first, second = map(str, arguments)
        digits = zip(first.zfill(len(second)), second.zfill(len(first)))
        return answer == sum(abs(int(one) - int(other)) for one, other in digits)
    return False
