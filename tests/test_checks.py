"""EvalPlus' equality, against numpy and by its special cases; the types of MBPP+'s arguments."""

import random

import numpy as np
import pytest
from test_problems import EVALPLUS, plain

from evaluation import checks, formats
from evaluation.formats import problem_of


def test_numbers_are_close_as_numpy_says():
    rng, seen = random.Random(0), set()
    values = [0.0, 1.0, -1.0, 1e-7, 1e9, 1e9 + 50, 3, True, float("inf"), -float("inf"), float("nan"), 1j]
    for _ in range(4000):
        shape = rng.choice([(), (2,), (2, 2)])
        expected = np.array(rng.choices(values, k=int(np.prod(shape)))).reshape(shape)
        with np.errstate(invalid="ignore"):
            answer = expected * (1 + rng.choice([0, 1e-8, 9e-8, 2e-7])) + rng.choice([0, 0, 5e-7, 2e-6])
        if rng.random() < 0.2:
            answer = np.array(rng.choices(values, k=int(np.prod(shape)))).reshape(shape)
        wanted = np.allclose(answer, expected, rtol=1e-07, atol=1e-6)
        assert checks.evalplus_close(answer.tolist(), expected.tolist(), 1e-6) == wanted, (answer, expected)
        seen.add((shape, wanted))
    assert len(seen) == 6
    assert not checks.evalplus_close("a", "a", 1e-6) and not checks.evalplus_close([1.0], [1.0, 2.0], 1e-6)


@pytest.mark.parametrize(
    "entry_point, arguments, expected, right, wrong",
    [
        ("are_equivalent", (1, 2), True, False, None),
        ("sum_div", (8,), 7, 0, 1),
        ("surface_Area", (3, 4), 33, 35, 34),
        ("digit_distance_nums", (1, 23), 4, 4, 5),
        ("digit_distance_nums", (123, 4), 9, 4, 5),
        ("text_match_three", ("x",), True, [1], None),
        ("check_str", ("x",), False, False, True),
        ("Diff", ([1, 2], [2, 3]), [1, 3], [3, 1], [1]),
        ("find_char_long", ("a",), ["abcd"], {"abcd"}, []),
        ("other", (1,), 2, 2, 3),
    ],
)
def test_problems_with_several_right_answers(entry_point, arguments, expected, right, wrong):
    assert checks.evalplus_oracle(entry_point, arguments, right, expected, 0, True)
    if wrong is not None or entry_point != "are_equivalent":
        assert not checks.evalplus_oracle(entry_point, arguments, wrong, expected, 0, True)


def test_a_root_is_one_by_the_value_there():
    polynomial = {**EVALPLUS, "entry_point": "find_zero", "prompt": "def find_zero(xs):\n", "atol": 1e-4}
    polynomial |= {"canonical_solution": "    return -1.0\n", "base_input": [[[1, 2, 1]]], "plus_input": []}
    problem = problem_of(polynomial)
    assert plain(problem, "    return -1.001") and not plain(problem, "    return -1.1")


def test_arguments_have_the_types_they_had_before_they_were_json():
    inputs = {
        1: [[1], 2],
        2: [[1], [2]],
        63: [[[1], [2]]],
        106: [[1], [2]],
        115: [[[1, 1], [], 3]],
        124: ["1", "2+1j"],
        259: [[[1]], [[2]]],
        278: [[1, [2]]],
        580: [[1, [2]]],
        722: [{"a": [1]}, 2],
    }
    made = {number: formats.mbpp_inputs(number, [arguments])[0] for number, arguments in inputs.items()}
    assert made == {
        1: [[1], 2],
        2: [(1,), (2,)],
        63: [[(1,), (2,)]],
        106: [[1], (2,)],
        115: [[{1}, {}, {}]],
        124: [1.0, 2 + 1j],
        259: [((1,),), ((2,),)],
        278: [(1, (2,))],
        580: [(1, (2,))],
        722: [{"a": (1,)}, 2],
    }
