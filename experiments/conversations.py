"""Does a tuned model answer a request as well later in a conversation as at its beginning, and leave small talk alone?

    python -m experiments.conversations --checkpoints=out/demo/sft,out/b/sft

Each request is asked alone, behind a greeting, and behind another request with its function: the table has the share
whose first greedy answer passes the tests, +- its standard error over the requests. Then follow-ups, which change what
the function before them does, two fifths of them in a way that training has. The last column counts the messages that
ask for no function, in sentences that training has not, which get an answer without one. What was said before is given:
the model's own answers might lead it astray.
"""

import needs  # noqa: F401

from dataclasses import dataclass

import configurator
from cores import n_cores
from evaluation import sandbox
from evaluation.generate import Sampling, generate
from evaluation.problems import MBPP_TEST, read_lines, read_problems, score
from evaluation.replies import code_in
from exercises import wording
from experiments.common import print_table
from ranges import Context, Place
from sample import fitting, room_for_answer
from tokenizer import fenced
from training import checkpoint
from training import machine as machines


def small_talk(place):
    """The first message at a place in a conversation, and its answer, as training has them."""
    asked, answer = wording.SENTENCES[place][0].split(" => ")
    return [asked.split(" | ")[0], answer]


REQUEST = ["Write a function that adds two numbers.", fenced("def add(a, b):\n    return a + b", "python")]
BEFORE = {  # what was said before a request: questions and answers in turn
    "alone": [],
    "behind a greeting": small_talk("before"),
    "behind a request": REQUEST,
    "behind a request and thanks": REQUEST + small_talk("behind"),
}
# Written by somebody who knew the small talk of exercises/chat.txt, but otherwise than all of it.
NO_REQUESTS = [
    "hello friend",
    "yo, you there?",
    "hows life?",
    "tell me who you are",
    "what's your purpose?",
    "what are you able to do?",
    "could you explain how to use you?",
    "how tall is the Eiffel tower?",
    "who painted the Mona Lisa?",
    "sing me a lullaby",
    "write a haiku",
    "what should I wear today?",
    "is there life on Mars?",
    "build me a video game",
    "code an entire bank",
    "lorem ipsum",
]
BEHIND_A_REQUEST = [
    "cheers",
    "perfect, thank you so much",
    "see you tomorrow",
    "can you do it in Swift?",
    "please use Ruby instead",
]


@dataclass
class Settings:
    """Which models, and what they are asked."""

    checkpoints: str = "out/demo/sft"  # of tuned models, separated by commas
    problems: Place = "exercises/requests.jsonl"  # requests with tests
    follow_ups: Place = "exercises/follow_ups.jsonl"  # such ones, with what was said before
    max_new_tokens: Context = 160  # length of an answer


def main(settings):
    """Ask every model every request in every way, and print the table."""
    problems = list(read_problems(settings.problems, MBPP_TEST).values())
    follow_ups = list(read_problems(settings.follow_ups, MBPP_TEST).values())
    said = [record["before"] for record in read_lines(settings.follow_ups)]
    machine, rows = machines.start(), []
    for path in settings.checkpoints.split(","):
        model, tokenizer, _ = checkpoint.load_model(path, machine)
        rows.append([path])
        for before in BEFORE.values():
            rows[-1].append(share(model, tokenizer, problems, [before] * len(problems), settings.max_new_tokens))
        rows[-1].append(share(model, tokenizer, follow_ups, said, settings.max_new_tokens))
        conversations = [[message] for message in NO_REQUESTS] + [[*REQUEST, message] for message in BEHIND_A_REQUEST]
        answers = answers_to(conversations, model, tokenizer, settings.max_new_tokens)
        n_right = sum(bool(text.strip()) and "def " not in text for text in answers)
        rows[-1].append(f"{n_right} of {len(answers)}")
    print(f"\n{len(problems)} requests and {len(follow_ups)} follow-ups, the share that is right")
    print_table(["", *BEFORE, "follow-ups", "no request, no function"], rows, "<" + ">" * (len(BEFORE) + 2))


def share(model, tokenizer, problems, before, max_new_tokens):
    """The share of the problems that is solved, each asked behind a list of texts, one of before: 12.3% +- 4.5%."""
    conversations = [[*texts, problem.request] for problem, texts in zip(problems, before, strict=True)]
    jobs = []
    for problem, answer in zip(problems, answers_to(conversations, model, tokenizer, max_new_tokens)):
        jobs.append((problem.task_id, problem.program(code_in(answer)), problem.test, "sealed"))
    passed = [verdict.passed for _, verdict in sandbox.run_all(jobs, n_cores())]
    found = score([(1, is_right) for is_right in passed])
    return f"{found['pass@1']:.1%} +- {found['stderr']:.1%}"


def answers_to(conversations, model, tokenizer, max_new_tokens):
    """The greedy answer to each list of texts, a person's and the model's in turn. As in sample.py the oldest are
    forgotten where all of them leave too little room in the context."""
    prompts, most = [], model.config.block_size - room_for_answer(max_new_tokens, model.config.block_size)
    for texts in conversations:
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
        prompts.append(fitting(turns, tokenizer, most)[1])
    return [answer.text for answer in generate(model, tokenizer, prompts, max_new_tokens, Sampling(temperature=0.0))]


if __name__ == "__main__":
    configurator.run(main, Settings)
