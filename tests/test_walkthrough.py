"""WALKTHROUGH.md of a tiny recipe: the same page twice, and what it says is what other functions say."""

import importlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import alone, door_error

import configurator
import recipe
from evaluation.generate import prompt_ids
from evaluation.problems import read_problems
from experiments import walkthrough
from pretrain import next_token_loss
from shards import Shards
from tokenizer import Tokenizer
from training import checkpoint
from training.dataloader import make_batch

TRAINED = 'batch_tokens = 1024\ncompile = false\neval_tokens = 500\ndevice = "cpu"\ndtype = "fp32"'
TINY = f"""
[exercises]
out_dir = "FOLDER/exercises"
documents = 60
chats = 40
problems = 2
num_workers = 1
[tokenizer_train]
sources = ["FOLDER/exercises/documents.jsonl"]
out = "FOLDER/tokenizer.json"
vocab_size = 512
[prepare_data]
tokenizer = "FOLDER/tokenizer.json"
clean = false
val_fraction = 0.2
num_workers = 1
[prepare_data.pages]
sources = ["FOLDER/exercises/documents.jsonl"]
out_dir = "FOLDER/pages"
[prepare_data.chats]
sources = ["FOLDER/exercises/chats.jsonl"]
chats = true
out_dir = "FOLDER/chats"
[pretrain]
data = "FOLDER/pages"
best_fit = true
out_dir = "FOLDER/pretrain"
n_layer = 1
n_embd = 32
block_size = 512
max_steps = 2
{TRAINED}
[anneal]
init = "FOLDER/pretrain"
data = "FOLDER/pages"
out_dir = "FOLDER/anneal"
max_steps = 1
{TRAINED}
[sft]
init = "FOLDER/anneal"
data = "FOLDER/chats"
out_dir = "FOLDER/sft"
max_steps = 1
{TRAINED}
[eval_humaneval]
problems = "FOLDER/exercises/problems.jsonl"
max_new_tokens = 4
num_workers = 1
[eval_humaneval.base]
checkpoint = "FOLDER/pretrain"
out_dir = "FOLDER/eval-base"
[eval_humaneval.annealed]
checkpoint = "FOLDER/anneal"
out_dir = "FOLDER/eval-annealed"
[eval_humaneval.tuned]
checkpoint = "FOLDER/sft"
out_dir = "FOLDER/eval-tuned"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What recipe.py leaves, its stages run in this process: importing torch ten times would take most of the time."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.toml").write_text(TINY.replace("FOLDER", str(folder)))
    entries, steps = [], recipe.read_steps([str(folder / "tiny.toml")])
    for step in steps:
        entries.append({"step": step.name, "settings": asdict(step.settings), "seconds": 1.0})
        module = importlib.import_module("exercises.__main__" if step.stage == "exercises" else step.stage)
        module.main(step.settings)
    configurator.write_json(folder / "progress.json", entries)
    summary = recipe.summarize(recipe.Settings(str(folder)), steps, [1.0] * len(steps), 0.0)
    configurator.write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The page, whose place is the folder itself."""
    walkthrough.main(walkthrough.Settings(str(folder), str(folder / "WALKTHROUGH.md")))
    return (folder / "WALKTHROUGH.md").read_text(encoding="utf-8")


def chosen(folder, page):
    """The record of the problem that the page is about."""
    number = re.search(r"The exercise is number (\d+)", page)[1]
    lines = map(json.loads, (folder / "exercises/problems.jsonl").read_text().splitlines())
    return next(record for record in lines if record["task_id"] == f"compositions/{number}")


def block_after(page, words):
    """The lines of the first block of code behind these words."""
    return page[page.index(words) :].split("```")[1].splitlines()[1:]


def test_the_same_files_give_the_same_page(folder, page):
    first = (folder / "WALKTHROUGH.md").read_bytes()
    walkthrough.main(walkthrough.Settings(str(folder), str(folder / "WALKTHROUGH.md")))
    assert (folder / "WALKTHROUGH.md").read_bytes() == first


