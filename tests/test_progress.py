"""A sample and pass@1 during training: as eval_humaneval.py would score, and without a trace in training."""

import json

import pytest
import torch
from test_evaluation import problem_file

import eval_humaneval
from configurator import UserError
from evaluation import progress
from evaluation.generate import Completion
from evaluation.progress import Progress
from model import ModelConfig, Transformer
from training import checkpoint
from training.machine import Machine

CPU = Machine(0, 1, torch.device("cpu"), torch.float32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(ModelConfig(vocab_size=320, block_size=128, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))


def answering(monkeypatch, answers):
    """Let generate() give these texts, by a part of the prompt."""

    def written(model, tokenizer, prompts, *_, **__):
        """A Completion for each prompt."""
        texts = [tokenizer.decode(prompt) for prompt in prompts]
        found = [next((answer for part, answer in answers.items() if part in text), "") for text in texts]
        return [Completion([], text, "stop") for text in found]

    monkeypatch.setattr(progress, "generate", written)


@pytest.mark.parametrize("chat", [False, True])
def test_the_share_of_problems_solved(monkeypatch, tmp_path, tokenizer, model, chat, capsys):
    path, _ = problem_file(tmp_path, count=4)
    answer = "Sure:\n```python\ndef add2(x):\n    return x + 2\n```\n" if chat else "    return x + 2\n"
    answering(monkeypatch, {"add2": answer, "add3": answer})
    found = Progress("", str(path), tokenizer, chat).of(model, CPU)
    assert found == {"pass@1": 0.25} and "pass@1 25.0% of 4 problems" in capsys.readouterr().out


def test_the_score_is_that_of_eval_humaneval(tmp_path, tokenizer, model):
    """A model with random weights, one prompt too long for it, the same completions."""
    path, problems = problem_file(tmp_path, count=3)
    problems[1]["prompt"] += "    # " + "word " * 200 + "\n"
    problems[2]["test"] = "def check(candidate):\n    pass\n"
    path.write_text("\n".join(map(json.dumps, problems)))
    found = Progress("", str(path), tokenizer, chat=False).of(model, CPU)
    checkpoint.save(tmp_path / "saved", 1, model, [], tokenizer, {"settings": {}}, CPU)
    options = dict(max_new_tokens=256, device="cpu", dtype="fp32", out_dir=str(tmp_path / "out"))
    eval_humaneval.main(eval_humaneval.Settings(checkpoint=str(tmp_path / "saved"), problems=str(path), **options))
    assert found["pass@1"] == json.loads((tmp_path / "out/summary.json").read_text())["pass@1"]


def test_asking_leaves_no_trace_in_training(tokenizer, model):
    model.train()
    before = torch.get_rng_state()
    found = Progress("def", "", tokenizer, chat=False).of(model, CPU)
    assert found["sample"] == Progress("def", "", tokenizer, chat=False).of(model, CPU)["sample"]
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_is_asked_unasked_or_by_other_processes(tokenizer, model):
    assert Progress("", "", tokenizer, chat=False).of(model, CPU) == {}
    assert Progress("def", "", tokenizer, chat=False).of(model, Machine(1, 2, CPU.device, CPU.dtype)) == {}


def test_a_file_without_problems_ends_before_training(tmp_path, tokenizer):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="no problems"):
        Progress("", str(tmp_path / "none.jsonl"), tokenizer, chat=False)


def test_gaps_are_refused_in_a_chat_before_training(tmp_path, tokenizer):
    path, problems = problem_file(tmp_path, count=1)
    path.write_text(json.dumps({**problems[0], "suffix": "\n"}))
    with pytest.raises(UserError, match="gap"):
        Progress("", str(path), tokenizer, chat=True)
    assert len(Progress("", str(path), tokenizer, chat=False).prompts) == 1
