"""Out to a Hugging Face folder and in again: equal weights, equal ids; and what is refused."""

import itertools
import json
import pydoc
import random
import sys
from pathlib import Path

import pytest
import regex
import torch
from conftest import ROOT, alone, door_error, load_model, stage, untrained_checkpoint

import convert
import tokenizer_train
from configurator import UserError
from corpus.documents import Document, read
from model import ModelConfig, Transformer
from tokenizer import PATTERN, PATTERNS, SPECIAL_TOKENS, Tokenizer
from training import checkpoint, hf_tokenizer


@pytest.fixture
def exported(tmp_path, tokenizer):
    """(checkpoint's folder, Hugging Face folder)"""
    folder = untrained_checkpoint(tmp_path / "run", tokenizer, 64)
    convert.main(convert.Settings(checkpoint=str(tmp_path / "run"), out_dir=str(tmp_path / "hf")))
    return folder, tmp_path / "hf"


def weights_in(run):
    """{name: tensor} of the newest checkpoint of a run."""
    return torch.load(checkpoint.newest(run)[0] / "model.pt", weights_only=True)


def edited(folder, **changes):
    """Change config.json."""
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, **changes}))


def test_out_and_in_are_inverse(exported, tmp_path):
    _, hf = exported
    convert.main(convert.Settings(hf=str(hf), out_dir=str(tmp_path / "in")))
    before, after = weights_in(tmp_path / "run"), weights_in(tmp_path / "in")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    folders = [checkpoint.newest(tmp_path / name)[0] for name in ("run", "in")]
    assert len({Tokenizer.load(folder / "tokenizer.json").fingerprint for folder in folders}) == 1
    assert "already holds" in door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")


def bpe_ids(content, text):
    """Ids of a text by the merges of a tokenizer.json, written from BPE's definition alone: the first of the merges that
    fits is done everywhere, until none fits."""
    order = {tuple(merge.split(" ")): n for n, merge in enumerate(content["model"]["merges"])}
    pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    ids = []
    for piece in regex.findall(pattern, text):
        parts = list(hf_tokenizer.written(piece.encode()))
        while fits := [pair for pair in zip(parts, parts[1:]) if pair in order]:
            first, joined, i = min(fits, key=order.get), [], 0
            while i < len(parts):
                is_pair = tuple(parts[i : i + 2]) == first
                joined.append("".join(parts[i : i + 1 + is_pair]))
                i += 1 + is_pair
            parts = joined
        ids += [content["model"]["vocab"][part] for part in parts]
    return ids


def test_merges_say_what_ranks_say(tokenizer):
    content, rng = hf_tokenizer.to_json(tokenizer), random.Random(0)
    texts = ["def area(r):\n    return 3.14159 * r ** 2\n", "  x\t= 'été 中文 😀'\r\n", "\x00\x01 \u00ad", ""]
    texts += ["".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x80, 0xD800)])) for _ in range(300))]
    for text in texts:
        assert bpe_ids(content, text) == tokenizer.encode(text)
    assert len(content["model"]["merges"]) == len(content["model"]["vocab"]) - 256


def test_a_vocabulary_without_the_parts_of_a_token_is_refused():
    ranks = [bytes([byte]) for byte in range(256)] + [b"abc"]
    with pytest.raises(Exception, match="cannot be written as merges: no two tokens before it make b'abc'"):
        hf_tokenizer.to_json(Tokenizer.from_bpe(PATTERN, ranks))


def test_special_tokens_in_front_change_places_with_their_rows(exported, tmp_path):
    """As in SmolLM's folders: the rows of the embedding follow the tokens."""
    _, hf = exported
    content = json.loads((hf / "tokenizer.json").read_text())
    weights = convert.read_weights(hf)
    n, k = len(content["model"]["vocab"]), len(SPECIAL_TOKENS)
    for token in content["added_tokens"]:
        token["id"] -= n
    content["model"]["vocab"] = {token: i + k for token, i in content["model"]["vocab"].items()}
    (hf / "tokenizer.json").write_text(json.dumps(content))
    rows = weights["model.embed_tokens.weight"]
    moved = {**weights, "model.embed_tokens.weight": torch.cat([rows[n : n + k], rows[:n], rows[n + k :]]).contiguous()}
    convert.safetensors.torch.save_file(moved, hf / "model.safetensors")
    convert.main(convert.Settings(hf=str(hf), out_dir=str(tmp_path / "in")))
    assert torch.equal(weights_in(tmp_path / "in")["embed_tokens.weight"][: n + k], rows[: n + k])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_type": "gpt2"}, "only llama, qwen2, qwen3 come in"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "a rope_type of llama3"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None}, "a rope_type of dynamic"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4, "mscale": 1.0}}, "a mscale of its own"),
        ({"rope_parameters": {"rope_type": "linear"}}, "does not fit"),
        ({"use_sliding_window": True}, "sliding windows"),
        ({"hidden_act": "gelu"}, "another activation than silu"),
        ({"head_dim": 24}, "heads whose size is not"),
        ({"num_hidden_layers": 3}, "does not hold the weights"),
        ({"num_key_value_heads": 3}, "does not fit"),
        ({"rope_parameters": "x"}, "does not fit"),
        ({"vocab_size": "2048"}, "does not fit"),
        ({"model_type": ["llama"]}, "does not fit"),
        ({"tie_word_embeddings": False}, 'Missing key(s) in state_dict: "lm_head.weight"'),
    ],
)
def test_what_this_model_does_not_have_is_refused(exported, tmp_path, changes, words):
    _, hf = exported
    edited(hf, **changes)
    error = door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")
    assert words in error and not (tmp_path / "in").exists()


