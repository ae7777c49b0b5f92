"""What a model can do while it is still being trained: a sample of its writing and pass@1, at every evaluation.

progress = Progress(settings.sample, settings.problems, tokenizer, chat=False)    before the first step
metrics |= progress.of(model, machine)        {"sample": "def add(...", "pass@1": 0.12}
"""

import contextlib

from cores import n_cores
from endings import UserError
from evaluation import sandbox
from evaluation.generate import generate, prompt_ids
from evaluation.problems import MBPP_VALIDATION, read_problems
from evaluation.replies import code_in
from evaluation.verdicts import modes
from training.machine import SignalCame

BATCH_SIZE, MAX_NEW_TOKENS = 16, 256  # small, since training has most of the memory


class Progress:
    """What to ask. sample: a prompt to continue, or ""; problems: a file of problems, or ""; chat: whether to ask as in
    a conversation. Raises UserError for a file that holds no problems, or in a conversation, gaps to fill."""

    def __init__(self, sample, problems, tokenizer, chat):
        self.tokenizer, self.chat = tokenizer, chat
        self.sample = prompt_ids(tokenizer, sample, chat) if sample else None
        # Every process reads them, and how many there are is said with the score.
        found = read_problems(problems, MBPP_VALIDATION, say=lambda line: None) if problems else {}
        self.problems = list(found.values())
        self.prompts, self.mode_of = [], None  # how a problem is judged is found out when it is asked first
        self.answers = {}  # {task_id: [what the model wrote when it was asked last, whether it passed]}
        for problem in self.problems:
            self.prompts.append(prompt_ids(tokenizer, problem.asked(chat), chat, problem.suffix))
        if self.problems:
            sandbox.probe()
            sandbox.close_all()

    def of(self, model, machine):
        """{"sample": what the model writes, "pass@1": the share of problems that it solves, greedy}, for metrics.jsonl
        and the screen. Only the main process asks, and a signal ends it: whoever calls heeds the same in all processes.
        Nothing here draws random numbers that training would miss."""
        found = {}
        if not machine.is_main:
            return found
        model.eval()
        with contextlib.suppress(SignalCame):
            if self.sample:
                found["sample"] = self.completions(model, [self.sample], [()], machine)[0]
                print(f"sample: {found['sample']}", flush=True)
            if self.problems:
                try:
                    found["pass@1"] = self.pass_rate(model, machine)
                    print(f"pass@1 {found['pass@1']:.1%} of {len(self.problems)} problems", flush=True)
                except UserError as error:  # which is no reason to end a training run
                    print(f"warning: pass@1 is not known: {error}", flush=True)
        if self.problems:
            sandbox.close_all()  # until the next evaluation
        model.train()
        return found

    def completions(self, model, prompts, stops, machine):
        """The texts with which the model continues prompts, prompts[i] up to the first of the strings stops[i]; "" for
        one that does not fit into its context."""
        texts = dict.fromkeys(range(len(prompts)), "")
        fitting = [i for i in texts if len(prompts[i]) < model.config.block_size]
        fitting.sort(key=lambda i: len(prompts[i]))  # similar lengths in a batch: little padding
        ids, ends = [prompts[i] for i in fitting], [stops[i] for i in fitting]
        how = {"stops": ends, "batch_size": BATCH_SIZE, "on_step": machine.heed_alone}
        written = generate(model, self.tokenizer, ids, MAX_NEW_TOKENS, **how)
        texts |= {i: completion.text for i, completion in zip(fitting, written)}
        return list(texts.values())

    def pass_rate(self, model, machine):
        """The share of the problems whose program passes its test."""
        if self.mode_of is None:
            by_id = {problem.task_id: problem for problem in self.problems}
            self.mode_of, _ = modes(by_id, sandbox.Limits(), n_cores())
        stops = [() if self.chat else problem.stop for problem in self.problems]
        written = self.completions(model, self.prompts, stops, machine)
        jobs = []
        for number, (problem, text) in enumerate(zip(self.problems, written)):
            program = problem.program(code_in(text) if self.chat else text)
            jobs.append((number, program, problem.test, self.mode_of[problem.task_id]))
        verdicts = dict(sandbox.run_all(jobs, n_cores()))
        for number, (problem, text) in enumerate(zip(self.problems, written)):
            self.answers[problem.task_id] = [text, verdicts[number].passed]
        return sum(verdict.passed for verdict in verdicts.values()) / len(verdicts)
