"""How likely a model finds texts: the one forward pass that scores of documents and of choices share."""

import torch

from loss import IGNORE


@torch.no_grad()
def nats(model, filler, rows):
    """-log P of what stands behind the prompt, for each of some (ids, how many of them are the prompt), in one batch.
    filler: the id that fills up short rows, which no score depends on."""
    device, longest = model.embed_tokens.weight.device, max(len(ids) for ids, _ in rows)
    inputs = torch.full((len(rows), longest - 1), filler, device=device)
    targets = torch.full((len(rows), longest - 1), IGNORE, device=device)
    for i, (ids, n_prompt) in enumerate(rows):
        inputs[i, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[i, n_prompt - 1 : len(ids) - 1] = torch.tensor(ids[n_prompt:])
    losses = model(inputs, targets, reduction="none").cpu().double()  # one per token; Apple's GPUs have no float64
    return losses.view(len(rows), -1).sum(1).tolist()
