"""Prompts -> text. Many prompts go through the model in one batch, and since a cache keeps the keys and values of the
tokens so far, a new token costs one position instead of the whole text. A text that has ended makes room for the next
prompt:

    step         0        1    2    3        4    5
    row 0    a b c d e    f    g    h        i    j
    row 1    k l          m    <|endoftext|>
    row 1                           n o p    q    r
"""

import collections
from dataclasses import dataclass, field

import numpy as np
import torch

from configurator import UserError
from model import KVCache


@dataclass(frozen=True)
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
    end: int | None = None  # the stop token behind them, where one has ended it
    # of the new tokens and the stop token, at temperature 1, where they are asked for
    logprobs: list[float] = field(default_factory=list)


class Row:
    """One prompt's completion in the making.

    A stop string may begin in one token and end in a later one. So the newest bytes, one fewer than the longest stop
    string has, are held back from on_bytes until it is clear whether a stop string begins in them:

        stop string  "\\ndef"          text so far  return x\\nd
                                       shown        ^^^^^^^
                                       held back           ^^^^    three bytes: "\\nd" may become "\\ndef"
    """

    def __init__(self, tokenizer, prompt, stop, stop_ids, limit, seed, on_bytes, on_end, sampling):
        self.prompt, self.draws = prompt, np.random.default_rng(seed).random(limit)  # one for each token
        self.sampling, self.on_logits = sampling, None  # on_logits(logits, token): what may look at each choice
        self.keeps_logprobs, self.logprobs, self.end = False, [], None
        self.token_bytes, self.stop_ids, self.limit = tokenizer.token_bytes, stop_ids, limit
        self.on_bytes, self.on_end = on_bytes, on_end
        self.stop = [text.encode() for text in stop]
        self.held_back = max(map(len, self.stop), default=1) - 1
        self.last = prompt[-1]  # the newest token, which the model sees next
        self.ids, self.data, self.n_shown = [], bytearray(), 0
        self.reason = "length" if limit < 1 else None  # why the row has ended

    def add(self, token):
        """Append a token, or end the row; hand on_bytes the bytes that are certain now."""
        self.last = token
        if token in self.stop_ids:
            self.reason, self.end = "stop", token
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
        if self.reason and self.on_end:
            self.on_end()


def generate(
    model,
    tokenizer,
    prompts,
    max_new_tokens,
    sampling=Sampling(),
    seeds=None,
    stops=None,
    stop_ids=None,
    on_bytes=None,
    on_end=None,
    batch_size=64,
    keep_logprobs=False,
    on_step=None,
) -> list[Completion]:
    """Continue each of prompts (lists of ids, not empty) by up to max_new_tokens, or to the end of the context; at most
    batch_size at a time.

    Prompt i draws with seeds[i], a number or a tuple of numbers (by default i), so that it comes out the same in any
    batch but for rounding, which in bf16 can change a token and all behind it. It ends at a token of stop_ids (by
    default <|endoftext|> and <|im_end|>), or where its text contains a string of stops[i], if given.
    on_bytes, for a single prompt, is called with the new bytes as its text grows; on_end whenever a text ends; on_step
    before every step, and what it raises ends the writing. Raises UserError for a prompt that fills the context.
    """
    block_size, longest = model.config.block_size, max(map(len, prompts), default=1)
    if longest >= block_size or not all(prompts):
        raise UserError(f"a prompt must have 1 to {block_size - 1} tokens, the model's context, not {longest}")
    if stop_ids is None:
        ends = ("<|endoftext|>", "<|im_end|>")
        stop_ids = {tokenizer.token_id(name) for name in ends if name in tokenizer.special}
    texts = []
    for prompt, stop, seed in zip(prompts, stops or [()] * len(prompts), seeds or range(len(prompts)), strict=True):
        limit = min(max_new_tokens, block_size - len(prompt))
        texts.append(Row(tokenizer, prompt, stop, stop_ids, limit, seed, on_bytes, on_end, sampling))
        texts[-1].keeps_logprobs = keep_logprobs
    waiting = collections.deque(text for text in texts if not text.reason)
    rows = [None] * min(batch_size, len(waiting))  # the texts in the cache
    cache = KVCache(model, len(rows), max((len(row.prompt) + row.limit for row in waiting), default=1))
    while True:
        if on_step:
            on_step()
        free = [n for n, row in enumerate(rows) if row is None or row.reason]
        if waiting and len(free) >= len(rows) / 8:  # one by one they would take longer
            new = free[: len(waiting)]
            for n in new:
                rows[n] = waiting.popleft()
            begin(model, tokenizer, cache, rows, new)
        elif len(free) == len(rows):
            break
        else:
            if len(free) > len(rows) / 4:
                kept = [n for n in range(len(rows)) if n not in free]
                rows = [rows[n] for n in kept]
                cache.keep(kept)
            go_on(model, tokenizer, cache, rows, range(len(rows)))
    written = []
    for row in texts:
        written.append(Completion(row.ids, row.data.decode("utf-8", "replace"), row.reason, row.end, row.logprobs))
    return written


