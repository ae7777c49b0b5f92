"""What an attempt earns: nothing by cheating, a share of the assertions, or what a reward model says of it."""

import json
from types import SimpleNamespace

from conftest import alone, write_records
from test_evaluation import problem_file

from evaluation import attempts
from evaluation.attempts import Attempt, Tested, single_tests


def test_programs_that_cheat_earn_nothing(tmp_path, tokenizer):
    path, problems = problem_file(tmp_path, count=1)
    always = "class Yes:\n        def __eq__(self, other): return True\n    return Yes()\n"
    answers = {
        problems[0]["canonical_solution"]: 1,
        "    import os; os._exit(0)\n": 0,
        "    raise SystemExit(0)\n": 0,
        f"    {always}": 0,
        "    return 0\n\ndef check(candidate):\n    pass\n": 0,
        "    import builtins, sys; sys.modules['__main__'].check = print\n": 0,
        "": 0,
    }
    tried = [Attempt(0, [], [], [], text, False) for text in answers]
    Tested(path, tokenizer, chat=False).judge(tried)
    assert [one.reward for one in tried] == list(answers.values())


def test_the_share_of_assertions_that_hold(tmp_path, tokenizer):
    problem = {"task_id": "p", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return abs(x)\n"}
    problem["test"] = "def check(candidate):\n" + "".join(
        f"    assert candidate({x}) == {abs(x)}\n" for x in (1, 2, -3, 4)
    )
    (tmp_path / "p.jsonl").write_text(json.dumps(problem))
    task = Tested(tmp_path / "p.jsonl", tokenizer, chat=False, by_share=True)
    assert len(single_tests(task.problems[0].test)) == 4
    texts = ["    return abs(x)\n", "    return x\n", "    return 3\n", "    return (\n"]
    tried = [Attempt(0, [], [], [], text, False) for text in texts]
    task.judge(tried)
    assert [one.reward for one in tried] == [1, 0.75, 0.25, 0]


def test_a_reward_model_rates_the_next_answer_of_chats_and_pairs(tmp_path, tokenizer, monkeypatch):
    asked = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    chat = {"messages": [*asked, {"role": "assistant", "content": "the answer that is taken away"}]}
    pair = {"prompt": "Say a", "chosen": "a", "rejected": "b"}
    path = write_records(tmp_path / "asked.jsonl", [chat, pair, {"nothing": "of use"}])
    seen = []

    def longest_best(model, tokenizer, conversations, batch_size):
        seen.extend(conversations)
        return [float(len(messages[-1]["content"])) for messages in conversations]

    judge = SimpleNamespace(config=SimpleNamespace(block_size=512))
    monkeypatch.setattr(attempts, "load_model", lambda *_, **__: (judge, tokenizer, {}))
    monkeypatch.setattr(attempts, "rewards", longest_best)
    task = attempts.Rated(path, tokenizer, "out/reward", alone())
    assert [tokenizer.decode(prompt) for prompt in task.prompts] == [
        "<|endoftext|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n",
        "<|endoftext|><|im_start|>user\nSay a<|im_end|>\n<|im_start|>assistant\n",
    ]
    tried = [Attempt(0, [], [], [], "long answer", False), Attempt(1, [], [], [], "", False)]
    task.judge(tried)
    assert [one.reward for one in tried] == [11, 0]
    assert seen[0] == [*asked, {"role": "assistant", "content": "long answer"}] and seen[1][0]["content"] == "Say a"


def test_it_learns_from_the_training_split_of_mbpp_alone(tmp_path, tokenizer, capsys):
    """eval_humaneval.py scores 11 to 510, --test 511 to 600."""
    ids = [5, 20, 510, 511, 600, 601, 974]
    record = {"text": "Add.", "code": "def f():\n    return 1", "test_list": ["assert f() == 1"], "test_setup_code": ""}
    path = write_records(tmp_path / "mbpp.jsonl", [{"task_id": n, **record} for n in ids])
    assert [one.task_id for one in Tested(path, tokenizer, chat=True).problems] == ["601", "974"]
    assert "5 of 7 problems" in capsys.readouterr().out


def test_what_is_cut_off_earns_nothing(tmp_path, tokenizer):
    path, problems = problem_file(tmp_path, count=1)
    tried = [Attempt(0, [], [], [], problems[0]["canonical_solution"], cut_off) for cut_off in (False, True)]
    Tested(path, tokenizer, chat=False).judge(tried)
    assert [one.reward for one in tried] == [1, 0]
