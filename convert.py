"""A checkpoint leaves as a Hugging Face folder, and such a folder comes in.

    python convert.py --checkpoint=out/sft --out_dir=out/hf
    python convert.py --hf=out/hf --out_dir=out/imported

The folder holds what AutoModelForCausalLM and AutoTokenizer load: config.json, model.safetensors,
tokenizer.json, the chat template, generation_config.json, and README.md, a model card that says what
made it. In come Llama, Qwen2 and Qwen3 with a byte-level BPE whose ids fit 16 bits.
"""

import needs  # noqa: F401

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

import configurator
import pretrain
import rope
from configurator import UserError, write_json
from model import ModelConfig, Transformer
from ranges import Place
from shards import exclusive
from tokenizer import CHAT_TEMPLATE, Tokenizer
from training import checkpoint, hf_tokenizer
from training import machine as machines
from training.optim import Schedule

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
NAMES = {  # of a shape's numbers in config.json
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "mlp_dim": "intermediate_size",
    "block_size": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "vocab_size": "vocab_size",
}
# YaRN as the paper and rope.py have it: a folder that gives another value is refused.
YARN = {"beta_fast": rope.FAST, "beta_slow": rope.SLOW, "truncate": True, "attention_factor": None}
YARN |= {"mscale": None, "mscale_all_dim": None}
PREFIX = "model."  # of all names there but the head's


@dataclass
class Settings:
    """Which way, from where, and where to."""

    # -- out: a checkpoint becomes a Hugging Face folder
    checkpoint: str = "out/sft"  # a checkpoint or a folder of them, of which the newest is taken
    out_dir: Place = "out/hf"  # the folder; with --hf that of the new checkpoint
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights in model.safetensors
    # -- in: a Hugging Face folder becomes a checkpoint
    hf: str = ""  # the folder


def main(settings):
    """Convert one into the other."""
    with exclusive(settings.out_dir):
        if settings.hf:
            folder = take_in(Path(settings.hf), settings.out_dir)
            print(f"{settings.hf} -> {folder}")
        else:
            give_out(settings)
            print(f"{settings.checkpoint} -> {settings.out_dir}")


# -- out


def give_out(settings):
    """Write a checkpoint as a Hugging Face folder, the weights last: what was interrupted loads nowhere."""
    machine = machines.start("cpu", "fp32")
    folder, meta = checkpoint.newest(settings.checkpoint)
    if meta.get("reward"):  # without its value head it would be a model whose answers nobody has trained
        raise UserError(f"{folder} is a reward model, which Hugging Face's classes of these shapes do not have")
    config, tokenizer = ModelConfig(**meta["model"]), Tokenizer.load(folder / "tokenizer.json")
    about, model = config_json(config, tokenizer, settings.dtype), Transformer(config)
    content = hf_tokenizer.to_json(tokenizer)
    checkpoint.load_weights(model, folder, machine.device)
    out = Path(settings.out_dir)
    if checkpoint.saved(out) or (out / "meta.json").exists():
        raise UserError(f"{out} holds a checkpoint, whose tokenizer would be overwritten: choose another --out_dir")
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").unlink(missing_ok=True)  # of an older model: with what follows it would be neither
    write_json(out / "config.json", about)
    write_json(out / "tokenizer.json", content)
    write_json(out / "tokenizer_config.json", tokenizer_config(tokenizer, config))
    configurator.write_text(out / "chat_template.jinja", CHAT_TEMPLATE)
    write_json(out / "generation_config.json", generation_config(tokenizer))
    write_json(out / "training.json", meta)
    configurator.write_text(out / "README.md", card(model, meta, settings.checkpoint))
    dtype = getattr(torch, settings.dtype)
    weights = {}
    for name, tensor in model.state_dict().items():
        if not (name.startswith("lm_head.") and config.tie_embeddings):
            weights[name if name.startswith("lm_head.") else PREFIX + name] = tensor.to(dtype).contiguous()
    if config.qkv_bias:  # Llama has a bias there too
        for name in [name for name in weights if name.endswith("o_proj.weight")]:
            weights[name.replace("weight", "bias")] = torch.zeros(config.n_embd, dtype=dtype)
    beside = out / "model.safetensors.tmp"
    safetensors.torch.save_file(weights, beside, metadata={"format": "pt"})
    beside.chmod((out / "config.json").stat().st_mode & 0o777)  # safetensors makes files that nobody else may read
    os.replace(beside, out / "model.safetensors")


