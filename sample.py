"""A checkpoint writes: it completes, chats, or fills a gap.

python sample.py --prompt="def fibonacci(n):"
python sample.py --prompt="def area(r):" --suffix="return result"    the gap
python sample.py --checkpoint=out/sft --chat --prompt="Write a function."    asks a tuned model
python sample.py --checkpoint=out/sft --chat    a conversation, line by line
"""

import codecs
import sys
import time
from dataclasses import dataclass
from functools import partial

import configurator
from configurator import UserError
from evaluation.generate import Sampling, generate, prompt_ids
from ranges import Context, Device, Natural, NotNegative, Precision, Seed, ShareAbove0, SmallCount, Text
from training import checkpoint
from training import machine as machines


@dataclass
class Settings:
    """What to write, and how."""

    # -- what to write
    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    # what to continue; with --suffix the text before the gap; with --chat a message; auto = a new text, or conversation
    prompt: Text | None = None
    suffix: Text = ""  # text after a gap to fill, for a model that was trained on gaps (prepare_data.py --fim_rate)
    chat: bool = False  # answer the prompt as a message; without one, every line that is typed, until Ctrl-D
    num_samples: SmallCount = 1  # completions, made in one batch; a single one is shown as it grows
    max_new_tokens: Context = 200  # tokens to write at most
    stop: Text = ""  # end at this text; \n and \t are understood
    # -- how to draw
    temperature: NotNegative = 0.8  # 0 = always the likeliest token
    top_k: Natural = 0  # draw from this many likeliest tokens; 0 = all
    top_p: ShareAbove0 = 0.95  # draw from the fewest tokens that hold this share of the probability
    seed: Seed = 0  # sample i draws from seed + i
    # -- machine
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Write completions on standard output, and on standard error how fast."""
    if settings.suffix and settings.chat:
        raise UserError("--suffix asks for the text of a gap and --chat for an answer: give one of them")
    is_conversation = settings.chat and settings.prompt is None
    if is_conversation and settings.num_samples > 1:
        raise UserError("--chat without a --prompt is a conversation, in which each message has one answer")
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, meta = checkpoint.load_model(settings.checkpoint, machine)
    if settings.chat and not meta.get("chat"):
        print(f"{settings.checkpoint} was not tuned on conversations: its answers will be odd", file=sys.stderr)
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    stop = [settings.stop.replace("\\n", "\n").replace("\\t", "\t")] if settings.stop else []
    stops = [stop] * settings.num_samples
    write = partial(generate, model, tokenizer, max_new_tokens=settings.max_new_tokens, sampling=sampling, stops=stops)
    if is_conversation:
        room = room_for_answer(settings.max_new_tokens, model.config.block_size)
        talk(write, tokenizer, model.config.block_size - room, settings.seed)
    else:
        complete(write, tokenizer, settings)


def complete(write, tokenizer, settings):
    """Continue the prompt, answer it, or fill the gap behind it, once or several times."""
    given = settings.prompt or ""
    prompt = prompt_ids(tokenizer, given, settings.chat, settings.suffix)
    before = "" if settings.chat else given  # what is shown in front of a completion
    show, alone = printer(), settings.num_samples == 1
    if alone:
        print(before, end="", flush=True)
    prompts, seeds = [prompt] * settings.num_samples, range(settings.seed, settings.seed + settings.num_samples)
    start = time.perf_counter()
    completions = write(prompts=prompts, seeds=seeds, on_bytes=show if alone else None)
    seconds = time.perf_counter() - start
    if alone:
        show(b"", final=True)
        print(settings.suffix)
    else:
        for i, completion in enumerate(completions):
            print(f"--- sample {i}, seed {settings.seed + i}, ended by {completion.reason}")
            print(before + completion.text + settings.suffix)
    n_tokens = sum(len(completion.ids) for completion in completions)
    print(f"{n_tokens} tokens in {seconds:.1f} s, {n_tokens / seconds:.0f} tok/s", file=sys.stderr)


def talk(write, tokenizer, most, seed):
    """Answer every line of standard input, with what was said before in sight: up to `most` tokens of it."""
    if sys.stdin is None:
        raise UserError("--chat without a --prompt reads messages from standard input, which is closed")
    if hasattr(sys.stdin, "reconfigure"):  # what is not UTF-8 reaches the tokenizer byte by byte
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    print("A message is one line. /reset forgets the conversation, Ctrl-D ends it.", file=sys.stderr)
    turns = []
    while (message := typed()) is not None:
        if message == "/reset":
            turns = []
            print("(forgotten)", file=sys.stderr)
            continue
        turns, ids, n_dropped = fitting([*turns, {"role": "user", "content": message}], tokenizer, most)
        if n_dropped:
            print(f"({n_dropped} old turns no longer fit into the context and are forgotten)", file=sys.stderr)
        show = printer()
        try:
            (answer,) = write(prompts=[ids], seeds=[seed], on_bytes=show)
        except UserError as error:  # the message alone is longer than the context
            print(f"({error})", file=sys.stderr)
            turns = []
            continue
        show(b"", final=True)
        print()
        if answer.reason == "length":
            print("(cut off at --max_new_tokens or at the end of the context)", file=sys.stderr)
        turns.append({"role": "assistant", "content": answer.text})
        seed += 1


def typed():
    """The next line that is not empty, or None at the end of standard input."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        if line:
            return line


def room_for_answer(max_new_tokens, block_size):
    """Tokens that are kept free for an answer, however much was said before: a quarter of the context at most."""
    return min(max_new_tokens, block_size // 4)


def fitting(turns, tokenizer, most):
    """(turns, ids of the prompt, number of turns dropped): the oldest question and answer go, and the next, until the
    prompt has at most `most` tokens. The newest message always stays."""
    n_dropped = 0
    while True:
        ids, _ = tokenizer.render(turns[n_dropped:], generation_prompt=True)
        ids = [tokenizer.eot, *ids]
        if len(ids) <= most or n_dropped + 1 >= len(turns):
            return turns[n_dropped:], ids, n_dropped
        n_dropped += 2


def printer():
    """show(new_bytes, final): prints bytes as soon as they make whole characters, and at the end what is left."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two parts

    def show(new_bytes, final=False):
        """Print what new_bytes complete."""
        print(decoder.decode(new_bytes, final), end="", flush=True)

    return show


if __name__ == "__main__":
    configurator.run(main, Settings)
