"""LoRA (arXiv:2106.09685): a matrix W stays as it is, and the product of two narrow ones is learnt beside it.

    y = x W^T + scale (x A^T) B^T        W (out, in), A (rank, in), B (out, rank); B begins as 0, and so does the change

A matrix of n x n numbers then has 2 n rank of them to train: gradients and the optimizer's state are as much smaller.
In a checkpoint they lie in a file of their own, adapters.pt, which is small enough to be handed on: put into a copy of
the checkpoint that was tuned, it makes the tuned model of it. Every other stage reads W + scale B A.
"""

import math

import torch
from torch import nn

from configurator import UserError

NAMES = ("lora_a", "lora_b", "lora_scale")  # of what an adapted matrix has beside its weight
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_adapters(model, rank, alpha, by_root, targets, embeddings=False):
    """Give those matrices of every block whose names are in targets an adapter, and let nothing else be trained.

    embeddings: train the embeddings and all norms too, without which adapters hardly get used to a longer context
    (LongLoRA, arXiv:2309.12307).
    alpha: scale is alpha / rank, or, by_root, alpha / sqrt(rank), with which a larger rank does not learn more slowly
    (rsLoRA, arXiv:2312.03732). Raises UserError for a target that no block has."""
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


def stored_apart(model):
    """(what model.pt holds, what adapters.pt holds) of a model's state_dict(): the second is all that is trained, and
    empty where the model has no adapters."""
    weights = model.state_dict()
    if not any(name.endswith(NAMES) for name in weights):
        return weights, {}
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    adapters = {name: weights[name] for name in weights if name in trained or name.endswith("lora_scale")}
    return {name: weights[name] for name in weights if name not in adapters}, adapters


def merged(weights):
    """The weights of a checkpoint with its adapters added to the matrices that they are for."""
    adapted = [name.removesuffix(NAMES[0]) for name in weights if name.endswith(NAMES[0])]
    for stem in adapted:
        a, b, scale = (weights.pop(stem + name) for name in NAMES)
        weights[f"{stem}weight"] = weights[f"{stem}weight"] + scale * b @ a
    return weights
