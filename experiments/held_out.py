"""The held-out loss of weights that no run ended with: averages of checkpoints, points on a line between two."""

import torch

from attention import document_form
from model import ModelConfig, Transformer
from tokenizer import Tokenizer
from training import checkpoint
from training.dataloader import PASS_TOKENS, parse_folders
from training.lora import merged
from training.plan import Plan
from training.validation import validate, validation_sets


def weights_of(folder):
    """The weights in a checkpoint folder, {name: tensor}, with LoRA's adapters merged, and without a value head."""
    weights = merged(checkpoint.stored_weights(folder))
    weights.pop("value_head.weight", None)
    return weights


class HeldOut:
    """Validation sets, and a model to put weights into.

    folder: a checkpoint folder, of whose shape, tokenizer and document mask the weights are. machine: a Machine of one
    process. val: shard folders, "a,b". settings: has eval_tokens, validation tokens per folder, 0 = all.
    """

    def __init__(self, folder, machine, val, settings):
        meta = checkpoint.read_meta(folder)
        self.model, self.machine = Transformer(ModelConfig(**meta["model"])).to(machine.device), machine
        self.model.dtype = machine.dtype
        config, self.tokenizer = self.model.config, Tokenizer.load(folder / "tokenizer.json")
        form = document_form(meta["settings"]["doc_mask"], machine.device, machine.dtype, config.head_dim)
        self.plan = Plan(max(1, PASS_TOKENS // config.block_size), form, compiles=False, recompute=False)
        self.sets = validation_sets(parse_folders(val, "val"), settings, config.block_size, self.tokenizer.eot)

    def losses(self, weights):
        """{"val_loss", "val_bpb", "sources": {folder: the same}} of these weights; see validate()."""
        with torch.no_grad():
            self.model.load_state_dict(weights)
        return validate(self.model, self.sets, self.plan, self.machine, self.tokenizer)
