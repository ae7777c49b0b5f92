"""A checkpoint writes: it completes, chats, or fills a gap.

python sample.py --prompt="def fibonacci(n):"
python sample.py --prompt="def area(r):" --suffix="return result"         fills the gap between
python sample.py --prompt="Write a function that adds 1 to x." --chat     a tuned model
"""

import codecs
import sys
import time
from dataclasses import dataclass

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
    prompt: Text = "def"  # what to continue; with --suffix the text before the gap, with --chat the user's message
    suffix: Text = ""  # text after a gap to fill, for a model that was trained on gaps (the demo's was not)
    chat: bool = False  # render the prompt with the chat template
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
    if not settings.temperature >= 0 or not 0 < settings.top_p <= 1 or settings.top_k < 0 or settings.seed < 0:
        raise UserError("needed: temperature >= 0, 0 < top_p <= 1, top_k >= 0, seed >= 0")
    if settings.num_samples < 1 or settings.max_new_tokens < 1:
        raise UserError("num_samples and max_new_tokens must be at least 1")
    if settings.suffix and settings.chat:
        raise UserError("--suffix asks for the text of a gap and --chat for an answer: give one of them")
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, _ = checkpoint.load_model(settings.checkpoint, machine)
    if settings.suffix:
        prompt = tokenizer.render_gap(settings.prompt, settings.suffix)
    else:
        prompt = prompt_ids(tokenizer, settings.prompt, settings.chat)
    before = "" if settings.chat else settings.prompt  # what is shown in front of a completion
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two parts

    def show(new_bytes):
        """Print bytes as soon as they make whole characters."""
        print(decoder.decode(new_bytes), end="", flush=True)

    alone = settings.num_samples == 1
    if alone:
        print(before, end="", flush=True)
    prompts, seeds = [prompt] * settings.num_samples, range(settings.seed, settings.seed + settings.num_samples)
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    stop = [settings.stop.replace("\\n", "\n").replace("\\t", "\t")] if settings.stop else []
    options = dict(seeds=seeds, stop=stop, on_bytes=show if alone else None)
    start = time.perf_counter()
    completions = generate(model, tokenizer, prompts, settings.max_new_tokens, sampling, **options)
    seconds = time.perf_counter() - start
    if alone:
        print(settings.suffix)
    else:
        for i, completion in enumerate(completions):
            print(f"--- sample {i}, seed {settings.seed + i}, ended by {completion.reason}")
            print(before + completion.text + settings.suffix)
    n_tokens = sum(len(completion.ids) for completion in completions)
    print(f"{n_tokens} tokens in {seconds:.1f} s, {n_tokens / seconds:.0f} tok/s", file=sys.stderr)


if __name__ == "__main__":
    configurator.run(main, Settings)
