"""Prompts -> text. Prompts of different lengths go through the model in one batch, and since a KV cache keeps the keys
and values of the positions so far, a new token costs one position instead of the whole row.

Shorter prompts are padded at the left, so that all end in the same column, whose logits give every row's next token:

    column       0      1      2      3      4   |   5    6
    row 0        a      b      c      d      e   |   f    g      position = column
    row 1      <eot>  <eot>  <eot>    h      i   |   j    k      position = column - 3; the padding is never looked at
                                                     ^ new tokens, one column a step
"""

from dataclasses import dataclass

import numpy as np
import torch

from configurator import UserError
from model import KVCache


@dataclass
class Sampling:
    """How the next token is drawn: from the top_k likeliest, and of these from the fewest whose probabilities sum up to
    top_p (nucleus sampling, arXiv:1904.09751)."""

    temperature: float = 0.0  # logits are divided by it; 0 = always the likeliest token
    top_k: int = 0  # 0 = all
    top_p: float = 1.0  # 1 = all


@dataclass
class Completion:
    """What the model wrote behind a prompt."""

    ids: list[int]  # the new tokens, without a stop token
    text: str  # the text of these tokens, cut before a stop string
    reason: str  # why it ended: "stop" (a stop token or string) or "length"


class Row:
    """One prompt's completion in the making.

    A stop string may begin in one token and end in a later one. So the newest bytes, one fewer than the longest stop
    string has, are held back from on_bytes until it is clear whether a stop string begins in them:

        stop string  "\\ndef"          text so far  return x\\nd
                                       shown        ^^^^^^^
                                       held back           ^^^^    three bytes: "\\nd" may become "\\ndef"
    """

    def __init__(self, tokenizer, prompt, stop, stop_ids, limit, on_bytes):
        self.token_bytes, self.stop_ids, self.limit, self.on_bytes = tokenizer.token_bytes, stop_ids, limit, on_bytes
        self.stop = [text.encode() for text in stop]
        self.held_back = max(map(len, self.stop), default=1) - 1
        self.last = prompt[-1]  # the newest token, which the model sees next
        self.ids, self.data, self.n_shown = [], bytearray(), 0
        self.reason = "length" if limit < 1 else None  # why the row has ended

    def add(self, token):
        """Append a token, or end the row; hand on_bytes the bytes that are certain now."""
        self.last = token
        if token in self.stop_ids:
            self.reason = "stop"
        else:
            searched_from = max(0, len(self.data) - self.held_back)
            self.ids.append(token)
            self.data += self.token_bytes[token]
            found = [self.data.find(text, searched_from) for text in self.stop]
            ends = [place for place in found if place >= 0]
            if ends:
                self.data, self.reason = self.data[: min(ends)], "stop"
            elif len(self.ids) >= self.limit:
                self.reason = "length"
        certain = len(self.data) if self.reason else len(self.data) - self.held_back
        if self.on_bytes and certain > self.n_shown:
            self.on_bytes(bytes(self.data[self.n_shown : certain]))
            self.n_shown = certain


@torch.no_grad()
def generate(
    model, tokenizer, prompts, max_new_tokens, sampling=Sampling(), seeds=None, stops=None, stop_ids=None, on_bytes=None
) -> list[Completion]:
    """Continue each of prompts (lists of ids, not empty) by up to max_new_tokens, or to the end of the context.

    Row i draws with the seed seeds[i] (by default i), so that it comes out the same in any batch. It ends at a token of
    stop_ids (by default <|endoftext|> and <|im_end|>), or where its text contains a string of stops[i], if given.
    on_bytes, for a single prompt, is called with the new bytes as its text grows. Raises UserError for a prompt that
    fills the context.
    """
    if not prompts:
        return []
    block_size, device = model.config.block_size, model.embed_tokens.weight.device
    longest = max(map(len, prompts))
    if longest >= block_size or not all(prompts):
        raise UserError(f"a prompt must have 1 to {block_size - 1} tokens, the model's context, not {longest}")
    if stop_ids is None:
        ends = ("<|endoftext|>", "<|im_end|>")
        stop_ids = {tokenizer.token_id(name) for name in ends if name in tokenizer.special}
    rows = []
    for prompt, stop in zip(prompts, stops or [()] * len(prompts), strict=True):
        limit = min(max_new_tokens, block_size - len(prompt))
        rows.append(Row(tokenizer, prompt, stop, stop_ids, limit, on_bytes))

    # Every row has random numbers of its own, one for each step.
    seeds = range(len(prompts)) if seeds is None else seeds
    n_steps = max(row.limit for row in rows)
    draws = np.stack([np.random.default_rng(seed).random(max(1, n_steps)) for seed in seeds])

    n_padding = [longest - len(prompt) for prompt in prompts]
    ids = [[tokenizer.eot] * n + list(prompt) for n, prompt in zip(n_padding, prompts)]
    ids = torch.tensor(ids, device=device)  # (B, longest) in the first step, then (B, 1)
    start = torch.tensor(n_padding, device=device)
    cache = KVCache(model.config, start, longest + n_steps, model.dtype)
    for step in range(n_steps):
        logits = model(ids, cache=cache)[:, -1, : tokenizer.vocab_size]  # the model's vocabulary may be padded
        chosen = pick(logits.float(), sampling, draws[:, step])
        for row, token in zip(rows, chosen.tolist()):
            if row.reason is None:
                row.add(token)
        if all(row.reason for row in rows):
            break
        ids = torch.tensor([[row.last] for row in rows], device=device)
    return [Completion(row.ids, row.data.decode("utf-8", "replace"), row.reason) for row in rows]


def prompt_ids(tokenizer, text, chat=False, suffix=""):
    """Ids of a prompt as the model saw it in training: a user's message in a chat, or the beginning of a document; with
    a suffix, a document with a gap."""
    if suffix:
        return [tokenizer.eot, *tokenizer.render_gap(text, suffix)]
    if not chat:
        return [tokenizer.eot, *tokenizer.encode(text)]  # <|endoftext|> opens every document
    ids, _ = tokenizer.render([{"role": "user", "content": text}], generation_prompt=True)
    return [tokenizer.eot, *ids]


def pick(logits, sampling, draws):
    """One token per row of logits (B, vocab_size); draws (B,) are uniform in [0, 1)."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    if logits.device.type == "mps":
        logits = logits.cpu()  # Apple's GPUs have no float64
    probabilities = torch.softmax(logits.double() / sampling.temperature, -1)
    p, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        p[:, sampling.top_k :] = 0
    p /= p.sum(-1, keepdim=True)
    p[p.cumsum(-1) - p >= sampling.top_p] = 0  # where the likelier tokens hold top_p already; the likeliest stays
    # Every token has an interval on the line of cumulative sums. A draw, a share of the line, falls into one of them:
    #     0 |---- token 0 ----|-- token 1 --|- token 2 -| reached[-1]
    reached = p.cumsum(-1)
    target = torch.from_numpy(draws).to(p.device)[:, None] * reached[:, -1:]
    place = (reached <= target).sum(-1, keepdim=True).clamp(max=p.shape[1] - 1)
    return order.gather(-1, place)[:, 0]