def test_as_many_key_heads_as_heads_may_be_left_unsaid(exported, tmp_path):
    _, hf = exported
    about = json.loads((hf / "config.json").read_text())
    heads = convert.shape_of({**about, "num_key_value_heads": None}, load_model(exported[0])[1], {}).n_kv_head
    assert heads == about["num_attention_heads"] > about["num_key_value_heads"]


def test_a_checkpoint_is_no_place_for_a_folder_to_go_out(exported, tmp_path):
    folder, _ = checkpoint.newest(exported[0])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for out in (folder, exported[0]):
        assert "holds a checkpoint" in door_error(convert, f"--checkpoint={folder}", f"--out_dir={out}")
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_tokenizer_without_the_token_that_opens_every_text_is_refused(exported, tmp_path):
    _, hf = exported
    path = hf / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<s>"))
    error = door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")
    assert "no <|endoftext|>" in error and not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "Digits", "individual_digits": True}],
        [{"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}],
        [{"type": "Split", "pattern": {"Regex": r"\w+|\s+"}, "behavior": "Isolated"}],
    ],
)
def test_what_a_pattern_leaves_over_is_a_pre_token(steps):
    """Its text is cut as Hugging Face's tokenizers cut it: nothing is lost between two matches."""
    steps = [*steps, {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False}]
    pattern, text = hf_tokenizer.pattern_of({"pretokenizers": steps}), "x = f(12, 'é') +\n\t中文!"
    pieces = regex.findall(pattern, text)
    assert "".join(pieces) == text and "12" not in pieces[0]
    theirs = pytest.importorskip("tokenizers").pre_tokenizers
    split = theirs.Digits(True) if steps[0]["type"] == "Digits" else None
    if split is None:
        ((kind, own),) = steps[0]["pattern"].items()
        split = theirs.Split(pytest.importorskip("tokenizers").Regex(own) if kind == "Regex" else own, "isolated")
    assert pieces == [piece for piece, _ in split.pre_tokenize_str(text)]


def test_a_reward_model_is_refused(exported, tmp_path):
    model, tokenizer, _ = load_model(exported[0])
    checkpoint.save(tmp_path / "reward", 1, model, [], tokenizer, {"settings": {}, "reward": True}, alone())
    error = door_error(convert, f"--checkpoint={tmp_path / 'reward'}", f"--out_dir={tmp_path / 'out'}")
    assert "is a reward model" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["a byte is missing", "no pattern"])
def test_a_tokenizer_that_is_not_whole_is_one_line(exported, change):
    content = json.loads((exported[1] / "tokenizer.json").read_text(encoding="utf-8"))
    if change == "no pattern":
        split = content["pre_tokenizer"]
        split = split["pretokenizers"][0] if "pretokenizers" in split else split
        split["pattern"] = {"Regex": "("}
    else:
        del content["model"]["vocab"]["a"]
    with pytest.raises(UserError, match="cannot be read as byte-level BPE"):
        hf_tokenizer.from_json(content)


