"""LoRA (arXiv:2106.09685): a matrix W stays as it is, and the product of two narrow ones is learnt beside it.

    y = x W^T + scale (x A^T) B^T        W (out, in), A (rank, in), B (out, rank); B begins as 0, and so does the change

A matrix of n x n numbers then has 2 n rank of them to train: gradients and the optimizer's state are as much smaller.
Of the embeddings, and of the head, the rows of special tokens are trained too: a model that has never seen a chat has
all such tokens nearly in one place, and without rows of their own it could hardly say which of them ends an answer.
In a checkpoint they lie in a file of their own, adapters.pt, which is small enough to be handed on: put into a copy of
the checkpoint that was tuned, it makes the tuned model of it. Every other stage reads W + scale B A.
"""

import math

import torch
from torch import nn

from configurator import UserError

NAMES = ("lora_a", "lora_b", "lora_scale")  # of what an adapted matrix has beside its weight
ROWS = ("lora_rows", "lora_tokens")  # of what embeddings and head have: what is added to the rows of these tokens
FASTER = 3  # how many times the learning rate of all weights suits adapters best (experiments/README.md)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_adapters(model, rank, alpha, by_root, targets, embeddings=False, tokens=()):
    """Give those matrices of every block whose names are in targets an adapter, and let nothing else be trained.

    alpha: scale is alpha / rank, or, by_root, alpha / sqrt(rank), with which a larger rank does not learn more slowly
    (rsLoRA, arXiv:2312.03732). embeddings: train the embeddings and all norms too, without which adapters hardly get
    used to a longer context (LongLoRA, arXiv:2309.12307). tokens: ids whose rows of embeddings and head are trained.
    Raises UserError for a target that no block has."""
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise UserError(f"lora_targets are some of {', '.join(TARGETS)}, not {', '.join(unknown) or 'none'}")
    for name, p in model.named_parameters():
        p.requires_grad_(embeddings and ("embed_tokens" in name or "norm" in name))
    for name, linear in model.layers.named_modules():
        if name.rpartition(".")[2] in targets:
            weight = linear.weight
            a, b = weight.new_empty(rank, weight.shape[1]), weight.new_zeros(weight.shape[0], rank)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            linear.lora_a, linear.lora_b = nn.Parameter(a), nn.Parameter(b)
            scale = alpha / (math.sqrt(rank) if by_root else rank)
            linear.register_buffer("lora_scale", torch.tensor(scale, device=weight.device))
    if tokens:
        add_rows(model, torch.tensor(sorted(tokens)))


def add_rows(model, tokens):
    """Let the rows of these tokens be trained, in embeddings and head that are not trained as a whole: what is added to
    them, which begins as 0. Where both are one table, so is what is added."""
    rows = {}
    for layer in (model.embed_tokens, model.lm_head):
        if not layer.weight.requires_grad:
            if layer.weight not in rows:
                rows[layer.weight] = nn.Parameter(layer.weight.new_zeros(len(tokens), layer.weight.shape[1]))
            layer.lora_rows = rows[layer.weight]
            layer.register_buffer("lora_tokens", tokens.to(layer.weight.device))


def stored_apart(model):
    """(what model.pt holds, what adapters.pt holds) of a model's state_dict(): the second is all that is trained, and
    empty where the model has no adapters."""
    weights = model.state_dict()
    if not any(name.endswith(NAMES) for name in weights):
        return weights, {}
    beside = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    beside |= {name for name, _ in model.named_buffers(remove_duplicate=False)}  # scales, and ids of special tokens
    adapters = {name: weights[name] for name in weights if name in beside}
    return {name: weights[name] for name in weights if name not in adapters}, adapters


def merged(weights):
    """The weights of a checkpoint with its adapters added to the matrices that they are for."""
    adapted = [name.removesuffix(NAMES[0]) for name in weights if name.endswith(NAMES[0])]
    for stem in adapted:
        a, b, scale = (weights.pop(stem + name) for name in NAMES)
        weights[f"{stem}weight"] = weights[f"{stem}weight"] + scale * b @ a
    for stem in [name.removesuffix(ROWS[0]) for name in weights if name.endswith(ROWS[0])]:
        rows, tokens = (weights.pop(stem + name) for name in ROWS)
        weights[f"{stem}weight"] = weights[f"{stem}weight"].index_add(0, tokens, rows)
    return weights
