"""Gaps to fill: nothing of a document is lost in them, and a gap is asked for as the model has read them."""

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import door_error, program, write_records

import configurator
import prepare_data
import sample
from cleaning import gaps
from cleaning.settings import Settings
from evaluation.generate import Completion, generate, prompt_ids
from experiments import common
from experiments import gaps as gaps_experiment
from model import ModelConfig, Transformer
from shards import Shards, read_manifest
from tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer
from training.dataloader import Mixture

ODD = [
    "x",
    "def f(x):\n    return '<|fim_middle|><|fim_prefix|><|fim_suffix|><|endoftext|>'\n",
    "中文字符，没有一个是一个字节的。" * 20,
    "🙂👩‍👩‍👧 naïve\r\n\tcafé \x7f\u200b" * 20,
]
TEXTS = [*ODD, *(program(seed, lines=12) for seed in range(76))]


def prepare(workdir, folder, texts, **changes):
    """The folder of shards that prepare_data.py makes of these texts, in their order."""
    source = write_records(folder / "texts.jsonl", [{"text": text} for text in texts])
    out = folder / "_".join(f"{name}={value}" for name, value in changes.items())
    usual = {"clean": False, "val_fraction": 0.2, "num_workers": 1, "tokenizer": str(workdir / "data/tokenizer.json")}
    prepare_data.main(Settings(sources=[str(source)], out_dir=str(out), **{**usual, **changes}))
    return str(out)


@pytest.fixture(scope="module")
def prepared(workdir, tmp_path_factory):
    """prepared(fim_rate=1): the shards that these settings make of TEXTS."""
    folder = tmp_path_factory.mktemp("gaps")
    return lambda **changes: prepare(workdir, folder, TEXTS, **changes)


def documents(folder, split, tokenizer):
    """The ids of each document of a split, without the <|endoftext|> that opens it."""
    shards = Shards(folder, split)
    return [shards.tokens(start + 1, n - 1).tolist() for start, n in zip(*shards.documents(tokenizer.eot))]


def parts(ids, tokenizer):
    """The bytes (before the suffix, of the suffix, behind <|fim_middle|>) of a gap as it stands in the shards; None for
    a whole document. In both forms, the first part + the last + the suffix is the text."""
    prefix, suffix, middle = (tokenizer.special[f"<|fim_{part}|>"] for part in ("prefix", "suffix", "middle"))
    if prefix not in ids:
        assert suffix not in ids and middle not in ids
        return None
    first, second = ids.index(suffix), ids.index(middle)
    assert ids[0] == prefix and first < second and all(map(ids.count, (prefix, suffix, middle)))
    found = ids[1:first], ids[first + 1 : second], ids[second + 1 :]
    assert not set(tokenizer.special.values()) & set(sum(found, [])), "a text yields no mark, whatever it says"
    return tuple(map(tokenizer.decode_bytes, found))


# -- what the shards hold