def test_damaged_folders_are_one_line(exported, tmp_path):
    _, hf = exported
    data = (hf / "model.safetensors").read_bytes()
    (hf / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "is damaged" in door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")
    (hf / "model.safetensors").unlink()
    assert "holds no .safetensors" in door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")
    (hf / "tokenizer.json").write_text('{"model": {"type": "Unigram"}, "added_tokens": []}')
    assert "cannot be read as byte-level BPE" in door_error(convert, f"--hf={hf}", f"--out_dir={tmp_path / 'in'}")
    assert "is no Hugging Face folder" in door_error(convert, f"--hf={tmp_path}", f"--out_dir={tmp_path / 'in'}")


SHAPES = [{}, {"qk_norm": False}, {"qk_norm": False, "qkv_bias": True}, {"n_kv_head": 1}, {"tie_embeddings": False}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transformers_has_the_same_logits_ids_and_text(tmp_path, tokenizer, shape):
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(vocab_size=2048, block_size=64, n_layer=2, n_head=2, n_embd=64, rope_base=5000.0, **shape)
    torch.manual_seed(0)
    model = Transformer(config)
    for name, p in model.named_parameters():
        p.data += 0.05 * torch.randn_like(p) * (p.ndim == 1)  # norms and biases that are not what they begin with
    machine = convert.machines.start("cpu", "fp32")
    checkpoint.save(tmp_path / "run", 1, model, [], tokenizer, {**convert.unknown_training(), "chat": True}, machine)
    convert.main(convert.Settings(checkpoint=str(tmp_path / "run"), out_dir=str(tmp_path / "hf")))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    model.eval()
    ids = torch.randint(0, tokenizer.vocab_size, (3, 40))
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    messages = [
        {"role": "system", "content": "  Be short."},
        {"role": "user", "content": "\n\n Add 1 and 2."},
        {"role": "assistant", "content": "3"},
    ]
    rendered = theirs_tokenizer.apply_chat_template(messages, tokenize=False)
    assert theirs_tokenizer(rendered, add_special_tokens=False)["input_ids"] == [
        tokenizer.eot,
        *tokenizer.render(messages)[0],
    ]
    everything = "".join(chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000)
    for text in (everything, Path(pydoc.__file__).read_text(encoding="utf-8")):
        assert theirs_tokenizer(text)["input_ids"] == [tokenizer.eot, *tokenizer.encode(text)]


def stretched(tmp_path, tokenizer, scaling):
    """(model whose positions are stretched, its Hugging Face folder)"""
    shape = dict(vocab_size=320, block_size=1000, n_layer=2, n_head=2, n_embd=64, mlp_dim=192, rope_base=5000.0)
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**shape, rope_scaling=scaling, rope_factor=7.8125, rope_trained=128))
    machine = convert.machines.start("cpu", "fp32")
    checkpoint.save(tmp_path / "run", 1, model, [], tokenizer, convert.unknown_training(), machine)
    convert.main(convert.Settings(checkpoint=str(tmp_path / "run"), out_dir=str(tmp_path / "hf")))
    return model.eval(), tmp_path / "hf"


@pytest.mark.parametrize("scaling", ["linear", "ntk", "yarn"])
def test_stretched_positions_go_out_and_come_in(tmp_path, tokenizer, scaling):
    """Also from a folder that transformers 4 has written. NTK's come in as the larger base that they are."""
    model, hf = stretched(tmp_path, tokenizer, scaling)
    ids = torch.arange(300)[None]
    for n, changes in enumerate([{}, {"rope_parameters": None}]):
        edited(hf, **changes)
        convert.main(convert.Settings(hf=str(hf), out_dir=str(tmp_path / f"in{n}")))
        back, _, _ = load_model(tmp_path / f"in{n}")
        assert torch.allclose(back(ids), model(ids), atol=1e-5)
        assert (back.config == model.config) == (scaling != "ntk") and back.config.block_size == 1000


@pytest.mark.parametrize("scaling", ["linear", "ntk", "yarn"])
def test_transformers_stretches_positions_alike(tmp_path, tokenizer, scaling):
    transformers = pytest.importorskip("transformers")
    model, hf = stretched(tmp_path, tokenizer, scaling)
    ids = torch.randint(0, 320, (1, 1000))
    with torch.no_grad():
        for changes in ({}, {"rope_parameters": None}):  # what version 5 reads, and what version 4 does
            edited(hf, **changes)
            theirs = transformers.AutoModelForCausalLM.from_pretrained(hf).eval()
            assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4


@pytest.mark.parametrize("pattern", PATTERNS)
def test_files_of_the_standard_library_have_the_same_ids(tmp_path, pattern):
    tokenizers = pytest.importorskip("tokenizers")
    settings = tokenizer_train.Settings(sources=[str(ROOT / "corpus")], vocab_size=1500, pattern=pattern)
    counts, _ = tokenizer_train.count_pretokens(settings)
    ours = Tokenizer.from_bpe(PATTERNS[pattern], tokenizer_train.learn_ranks(counts, 1500))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer.to_json(ours)))
    texts = [item.text for item in itertools.islice(read("stdlib"), 0, None, 10) if isinstance(item, Document)]
    assert len(texts) > 50
    for text, found in zip(texts, theirs.encode_batch(texts, add_special_tokens=False)):
        assert found.ids == ours.encode(text)


def test_a_later_stage_goes_on_from_what_came_in(workdir, tmp_path, tokenizer):
    """A folder of unknown training: weights and tokenizer are all that tuning needs."""
    untrained_checkpoint(tmp_path / "run", tokenizer, 64)
    convert.main(convert.Settings(checkpoint=str(tmp_path / "run"), out_dir=str(tmp_path / "hf")))
    (tmp_path / "hf/training.json").unlink()
    convert.main(convert.Settings(hf=str(tmp_path / "hf"), out_dir=str(tmp_path / "in")))
    arguments = [f"--init={tmp_path / 'in'}", "--data=data/shards", f"--out_dir={tmp_path / 'out'}", "--max_steps=2"]
    stage("anneal.py", *arguments, "--batch_tokens=256", "--compile=false", "--eval_tokens=1000", cwd=workdir)
    assert checkpoint.newest(tmp_path / "out")[1]["step"] == 2