def config_json(config, tokenizer, dtype):
    """config.json, with the names that transformers 4 and 5 read. Raises UserError for a shape that they lack."""
    if config.qk_norm and config.qkv_bias:
        raise UserError("a model with both qk_norm and qkv_bias is none that Hugging Face's classes know")
    # Biases go out as Llama's: for qwen2, transformers 5 puts a tokenizer of its own in the place of tokenizer.json.
    kind = "qwen3" if config.qk_norm else "llama"
    numbers = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        **numbers,
        "intermediate_size": config.mlp_width,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": config.qkv_bias,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,  # transformers 4.51 masks by it all the same, and its default is 4,096
        **rope_json(config),
        "torch_dtype": dtype,  # transformers 4
        "dtype": dtype,  # transformers 5
        "bos_token_id": tokenizer.eot,
        "eos_token_id": end_ids(tokenizer)[0],
        "pad_token_id": tokenizer.eot,
        "use_cache": True,
    }


def rope_json(config):
    """What config.json says of rotary positions: in rope_scaling for transformers 4, in rope_parameters for 5."""
    base = rope.rope_base(config)
    if config.rope_scaling in ("none", "ntk"):  # ntk is another base, and nothing else
        return {"rope_theta": base, "rope_parameters": {"rope_type": "default", "rope_theta": base}}
    scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "yarn":
        scaling["original_max_position_embeddings"] = config.rope_trained
    return {
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": base, **scaling},
        # transformers 4 takes YaRN's factor from this length and the original one.
        "max_position_embeddings": round(config.rope_factor * config.rope_trained),
    }


def end_ids(tokenizer):
    """The tokens that end an answer: the end of a turn, where the tokenizer has it, and of a document."""
    return [tokenizer.special[name] for name in ("<|im_end|>", "<|endoftext|>") if name in tokenizer.special]


def tokenizer_config(tokenizer, config):
    """tokenizer_config.json."""
    end = tokenizer.special_names[end_ids(tokenizer)[0]]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": end,
        "pad_token": "<|endoftext|>",
        "model_max_length": config.block_size,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def generation_config(tokenizer):
    """generation_config.json: the likeliest token each time, as the scores are measured."""
    ends = end_ids(tokenizer)
    return {"bos_token_id": tokenizer.eot, "eos_token_id": ends, "pad_token_id": tokenizer.eot, "do_sample": False}


CARD = """---
library_name: transformers
pipeline_tag: text-generation
---
# A code model of {n_params:,} parameters

{shape}. {use} Converted from step {step:,} of {source}.

{losses}
This folder's tokenizer reads `<|im_end|>` and the like in a text as special tokens; in training they were plain text.
An answer that begins with a line end or a blank is cut into other tokens here than it was in training.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
ids = tokenizer("def add(a, b):", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50, do_sample=False)[0]))
```

## What made it

```json
{made_by}
```
"""


def card(model, meta, source):
    """README.md of the folder: what the model is, and what made it."""
    config, found = model.config, (meta.get("metrics") or {}).get("sources", {})
    losses = "| validation set | loss (nats per token) | bits per byte |\n|---|---|---|\n" * bool(found)
    for name, row in found.items():
        losses += f"| {name} | {row['val_loss']:.4f} | {row['val_bpb']:.4f} |\n"
    about = {key: meta.get(key) for key in ("made_by", "settings", "schedule")}
    return CARD.format(
        n_params=model.n_params(),
        shape=f"{config.n_layer} layers x {config.n_embd}, {config.block_size:,} tokens of context",
        use="It answers chats." if meta.get("chat") else "It continues texts, and was not tuned on conversations.",
        step=meta["step"],
        source=source,
        losses=losses,
        made_by=json.dumps(about, indent=1),
    )


# -- in


def take_in(folder, out_dir):
    """Write a Hugging Face folder as a checkpoint; returns its folder. Raises UserError where its shape or its
    tokenizer is none that this project has."""
    machine = machines.start("cpu", "fp32")
    if checkpoint.saved(out_dir):
        raise UserError(f"{out_dir} already holds checkpoints: choose another --out_dir")
    about = read_json(folder / "config.json")
    tokenizer, old_ids = hf_tokenizer.from_json(read_json(folder / "tokenizer.json"))
    _ = tokenizer.eot  # every text begins with it: raises UserError where there is none
    weights = read_weights(folder)
    config = shape_of(about, tokenizer, weights)
    model = Transformer(config)
    try:
        model.load_state_dict(renamed(weights, config, old_ids))
    except (RuntimeError, KeyError, IndexError) as error:
        raise UserError(f"{folder} does not hold the weights that its config.json describes: {error}") from None
    known = folder / "training.json"
    meta = {**(read_json(known) if known.exists() else unknown_training()), "weights_only": True}
    for name in ("model", "tokenizer", "made_by"):
        meta.pop(name, None)
    return checkpoint.save(out_dir, meta.pop("step"), model, [], tokenizer, meta, machine)


def read_json(path):
    """The object in a JSON file. Raises UserError where there is none."""
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path.parent} is no Hugging Face folder: {path.name}: {error}") from None


