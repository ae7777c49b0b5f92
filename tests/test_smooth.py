"""What pass@1 does not show: how likely right solutions are, and how far wrong programs get."""

import ast
import math

import pytest
import torch

from evaluation import sandbox
from evaluation.formats import problem_of
from evaluation.likelihood import above_mutants, continuations, likelihoods, nats
from evaluation.mutants import mutants
from evaluation.replies import code_in
from evaluation.steps import HOW_FAR, WEAKER, how_far, weakened, weaker_tests
from model import ModelConfig, Transformer
from tokenizer import Tokenizer, fenced

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\ndef double(x):\n    """Twice x."""\n',
    "canonical_solution": "    y = x + x\n    return y\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n    assert candidate(0) == 0\n",
}
MBPP = {
    "task_id": 12,
    "text": "Write a function to triple a number.",
    "code": "def triple(x):\n    return 3 * x",
    "test_list": ["assert triple(1) == 3", "assert triple(2) == 6"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
REQUEST = {
    "task_id": "request/0",
    "request": "double a number for me",
    "canonical_solution": "def double(x):\n    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}


LEETCODE = {
    "task_id": "double",
    "prompt": "import math\n\ndef helper(x):\n    if x is None or x == 0:\n        return 1 + 2\n    return 2 * x + 1\n",
    "completion": "class Solution:\n    def double(self, x):\n        return 2 * x",
    "entry_point": "Solution().double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "query": "Double it.",
    "input_output": [{"input": "x = 2", "output": "4"}],
}


def by_bytes():
    """A tokenizer whose tokens are the bytes."""
    return Tokenizer.from_bpe(r"(?s:.)", {bytes([i]): i for i in range(256)})


def problems():
    return {problem.task_id: problem for problem in map(problem_of, (HUMANEVAL, MBPP))}


def test_a_continuation_completes_what_the_model_is_asked():
    for problem in problems().values():
        published, anew, *wrong = continuations(problem, chat=False)
        asked = problem.asked(False)
        assert problem.program(f"{asked}{published}" if problem.start is None else published)
        for text in (published, anew):
            whole = asked + text if problem.start is None else text
            assert sandbox.run(whole + "\n", problem.test).passed, whole
        assert wrong and anew not in wrong
        for text in wrong:
            whole = asked + text if problem.start is None else text
            assert not sandbox.run(whole + "\n", problem.test).passed, whole
        assert continuations(problem, chat=True)[0] == fenced(problem.program(problem.solution), "python")


def test_a_request_is_begun_for_a_base_model_and_answered_whole_in_a_chat():
    """A base model is shown the def, so that it does not go on with more sentences; the name that a test calls is its
    harness's affair."""
    problem = problem_of(REQUEST)
    assert problem.asked(False).endswith("\ndef") and problem.asked(True) == REQUEST["request"]
    whole = REQUEST["canonical_solution"]
    for chat in (False, True):
        published, anew, wrong = continuations(problem, chat)
        assert "requested" not in published + anew + wrong
        assert published.strip() == (fenced(whole, "python") if chat else whole.removeprefix("def").strip())
    published, anew, wrong = continuations(problem, chat=False)
    default = "default = 2\n\n\n" + whole.replace("2 *", "default *")
    for text in (published, anew, whole, default, problem_of(REQUEST | {"canonical_solution": default}).solution):
        assert sandbox.run(problem.program(text), problem.test).passed, text
    for text in (wrong, "I only write functions."):
        assert not sandbox.run(problem.program(text), problem.test).passed, text


def test_what_a_harness_puts_in_front_is_no_part_of_the_continuation():
    """LeetCodeDataset's prompts end in imports and helpers, in which no mutant may differ."""
    problem = problem_of(LEETCODE)
    for chat in (False, True):
        published, anew, wrong = continuations(problem, chat)
        if chat:
            assert published == fenced(LEETCODE["completion"], "python")
            published, anew, wrong = map(code_in, (published, anew, wrong))
        assert published.strip() == LEETCODE["completion"]
        assert ast.dump(ast.parse(anew)) == ast.dump(ast.parse(published)) != ast.dump(ast.parse(wrong))
        assert "helper" not in wrong


def test_a_solution_that_no_def_begins_and_an_empty_one_have_no_likelihood():
    """The prompt of a request ends in def: behind it, an import would be no program."""
    empty = HUMANEVAL | {"task_id": "HumanEval/1", "canonical_solution": "\n"}
    imports = REQUEST | {"canonical_solution": f"import math\n\n{REQUEST['canonical_solution']}"}
    both = {problem.task_id: problem for problem in map(problem_of, (empty, imports))}
    model = Transformer(ModelConfig(vocab_size=320, block_size=256, n_layer=1, n_embd=32))
    assert likelihoods(model, by_bytes(), both, False, 2) == {}
    assert likelihoods(model, by_bytes(), both, True, 2)["n"] == 1


@torch.no_grad()
def test_bits_per_byte_are_those_of_one_solution_after_another():
    tokenizer, found = by_bytes(), problems()
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=320, block_size=256, n_layer=2, n_embd=32)).eval()
    one_by_one, n_bits, n_bytes = [], 0.0, 0
    for problem in found.values():
        prompt = [tokenizer.eot, *problem.asked(False).encode()]
        text = continuations(problem, False)[0].encode()
        ids = torch.tensor([[*prompt, *text]])
        logprobs = torch.log_softmax(model(ids)[0, :-1].double(), -1)
        bits = -sum(logprobs[i - 1, ids[0, i]].item() for i in range(len(prompt), ids.shape[1])) / math.log(2)
        one_by_one.append(bits / len(text))
        n_bits, n_bytes = n_bits + bits, n_bytes + len(text)
    measured = likelihoods(model, tokenizer, found, False, batch_size=3)
    assert measured["bpb"] == pytest.approx(sum(one_by_one) / 2, rel=1e-5) and measured["n"] == 2
    assert measured["bpb_micro"] == pytest.approx(n_bits / n_bytes, rel=1e-5)
    assert 0 <= measured["above_mutants"] <= 1 and measured["n_mutants"] == 2
    short = Transformer(ModelConfig(vocab_size=320, block_size=16, n_layer=1, n_embd=32))
    assert likelihoods(short, tokenizer, found, False, 3) == {}


def test_a_model_that_knows_the_solutions_finds_them_likelier_than_their_mutants():
    tokenizer, found = by_bytes(), problems()
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=320, block_size=256, n_layer=2, n_embd=64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = likelihoods(model, tokenizer, found, False, 8)
    for _ in range(60):
        loss = 0
        for problem in found.values():
            ids = [tokenizer.eot, *(problem.asked(False) + continuations(problem, False)[1]).encode()]
            loss = loss + model(torch.tensor([ids[:-1]]), torch.tensor([ids[1:]]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = likelihoods(model, tokenizer, found, False, 8)
    assert after["bpb"] < 0.5 * before["bpb"] and after["above_mutants"] == 1
    assert nats(model, 0, [([1, 2, 3], 1)], 1)[0] > 0


def test_the_share_of_mutants_is_a_mean_over_problems():
    bpb = {("a", 0): 9.0, ("a", 1): 1.0, ("a", 2): 2.0, ("a", 3): 0.5, ("b", 1): 1.0, ("b", 2): 3.0, ("c", 1): 1.0}
    assert above_mutants(bpb) == {"above_mutants": 0.75, "stderr": 0.25, "n_mutants": 3}
    assert above_mutants({("a", 0): 1.0}) == {}


PROGRAMS = {
    "    return (": 0,
    "    return y": 2,
    "    raise ValueError": 2,
    "    return str(x)": 3,
    "    return x + 1": 4,
    "    return x * x": 5,
    "    return 2 * x": 6,
}


def test_a_program_gets_as_far_as_it_gets(tmp_path, monkeypatch):
    problem = problems()["HumanEval/0"]
    results = []
    for completion in PROGRAMS:
        passed = sandbox.run(problem.program(completion), problem.test).passed
        results.append({"task_id": "HumanEval/0", "completion": completion, "passed": passed})
    asked = {"HumanEval/0": problem}, {"HumanEval/0": "sealed"}, results, tmp_path, sandbox.Limits(), 2
    shares = how_far(*asked)
    monkeypatch.setattr(sandbox, "run_all", lambda jobs, *_: iter([] if not jobs else None))
    assert how_far(*asked) == shares, "no program is run twice"
    assert shares.pop("n") == len(PROGRAMS)
    for number, step in enumerate(HOW_FAR, 1):
        assert shares[step] == sum(reached >= number for reached in PROGRAMS.values()) / len(PROGRAMS), step
    assert how_far({}, {}, [], tmp_path, sandbox.Limits(), 2) == {}


def test_a_program_without_its_function_parses_and_no_more(tmp_path):
    problem = problems()["12"]
    results = [{"task_id": "12", "completion": "def other(x):\n    return x\n", "passed": False}]
    shares = how_far({"12": problem}, {"12": "sealed"}, results, tmp_path, sandbox.Limits(), 1)
    assert shares["parses"] == 1 and shares["defines its function"] == 0


def test_a_test_passes_where_one_of_its_assertions_holds():
    code = "for n in (1, 2):\n    assert n == 2\nassert n > 5"
    exec(weakened(code, "assert {condition}"), {})
    with pytest.raises(AssertionError):
        exec(weakened(code.replace("n == 2", "n == 3"), "assert {condition}"), {})
    exec(weakened("assert len([1]) == 1\nwhile True: pass", "assert {condition}"), {})
    with pytest.raises(AssertionError):
        exec(weakened("assert True, 'always'", "assert {condition}"), {})
    deep = weaker_tests({"code": "assert " + "-" * 3000 + "1 == f(1)", "entry_points": ["f"]})
    assert deep.keys() in (set(), WEAKER.keys()), "too deep or not, which the machine decides, it raises nothing"
    assert weaker_tests({"code": "def check_suite(x):\n    assert x", "entry_points": []}) == {}


def test_a_mutant_differs_in_one_place():
    found = list(mutants('def f(x):\n    """Says 1."""\n    y = 0\n    return x + 1 if x > 0 and y else "a"\n'))
    assert len(set(found)) == len(found) and all('"""Says 1."""' in mutant for mutant in found)
    assert [mutant.splitlines()[-1].strip() for mutant in found] == [
        "return x + 1 if x > 0 and y else 'a'",  # without y = 0
        "return x + 1 if x > 0 and y else 'a'",  # y = 1
        "return x + 1 if x > 0 or y else 'a'",
        "return x - 1 if x > 0 and y else 'a'",
        "return x + 1 if x > 0 and y else 'q'",
        "return x + 1 if x <= 0 and y else 'a'",
        "return x + 2 if x > 0 and y else 'a'",
        "return x + 1 if x > 1 and y else 'a'",
    ]