def begin(model, tokenizer, cache, rows, new):
    """The first token of the rows with these numbers. A prompt that several of them have is read once."""
    reader = {}  # prompt: the row that reads it
    for n in new:
        reader.setdefault(tuple(rows[n].prompt), n)
    readers, lengths = list(reader.values()), list(map(len, reader))
    ids = torch.full((len(readers), max(lengths)), tokenizer.eot)
    for i, prompt in enumerate(reader):
        ids[i, : lengths[i]] = torch.tensor(prompt)
        cache.lengths[readers[i]] = 0
    logits = model.extend(ids.to(cache.device), cache, readers, lengths)
    if len(readers) < len(new):
        sources = [reader[tuple(rows[n].prompt)] for n in new]
        cache.copy(sources, new)
        logits = logits[[readers.index(n) for n in sources]]
    add_tokens(logits, tokenizer, [rows[n] for n in new])


def go_on(model, tokenizer, cache, rows, numbers):
    """The next token of the rows with these numbers. Those that have ended are computed along, and stay as they are."""
    chosen = [rows[n] for n in numbers]
    ids = torch.tensor([[row.last] for row in chosen], device=cache.device)
    logits = model.extend(ids, cache, numbers, [0 if row.reason else 1 for row in chosen])
    going = [n for n, row in enumerate(chosen) if not row.reason]
    add_tokens(logits[going], tokenizer, [chosen[n] for n in going])


def add_tokens(logits, tokenizer, rows):
    """Draw a token for each row of logits, and append it."""
    all_logits = logits.float()
    logits = all_logits[:, : tokenizer.vocab_size]  # the model's vocabulary may be padded
    alike = {}  # rows that draw in the same way
    for n, row in enumerate(rows):
        alike.setdefault(row.sampling, []).append(n)
    for sampling, numbers in alike.items():
        draws = np.array([rows[n].draws[len(rows[n].ids)] for n in numbers])
        tokens = pick(logits[numbers], sampling, draws)
        logprobs = [None] * len(numbers)
        if any(rows[n].keeps_logprobs for n in numbers):
            # Over the padding too, as the loss has them: what learns from its own texts compares the two.
            logprobs = all_logits[numbers].log_softmax(-1).gather(1, tokens[:, None].to(logits.device))[:, 0].tolist()
        for n, token, logprob in zip(numbers, tokens.tolist(), logprobs):
            if rows[n].on_logits:
                rows[n].on_logits(logits[n], token)
            if rows[n].keeps_logprobs:
                rows[n].logprobs.append(logprob)
            rows[n].add(token)


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
    p, order = torch.softmax(logits.double() / sampling.temperature, -1), None
    if sampling.top_k or sampling.top_p < 1:  # sorting takes most of the time here
        p, order = p.sort(dim=-1, descending=True, stable=True)
        if sampling.top_k:
            p[:, sampling.top_k :] = 0
        p /= p.sum(-1, keepdim=True)
        p[p.cumsum(-1) - p >= sampling.top_p] = 0  # where the likelier tokens hold top_p already; the likeliest stays
    # Every token has an interval on the line of cumulative sums. A draw, a share of the line, falls into one of them:
    #     0 |---- token 0 ----|-- token 1 --|- token 2 -| reached[-1]
    reached = p.cumsum(-1)
    target = torch.from_numpy(draws).to(p.device)[:, None] * reached[:, -1:]
    place = (reached <= target).sum(-1, keepdim=True).clamp(max=p.shape[1] - 1)
    return (place if order is None else order.gather(-1, place))[:, 0]