def test_every_document_comes_back_from_both_forms(prepared, tokenizer):
    originals = [tokenizer.decode_bytes(ids) for ids in documents(prepared(fim_rate=0), "train", tokenizer)]
    assert set(originals) < {text.replace("\r\n", "\n").encode() for text in TEXTS} and len(originals) > 50
    n = len(originals)
    for spm_rate, suffix_first in ((0, range(5)), (0.5, range(n // 4, n)), (1, range(n, n + 1))):
        made = documents(prepared(fim_rate=1, fim_spm_rate=spm_rate), "train", tokenizer)
        found = [parts(ids, tokenizer) for ids in made]
        assert [first + last + suffix for first, suffix, last in found] == originals
        for part in sum(found, ()):
            part.decode()  # strictly: no character is cut
        assert sum(not first for first, _, _ in found) in suffix_first, "a gap may begin with its text, but seldom does"


def test_other_documents_and_validation_stay_as_they_are(prepared, tokenizer):
    plain, half = prepared(fim_rate=0), prepared(fim_rate=0.5)
    pairs = list(zip(documents(plain, "train", tokenizer), documents(half, "train", tokenizer), strict=True))
    is_gap = [parts(ids, tokenizer) is not None for _, ids in pairs]
    assert 15 < sum(is_gap) < 50 and all(old == new for (old, new), gap in zip(pairs, is_gap) if not gap)
    assert documents(plain, "val", tokenizer) == documents(half, "val", tokenizer)
    splits = read_manifest(half)["splits"]
    assert splits["train"]["gaps"] == sum(is_gap) and splits["val"]["gaps"] == 0
    assert splits["train"]["bytes"] == read_manifest(plain)["splits"]["train"]["bytes"]
    assert splits["train"]["tokens"] == sum(len(ids) + 1 for _, ids in pairs)
    assert read_manifest(half)["settings"]["fim_rate"] == 0.5


def test_any_number_of_workers_makes_the_same_gaps(prepared, monkeypatch):
    monkeypatch.setattr(prepare_data, "BATCH_BYTES", 3000)  # so that each of them gets some
    one, three = (prepared(fim_rate=0.5, num_workers=n, shard_bytes=20_000) for n in (1, 3))
    assert len(read_manifest(one)["files"]) > 4 and read_manifest(one)["files"] == read_manifest(three)["files"]


def test_what_has_no_gaps_is_one_line(workdir, tokenizer, tmp_path):
    assert "cannot be used with --chats" in door_error(prepare_data, "--chats", "--fim_rate=0.5")
    Tokenizer.from_bpe(PATTERN, tokenizer.token_bytes[: tokenizer.eot], SPECIAL_TOKENS[:3]).save(tmp_path / "old.json")
    arguments = (f"--tokenizer={tmp_path}/old.json", "--fim_rate=0.5", f"--out_dir={tmp_path}/out")
    assert "has no <|fim_prefix|>" in door_error(prepare_data, *arguments)
    assert not (tmp_path / "out").exists()


# -- what is drawn


def test_shares_and_places_are_those_of_chance():
    """Within four standard deviations of the binomial's mean, and of the means of the lower and the higher of two
    uniform numbers, 1/3 and 2/3, each with a variance of 1/18."""
    texts, n = [f"{i:06}" + "x" * 994 for i in range(4000)], 4000
    cuts = [gaps.cut(text, Settings(fim_rate=0.3, fim_spm_rate=0.25)) for text in texts]
    made = [found for found in cuts if found]
    assert abs(len(made) - 0.3 * n) < 4 * math.sqrt(n * 0.3 * 0.7)
    n_suffix_first = sum(suffix_first for *_, suffix_first in made)
    assert abs(n_suffix_first - 0.25 * len(made)) < 4 * math.sqrt(len(made) * 0.25 * 0.75)
    error = 4 * math.sqrt(1 / 18 / len(made))
    assert abs(np.mean([len(prefix) for prefix, *_ in made]) / 1000 - 1 / 3) < error
    assert abs(np.mean([len(suffix) for _, _, suffix, _ in made]) / 1000 - 1 / 3) < error


def test_a_share_of_the_gaps_are_whole_lines():
    """Within four standard deviations of the binomial's mean, for the share and for each pair of the four lines' ends."""
    lines, n = ["def f():\n", "\n", "    a = 1\r\n", "    return '\u2028' # no end"], 4000
    pairs = {"".join(lines[start:end]): 0 for start, end in combinations(range(5), 2)}
    settings = Settings(fim_rate=1, fim_line_rate=1)
    for number in range(n):
        prefix, middle, suffix, _ = gaps.cut("".join(lines).replace("f", f"f{number}"), settings)
        assert "".join((prefix, middle, suffix)).replace(f"f{number}", "f") == "".join(lines)
        pairs[middle.replace(f"f{number}", "f")] += 1
    assert all(abs(count - n / 10) < 4 * math.sqrt(n * 0.1 * 0.9) for count in pairs.values())

    settings, texts = replace(settings, fim_line_rate=0.25), [f"{number:099}\n" * 9 for number in range(n)]
    cuts = [gaps.cut(text, settings) for text in texts]
    n_whole = sum(len(prefix) % 100 == len(suffix) % 100 == 0 for prefix, _, suffix, _ in cuts)
    assert abs(n_whole - n / 4) < 4 * math.sqrt(n * 0.25 * 0.75)


def test_a_higher_rate_keeps_the_gaps_of_a_lower_one_and_another_seed_does_not():
    texts = [program(seed, lines=5) for seed in range(200)]
    low, high, other = (
        [gaps.cut(text, Settings(fim_rate=rate, fim_seed=seed)) for text in texts]
        for rate, seed in ((0.2, 0), (0.6, 0), (0.6, 1))
    )
    assert all(new == old for old, new in zip(low, high) if old) and high.count(None) < low.count(None)
    assert not any(new == old for old, new in zip(other, high) if old and new)


# -- asking


def test_sample_asks_in_the_form_that_was_read(prepared, tokenizer):
    """sample.py --prompt=PREFIX --suffix=SUFFIX: what the model gets is the beginning of what it was trained on."""
    folder, n_asked = prepared(fim_rate=1, fim_spm_rate=0), 0
    for ids in documents(folder, "train", tokenizer):
        prefix, suffix, middle = parts(ids, tokenizer)
        asked = []

        def write(prompts, **_):
            asked.extend(prompts)
            return [Completion([], "", "stop")]

        settings = sample.Settings(prompt=prefix.decode(), suffix=suffix.decode())
        sample.complete(write, tokenizer, settings)
        if suffix:
            n_asked += 1
            assert [*asked[0], *tokenizer.encode(middle)] == [tokenizer.eot, *ids]
    assert n_asked > 50


def test_a_model_that_knows_its_gaps_by_heart_fills_them_and_stops(workdir, tokenizer, tmp_path):
    texts = [f"def {name}(r):\n    return {i} * r\n" for i, name in enumerate(("area", "length", "volume"))]
    folder = prepare(workdir, tmp_path, texts, fim_rate=1, fim_spm_rate=0, val_fraction=0)
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=320, block_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=64))
    data = Mixture([(folder, 1.0)], 64, 2, 0, tokenizer.eot, best_fit=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        ids, targets = map(torch.from_numpy, data.arrays(step))
        model(ids, targets, doc_ids=(ids == tokenizer.eot).cumsum(1)).backward()  # each document is read alone
        optimizer.step()
        optimizer.zero_grad()
    for ids in documents(folder, "train", tokenizer):
        prefix, suffix, middle = (part.decode() for part in parts(ids, tokenizer))
        prompt = prompt_ids(tokenizer, prefix, suffix=suffix)
        (completion,) = generate(model.eval(), tokenizer, [prompt], 60)
        assert (completion.text, completion.reason) == (middle, "stop") and prefix + middle + suffix in texts


def test_the_experiment_trains_each_arm_on_its_own_gaps(tmp_path, monkeypatch, capsys):
    """A stand-in for the stages: a model's losses and scores follow from the shards that it is trained on."""
    rates, trained, ran = {}, [], []

    def run_stage(script, *arguments):
        ran.append(script)
        given = dict(argument.lstrip("-").split("=", 1) for argument in arguments if "=" in argument)
        out = given["out_dir"] if "out_dir" in given else tmp_path
        if script == "prepare_data.py":
            rates[out] = tuple(float(given.get(f"fim_{name}", 0)) for name in ("rate", "line_rate"))
        if script == "pretrain.py":
            mixture = dict(part.split(":") for part in given["data"].split(","))
            trained.append([rates[folder] for folder in mixture])
            sources = {folder: {"val_bpb": 1 + rates[folder][0] + 0.1 * int(given["seed"])} for folder in mixture}
            lines = json.dumps({"sources": sources}) + "\n" + json.dumps({"step": 1}) + "\n"
            configurator.write_text(Path(out, "metrics.jsonl"), lines)
        if script == "eval_humaneval.py":
            families = {"one_line": {"pass@1": 0.5}, "several_lines": {"pass@1": 0.25}}
            configurator.write_json(Path(out, "summary.json"), {"families": families})

    monkeypatch.setattr(gaps_experiment, "run_stage", run_stage)
    monkeypatch.setattr(common, "run_stage", run_stage)
    settings = gaps_experiment.Settings(seeds=2, out_dir=str(tmp_path))
    gaps_experiment.main(settings)
    assert ran.count("prepare_data.py") == len(rates) == 6 and ran.count("exercises") == 1
    # (share of gaps, share of whole lines among them) of the exercises of the five arms; those of the library are 0
    arms = [(0, 0), (0.5, 1), (0.5, 1), (0.5, 0), (0.9, 1)]
    assert sorted(trained) == sorted([(0, 0), arm] for arm in 2 * arms)
    found = json.loads((tmp_path / "summary.json").read_text())["spread"]
    assert found["no gaps"]["bpb_exercises"]["mean"] == pytest.approx(1.05)
    assert found["nine tenths"]["bpb_exercises"]["difference"] == pytest.approx(0.9)
    assert found["nine tenths"]["bpb_library"]["difference"] == 0, "the library stays whole"
    assert found["half"]["one_line"]["mean"] == 0.5 and found["half"]["several_lines"]["mean"] == 0.25
    assert "nine tenths" in capsys.readouterr().out
    gaps_experiment.main(settings)
    assert ran.count("exercises") == 1, "what is there is not made again"
    ran.clear()
    gaps_experiment.main(replace(settings, arms=["no gaps", "half"], seeds=1))
    assert ran.count("prepare_data.py") == 3 and ran.count("pretrain.py") == 2, "those arms alone"
    with pytest.raises(configurator.UserError, match="arms are some of no gaps, half, "):
        gaps_experiment.main(replace(settings, arms=["third"]))
    with pytest.raises(configurator.UserError, match="max_steps=600: choose another --out_dir"):
        gaps_experiment.main(gaps_experiment.Settings(max_steps=7, out_dir=str(tmp_path)))
