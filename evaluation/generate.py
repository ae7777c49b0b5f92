"""Decoding: many prompts of different length in one batch, each token costing one position (KV cache)."""

from dataclasses import dataclass

import numpy as np
import torch

from configurator import UserError
from model import KVCache


@dataclass
class Completion:
    ids: list[int]  # the new tokens, the one that ended the row left out
    text: str  # their text, cut before the stop string
    reason: str  # why it ended: "stop" (a stop token or string) or "length"


class Row:
    """One prompt's completion in the making."""

    def __init__(self, tokenizer, prompt, stop, stop_ids, limit, on_bytes):
        self.tokenizer, self.stop_ids, self.limit, self.on_bytes = tokenizer, stop_ids, limit, on_bytes
        self.stop = [s.encode() for s in stop]
        self.held_back = max(map(len, self.stop), default=1) - 1  # bytes that may be the beginning of a stop string
        self.last = prompt[-1]
        self.ids, self.data, self.shown = [], bytearray(), 0
        self.reason = "length" if limit < 1 else None

    def add(self, token):
        self.last = token
        if token in self.stop_ids:
            self.reason = "stop"
        else:
            new = self.tokenizer.token_bytes[token]
            searched_from = max(0, len(self.data) - self.held_back)
            self.ids.append(token)
            self.data += new
            ends = [i for s in self.stop if (i := self.data.find(s, searched_from)) >= 0]
            if ends:
                self.data, self.reason = self.data[: min(ends)], "stop"
            elif len(self.ids) >= self.limit:
                self.reason = "length"
        safe = len(self.data) if self.reason else max(self.shown, len(self.data) - self.held_back)
        if self.on_bytes and safe > self.shown:
            self.on_bytes(bytes(self.data[self.shown : safe]))
        self.shown = max(self.shown, safe)

    def completion(self):
        return Completion(self.ids, self.data.decode("utf-8", "replace"), self.reason)


@torch.no_grad()
def generate(
    model,
    tokenizer,
    prompts,
    max_new_tokens,
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    stop=(),
    stop_ids=None,
    seed=0,
    on_bytes=None,
) -> list[Completion]:
    """Complete each of prompts (lists of ids, not empty) by up to max_new_tokens, or to the end of the context.

    temperature 0 takes the likeliest token; otherwise tokens are drawn from the top_k likeliest (0 = all), of these from
    the fewest that hold the share top_p. Row i draws from seed + i alone, or from seed[i] where seed is a list, so it
    comes out the same in any batch.
    A row ends at one of stop_ids (by default <|endoftext|> and <|im_end|>) or when its text holds a string of stop.
    on_bytes(new bytes) is called as the text of a single prompt grows. Raises UserError for a prompt that fills the context.
    """
    if not prompts:
        return []
    config, device = model.config, model.embed_tokens.weight.device
    stop_ids = {tokenizer.eot, tokenizer.special["<|im_end|>"]} if stop_ids is None else set(stop_ids)
    longest = max(map(len, prompts))
    if longest >= config.block_size or not all(prompts):
        raise UserError(
            f"a prompt must have 1 to {config.block_size - 1} tokens, the context that the model was trained with, not {longest}"
        )
    rows = [
        Row(tokenizer, p, stop, stop_ids, min(max_new_tokens, config.block_size - len(p)), on_bytes) for p in prompts
    ]
    seeds = seed if isinstance(seed, list) else range(seed, seed + len(prompts))
    draws = np.stack([np.random.default_rng(n).random(max_new_tokens + 1) for n in seeds])
    start = torch.tensor([longest - len(p) for p in prompts], device=device)
    cache = KVCache(config, start, longest + max_new_tokens, model.embed_tokens.weight.dtype)
    ids = torch.tensor(
        [[tokenizer.eot] * (longest - len(p)) + list(p) for p in prompts], device=device
    )  # padded at the left
    for step in range(max_new_tokens):
        logits = model(ids, cache=cache)[:, -1, : tokenizer.vocab_size].float()
        chosen = pick(logits, temperature, top_k, top_p, draws[:, step]).tolist()
        for row, token in zip(rows, chosen):
            if row.reason is None:
                row.add(token)
        if all(row.reason for row in rows):
            break
        ids = torch.tensor([[row.last] for row in rows], device=device)
    return [row.completion() for row in rows]


def pick(logits, temperature, top_k, top_p, draws):
    """One token per row of logits (B, vocab_size); draws (B,) are uniform in [0, 1)."""
    if temperature == 0:
        return logits.argmax(-1)
    p, order = torch.softmax(logits.double() / temperature, -1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        p[:, top_k:] = 0
    p /= p.sum(-1, keepdim=True)
    p[p.cumsum(-1) - p >= top_p] = 0  # what lies wholly above the share top_p; the likeliest always stays
    reached = p.cumsum(-1)
    target = torch.from_numpy(draws).to(p.device)[:, None] * reached[:, -1:]
    place = (reached <= target).sum(-1, keepdim=True).clamp(max=p.shape[1] - 1)
    return order.gather(-1, place)[:, 0]