def test_all_pictures_are_there_and_small(folder, page):
    named = re.findall(r"^!\[.+\]\((.+)\)$", page, re.M)
    assert len(named) == 5
    for name in named:
        data = Path(folder, name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < 60_000


def test_prose_is_wrapped_and_nothing_is_left_open(page):
    prose = re.sub(r"^(`{3,}).*?^\1$", "", page, flags=re.M | re.S)
    assert max(len(line) for line in prose.splitlines() if not line.startswith("|")) < 140
    assert re.findall(r"\$\w+", prose) == []


def test_ids_and_losses_are_those_of_tokenizer_and_model(folder, page):
    """The numbers under the tokens, and the means, are those of next_token_loss on the same text."""
    record, tokenizer = chosen(folder, page), Tokenizer.load(folder / "tokenizer.json")
    text = record["prompt"] + record["canonical_solution"]
    ids = [tokenizer.eot, *tokenizer.encode(text)]
    rows = [line.split()[1:] for line in block_after(page, "## 3. Token ids") if line.startswith("id")]
    assert [int(cell) for row in rows for cell in row] == ids
    batch = make_batch(*(torch.tensor([part]).numpy() for part in (ids[:-1], ids[1:])), tokenizer.eot, None, "cpu")
    for name, stage in (("base", "pretrain"), ("tuned", "sft")):
        model = checkpoint.load_model(folder / stage, alone())[0]
        with torch.no_grad():
            total, count = next_token_loss(model, batch)
        rows = [line.split()[1:] for line in block_after(page, "## 6. The loss") if line.startswith(name)]
        shown = [float(cell) for row in rows for cell in row]
        assert len(shown) == count == len(ids) - 1
        assert sum(shown) == pytest.approx(total.item(), abs=0.005 * count)
        bits = float(re.search(rf"^\| {name} \| .* \| ([\d.]+) \|$", page[page.index("## 6.") :], re.M)[1])
        assert bits == pytest.approx(total.item() / 0.693147 / len(text.encode()), abs=6e-4)


def test_the_operations_are_those_of_the_problem(folder, page):
    record = chosen(folder, page)
    for part in set(record["composition"].split(">")) - {"if"}:
        assert re.search(rf"^{part}\(.*\) -> \w+", page, re.M)
    lines = block_after(page, "This is the whole text")
    assert "\n".join(lines) == (record["prompt"] + record["canonical_solution"]).rstrip()


def test_the_first_probability_is_the_models(folder, page):
    problem = read_problems(folder / "exercises/problems.jsonl", "1")[chosen(folder, page)["task_id"]]
    model, tokenizer, _ = checkpoint.load_model(folder / "sft", alone())
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids(tokenizer, problem.request, chat=True)]))
    share = logits[0, -1, : tokenizer.vocab_size].softmax(0).max().item()
    assert f"{share:.1%}" in page[page.index("It answers with") :].split("```")[1].splitlines()[1]


def test_the_row_is_one_of_the_first_batch(folder, page):
    """Its documents are documents of the shards, whole: their lengths are among the shards' lengths."""
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    _, lengths = Shards(folder / "pages", "train").documents(tokenizer.eot)
    lines = [line for line in block_after(page, "## 4. A row") if "(filled up)" not in line]
    assert len(lines) > 1 and {int(line.split()[2]) for line in lines} <= set(lengths.tolist())


@pytest.mark.parametrize("what", ["nowhere", "empty", "damaged"])
def test_a_folder_without_a_recipe_is_one_line(tmp_path, what):
    if what != "nowhere":
        (tmp_path / what).mkdir()
    if what == "damaged":
        (tmp_path / what / "summary.json").write_text('{"exercises": {}}')
    error = door_error(walkthrough, f"--recipe={tmp_path / what}", f"--out={tmp_path}/page.md")
    assert "does not hold the results of a whole recipe" in error and not (tmp_path / "page.md").exists()


def test_a_recipe_without_muon_is_one_line(folder, tmp_path):
    """Its optimizer's state has nothing to orthogonalise."""
    other = shutil.copytree(folder, tmp_path / "other")
    entries = json.loads((other / "progress.json").read_text())
    for entry in entries:
        if entry["step"] == "pretrain":
            entry["settings"]["optimizer"] = "adamw"
    configurator.write_json(other / "progress.json", entries)
    error = door_error(walkthrough, f"--recipe={other}", f"--out={tmp_path}/page.md")
    assert "not trained with Muon" in error and not (tmp_path / "page.md").exists()
