"""A model's attempts at what it is asked, and what each has earned: what reinforcement learning learns from."""

import hashlib
import json
import math
import os
from dataclasses import dataclass

from configurator import UserError
from cores import n_cores
from corpus import chats, pairs
from corpus.documents import Problem, read
from evaluation import sandbox
from evaluation.formats import parsed
from evaluation.generate import Sampling, generate, prompt_ids
from evaluation.problems import MBPP_TRAIN, read_problems
from evaluation.replies import code_in
from evaluation.rewards import rewards
from evaluation.steps import single_tests
from evaluation.verdicts import modes
from shards import sha256_file
from training.checkpoint import load_model

AT_ONCE = 32  # conversations that a reward model reads at a time


@dataclass
class Attempt:
    """What a model has written for one problem."""

    problem: int  # its number in the list of problems
    prompt: list[int]  # the ids that the model was given
    ids: list[int]  # the ids that it has drawn, with the stop token at their end, if one ended it
    logprobs: list[float]  # of the same
    text: str
    cut_off: bool  # at the largest number of tokens
    reward: float = 0.0


def draw_attempts(model, tokenizer, asked, max_new_tokens, batch_size, on_step=None):
    """An Attempt for each (number of the problem, prompt's ids, stop strings, seed), drawn from the model's own
    distribution: at temperature 1 and of all tokens, or what is learnt would be of another distribution.
    on_step: as in generate()."""
    if not asked:
        return []
    numbers, prompts, stops, seeds = zip(*asked)
    how = {"seeds": seeds, "stops": stops, "batch_size": batch_size, "keep_logprobs": True, "on_step": on_step}
    written = generate(model, tokenizer, list(prompts), max_new_tokens, Sampling(temperature=1.0), **how)
    found = []
    for number, prompt, completion in zip(numbers, prompts, written):
        ids = completion.ids + ([] if completion.end is None else [completion.end])
        cut_off = completion.reason == "length"
        found.append(Attempt(number, prompt, ids, completion.logprobs, completion.text, cut_off))
    return found


class Tested:
    """Problems with tests, which the sandbox judges: an attempt earns 1 where its program passes, else 0, or, by_share,
    the share of the test's assertions that hold. prompts[n] are the ids of problem n, stops[n] its stop strings; say is
    called with a line for what a person should know."""

    has_tests = True
    longest = math.inf  # tokens of a text that it can judge

    def __init__(self, path, tokenizer, chat, by_share=False, say=print):
        self.problems = list(read_problems(path, MBPP_TRAIN, say).values())
        self.chat, self.by_share, self.say = chat, by_share, say
        self.key = sha256_file(path)  # by which a resumed run knows that it is asked the same
        self.prompts = [prompt_ids(tokenizer, one.asked(chat), chat, one.suffix) for one in self.problems]
        self.stops = [() if chat else problem.stop for problem in self.problems]
        self.mode_of = {}  # how a problem is judged is found out when it is asked first
        sandbox.probe()

    def judge(self, attempts):
        """Give every Attempt its reward. A program that was written several times is run once."""
        new = {self.problems[tried.problem].task_id: self.problems[tried.problem] for tried in attempts}
        new = {task_id: problem for task_id, problem in new.items() if task_id not in self.mode_of}
        self.mode_of |= modes(new, sandbox.Limits(), n_workers(), quiet=True)[0]
        if n_open := sum(self.mode_of[task_id] == "open" for task_id in new):
            self.say(f"warning: {n_open} problems are judged open: a program could learn to write the verdict itself")
        programs = []  # (number of the problem, program) of each attempt
        for tried in attempts:
            text = code_in(tried.text) if self.chat else tried.text
            programs.append((tried.problem, self.problems[tried.problem].program(text)))
        jobs = [self.job(*key, None, self.problems[key[0]].test) for key in dict.fromkeys(programs)]
        earned = {key[:2]: float(passed) for key, passed in passes(jobs).items()}
        if self.by_share:
            earned |= self.shares([key for key in earned if not earned[key]])
        for tried, key in zip(attempts, programs):
            tried.reward = 0.0 if tried.cut_off else earned[key]

    def shares(self, failed):
        """{(number of a problem, program): the share of its assertions that hold} of programs that failed as a whole.
        What does not even compile is not run again; all assertions, one by one, are still less than the whole."""
        jobs, held = [], {key: [] for key in failed}
        for number, program in failed:
            tests = single_tests(self.problems[number].test) if parsed(program) else []
            jobs += [self.job(number, program, n, test) for n, test in enumerate(tests)]
        for key, passed in passes(jobs).items():
            held[key[:2]].append(passed)
        return {key: min(sum(own), len(own) - 1) / len(own) if own else 0.0 for key, own in held.items()}

    def job(self, number, program, n, test):
        """What the sandbox is to run: a program and a test, with a key to tell it by."""
        return (number, program, n), program, test, self.mode_of[self.problems[number].task_id]


class Rated:
    """Conversations whose next answer a reward model rates: what people prefer, and no test decides (InstructGPT,
    arXiv:2203.02155). path: chats or pairs, of which the last answers are taken away; judge: reward.py's checkpoint."""

    has_tests = False

    def __init__(self, path, tokenizer, judge, machine):
        self.model, self.tokenizer, _ = load_model(judge, machine, with_values=True)
        self.longest = self.model.config.block_size
        self.conversations, self.say = list(asked_in(path)), machine.say
        if not self.conversations:
            raise UserError(f"no conversations in {path}")
        self.key = hashlib.sha256(json.dumps(self.conversations).encode()).hexdigest()
        self.prompts, self.stops = [], [()] * len(self.conversations)
        for messages in self.conversations:
            ids, _ = tokenizer.render(messages, generation_prompt=True)
            self.prompts.append([tokenizer.eot, *ids])

    def judge(self, attempts):
        """Give every Attempt its reward."""
        answered = {}  # (problem, text): the conversation, each once, as equal ones could differ by a rounding
        for tried in attempts:
            answer = {"role": "assistant", "content": tried.text}
            answered[tried.problem, tried.text] = [*self.conversations[tried.problem], answer]
        found = dict(zip(answered, rewards(self.model, self.tokenizer, list(answered.values()), AT_ONCE)))
        for tried in attempts:
            tried.reward = found[tried.problem, tried.text]
            if tried.cut_off:  # an end that was not drawn is not rewarded
                tried.reward = min(reward for (problem, _), reward in found.items() if problem == tried.problem)


def asked_in(path):
    """The messages of each conversation in a file of chats or pairs, without the answers at its end."""
    for item in read(path, either):
        if not isinstance(item, Problem):
            messages = json.loads(item.text)["messages"]
            while messages and messages[-1]["role"] != "user":
                messages.pop()
            if messages:
                yield [{"role": message["role"], "content": message["content"]} for message in messages]


def either(record, where, shape=None):
    """A Document of a record that is a pair or a chat."""
    found = pairs.from_record(record, where, shape)
    return chats.from_record(record, where, shape) if isinstance(found, Problem) else found


def passes(jobs):
    """{key: whether the program passed} of jobs for the sandbox."""
    return {key: verdict.passed for key, verdict in sandbox.run_all(jobs, n_workers())}


def n_workers():
    """How many programs this process runs at a time: its share of the cores."""
    return max(1, n_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