def read_weights(folder):
    """{name: tensor} of all safetensors files of a folder, fp32. Raises UserError where there are none."""
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            for name, tensor in safetensors.torch.load_file(path).items():
                if not name.endswith("o_proj.bias") or tensor.any():
                    weights[name] = tensor.float()
        except Exception as error:  # safetensors has an error of its own, and raises others
            raise UserError(f"{path} is damaged: {error}") from None
    if not weights:
        raise UserError(f"{folder} holds no .safetensors: save the model with save_pretrained() of transformers")
    return weights


def shape_of(about, tokenizer, weights):
    """The ModelConfig of a config.json. Raises UserError for what this project's model does not have."""
    try:
        return parsed_shape(about, tokenizer, weights)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"its shape does not fit: {error}") from None


def parsed_shape(about, tokenizer, weights):
    """What shape_of() returns. Values of wrong types raise other errors than UserError, which shape_of() explains."""
    if missing := [name for name in ("vocab_size", "hidden_size", "num_attention_heads") if not about.get(name)]:
        raise UserError(f"its config.json does not say its {', '.join(missing)}")
    kind = about.get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError(f"its model_type is {kind!r}: only {', '.join(ARCHITECTURES)} come in")
    size, n_head = about.get("head_dim"), about["num_attention_heads"]
    biases = {name for name in weights if name.endswith(".bias")}
    of_qkv = {name for name in biases if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj")}
    refused = {
        "sliding windows": bool(about.get("use_sliding_window")),
        "another activation than silu": about.get("hidden_act", "silu") != "silu",
        "a bias elsewhere than on q, k and v": biases != of_qkv,
        "heads whose size is not hidden_size / num_attention_heads": size and size * n_head != about["hidden_size"],
    }
    for what, is_so in refused.items():
        if is_so:
            raise UserError(f"it has {what}, which this project's model does not have")
    numbers = {ours: about[theirs] for ours, theirs in NAMES.items() if about.get(theirs) is not None}
    numbers["vocab_size"] = -(-max(tokenizer.vocab_size, about["vocab_size"]) // 64) * 64
    numbers.setdefault("n_kv_head", numbers["n_head"])
    numbers.setdefault("tie_embeddings", False)
    numbers |= rope_of(about)
    return ModelConfig(**numbers, qkv_bias=bool(of_qkv), qk_norm=kind == "qwen3")


def rope_of(about):
    """The fields of a ModelConfig that are about rotary positions, of a config.json. Raises UserError for a way to
    stretch them that rope.py does not have."""
    said = about.get("rope_parameters") or about.get("rope_scaling") or {}
    scaling = said.get("rope_type", said.get("type", "default"))
    base = {"rope_base": said.get("rope_theta") or about.get("rope_theta") or 10000.0}
    if scaling == "default":
        return base
    unusual = [key for key, usual in YARN.items() if said.get(key) not in (None, usual)]
    if scaling not in ("linear", "yarn") or unusual:
        its = f"a {' and a '.join(unusual)} of its own" if unusual else f"a rope_type of {scaling}"
        raise UserError(f"it has {its}, which this project's model does not have")
    factor, length = float(said["factor"]), about["max_position_embeddings"]
    trained = length if scaling == "yarn" else round(length / factor)  # where it is not said, as transformers sees it
    trained = said.get("original_max_position_embeddings") or trained
    return {**base, "rope_scaling": scaling, "rope_factor": factor, "rope_trained": trained}


def renamed(weights, config, old_ids):
    """The weights under this project's names, the rows of the vocabulary in its order, padded with zeros."""
    found = {}
    for name, tensor in weights.items():
        name = name.removeprefix(PREFIX)
        if name.startswith(("embed_tokens.", "lm_head.")):
            left = sorted(set(range(len(tensor))) - set(old_ids))  # rows that no token has
            rows = tensor[torch.tensor([*old_ids, *left])]
            tensor = torch.cat([rows, rows.new_zeros(config.vocab_size - len(rows), rows.shape[1])])
        found[name] = tensor
    if config.tie_embeddings:  # else a head that is missing is told as any other weight
        found["lm_head.weight"] = found["embed_tokens.weight"]
    return found


def unknown_training():
    """What a checkpoint says of its training, for weights from elsewhere: the settings of pretrain.py, and no step."""
    settings = asdict(pretrain.Settings())
    for field in fields(ModelConfig):
        settings.pop(field.name, None)
    settings["decay_shape"] = settings["decay_shape"] or "linear"
    schedule = Schedule(settings["lr"], settings["max_steps"], 0, 0, settings["decay_shape"], 0.0)
    empty = {"metrics": {}, "data": [], "data_ahead": 0, "rows_read": {}, "read_before": {}}
    return {"step": 0, "tokens": 0, "settings": settings, "schedule": asdict(schedule), **empty}


if __name__ == "__main__":
    configurator.run(main, Settings)
