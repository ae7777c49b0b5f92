"""A checkpoint writes: it completes, chats, or fills a gap.

python sample.py --prompt="def fibonacci(n):"
python sample.py --prompt="def area(r):" --suffix="return result"     (a model trained with fill-in-the-middle)
python sample.py --prompt="Write a function that adds two numbers." --chat    (a tuned model)
"""

import codecs
import sys
import time
from dataclasses import dataclass

import torch

import configurator
from configurator import UserError
from evaluation.generate import generate
from training import checkpoint


@dataclass
class Settings:
    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    prompt: str = "def "  # what to continue; with --suffix the text before the gap, with --chat the user's message
    suffix: str = ""  # text after a gap to fill
    chat: bool = False  # render the prompt with the chat template
    num_samples: int = 1  # completions, made in one batch; a single one is shown as it grows
    max_new_tokens: int = 200  # tokens to write at most
    temperature: float = 0.8  # 0 = always the likeliest token
    top_k: int = 0  # draw from this many likeliest tokens; 0 = all
    top_p: float = 0.95  # draw from the fewest tokens that hold this share of the probability
    stop: str = ""  # end at this text; \n and \t are understood
    seed: int = 0  # sample i draws from seed + i
    device: str = "cpu"  # cpu or cuda


def main(s):
    if s.temperature < 0 or not 0 < s.top_p <= 1 or s.top_k < 0 or s.num_samples < 1 or s.max_new_tokens < 1:
        raise UserError("needed: temperature >= 0, 0 < top_p <= 1, top_k >= 0, num_samples >= 1, max_new_tokens >= 1")
    if s.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={s.device}, but this PyTorch sees no GPU")
    model, tokenizer, _ = checkpoint.load_model(s.checkpoint, s.device)
    model.eval().to(torch.float32 if s.device == "cpu" else torch.bfloat16)
    if s.chat:
        request = [{"role": "user", "content": s.prompt}]
        prompt = [tokenizer.eot, *tokenizer.render(request, generation_prompt=True)[0]]
    elif s.suffix:
        prompt = tokenizer.render_gap(s.prompt, s.suffix)
    else:
        prompt = [tokenizer.eot, *tokenizer.encode(s.prompt)]  # every document begins with <|endoftext|>
    start = time.perf_counter()
    show_prompt = "" if s.chat else s.prompt
    stream = codecs.getincrementaldecoder("utf-8")("replace")
    if s.num_samples == 1:
        print(show_prompt, end="", flush=True)
    completions = generate(
        model,
        tokenizer,
        [prompt] * s.num_samples,
        s.max_new_tokens,
        s.temperature,
        s.top_k,
        s.top_p,
        stop=[s.stop.replace("\\n", "\n").replace("\\t", "\t")] if s.stop else [],
        seed=s.seed,
        on_bytes=(lambda b: print(stream.decode(b), end="", flush=True)) if s.num_samples == 1 else None,
    )
    if s.num_samples == 1:
        print(s.suffix)
    else:
        for i, completion in enumerate(completions):
            print(
                f"--- sample {i}, seed {s.seed + i}, ended by {completion.reason}\n{show_prompt}{completion.text}{s.suffix}"
            )
    n, seconds = sum(len(c.ids) for c in completions), time.perf_counter() - start
    print(f"{n} tokens in {seconds:.1f} s, {n / seconds:.0f} tok/s", file=sys.stderr)


if __name__ == "__main__":
    configurator.run(main, Settings)
