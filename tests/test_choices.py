"""Multiple-choice questions: what files hold, the words around a question, and which choice is the likeliest."""

import csv
import json
import math

import pytest
import torch
from conftest import alone, door_error, load_model, untrained_checkpoint

import eval_choices
from configurator import UserError
from evaluation.choices import Question, by_letter, by_text, read_questions
from model import Transformer
from training import checkpoint

SKY = {"question": "What colour is the sky?", "A": "blue", "B": "green", "C": "red", "D": "black", "answer": "A"}
SUM = {"question": "What is 1 + 1?", "choices": ["1", "2", "3"], "answer": 1, "subject": "arithmetic"}


def written(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_questions_are_read_in_every_published_form(tmp_path):
    written(tmp_path / "astronomy_val.jsonl", SKY, SUM)
    rows = [[SKY[key] for key in ("question", "A", "B", "C", "D", "answer")]]
    with open(tmp_path / "colours_test.csv", "w", newline="") as file:  # MMLU's: no header
        csv.writer(file).writerows(rows)
    with open(tmp_path / "csv_sample__skies_dev.csv", "w", newline="") as file:  # C-Eval's
        csv.writer(file).writerows(
            [["id", "question", "A", "B", "C", "D", "answer", "explanation"], ["0", *rows[0], "x"]]
        )
    arc = {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    written(tmp_path / "z.jsonl", arc, {"question": "q", "A": "x", "B": "y"})
    found = read_questions([tmp_path])
    assert [(question.subject, question.answer, len(question.choices)) for question in found] == [
        ("astronomy", 0, 4),
        ("arithmetic", 1, 3),
        ("colours", 0, 4),
        ("skies", 0, 4),
        ("z", 1, 2),
        ("z", None, 2),
    ]
    assert found[0].choices == found[2].choices == found[3].choices == ["blue", "green", "red", "black"]


def test_labels_and_letters_mean_what_the_file_says(tmp_path):
    numbered = {"question": "q", "choices": {"text": list("wxyz"), "label": list("1234")}, "answerKey": "4"}
    path = written(tmp_path / "q.jsonl", numbered, {**SKY, "answer": " b "}, {**SUM, "answer": "2"})
    assert [question.answer for question in read_questions([path])] == [3, 1, 2]
    (tmp_path / "short.csv").write_text("Question,A,B,Answer\nq,x,y,B\n")
    (found,) = read_questions([tmp_path / "short.csv"])
    assert (found.choices, found.answer) == (["x", "y"], 1)
    (tmp_path / "bad.csv").write_text("q,x,A\n")
    assert "row 1" in door_error(eval_choices, f"--questions={tmp_path / 'bad.csv'}")


@pytest.mark.parametrize(
    "record",
    [
        {"question": "q"},
        {**SKY, "answer": "BC"},
        {**SKY, "answer": "E"},
        {**SUM, "answer": 3},
        {**SUM, "choices": ["a"]},
        {**SKY, "question": 7},
        {**SUM, "answer": "²"},
        {**SUM, "answer": "9" * 5000},
        {**SUM, "choices": [None, {}, "a"]},
        {"question": "q", "choices": {"text": ["a", "b"], "label": None}, "answer": "C"},
        {"question": "q", "choices": {"text": ["a", "b"], "label": 3}, "answer": "C"},
    ],
)
def test_what_is_no_question_is_named(tmp_path, record):
    path = written(tmp_path / "q.jsonl", SKY, record)
    error = door_error(eval_choices, f"--questions={path}")
    assert f"{path}, line 2, is no multiple-choice question" in error


def test_the_words_are_those_of_the_authors():
    """The prompts of hendrycks/test and of C-Eval, word for word."""
    sky = Question("high_school_physics", "What colour is the sky?", ["blue", "green", "red", "black"], 0)
    prompt, answers = by_letter(sky, [Question("high_school_physics", "Is it?", ["no", "yes"], 1)], "mmlu")
    assert prompt == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "Is it?\nA. no\nB. yes\nAnswer: B\n\n"
        "What colour is the sky?\nA. blue\nB. green\nC. red\nD. black\nAnswer:"
    )
    assert answers == [" A", " B", " C", " D"]
    prompt, answers = by_letter(Question("物理", "天空？", ["蓝", "绿"], 0), [], "ceval")
    assert (
        prompt == "以下是中国关于物理考试的单项选择题，请选出其中的正确答案。\n\n天空？\nA. 蓝\nB. 绿\n答案："
        and answers == ["A", "B"]
    )
    assert by_text(sky, [], "mmlu") == (
        "What colour is the sky?\nAnswer:",
        [" blue", " green", " red", " black"],
    )


@pytest.fixture
def model(tmp_path, tokenizer):
    """(model, tokenizer) of a checkpoint in tmp_path/run whose context is 96 tokens."""
    untrained_checkpoint(tmp_path / "run", tokenizer, 96)
    return load_model(tmp_path / "run")[:2]


def log_probability(model, tokenizer, prompt, choice):
    """log P(choice | prompt), token by token, of one text at a time."""
    ids = [tokenizer.eot, *tokenizer.encode(prompt + choice)]
    n_prompt = len([tokenizer.eot, *tokenizer.encode(prompt)])
    with torch.no_grad():
        logits = torch.log_softmax(model(torch.tensor([ids[:-1]]))[0].double(), -1)
    return sum(logits[i - 1, ids[i]].item() for i in range(n_prompt, len(ids)))


def test_the_likeliest_choice_is_that_of_one_text_at_a_time(tmp_path, model):
    questions = [
        Question("s", f"What is {a} + {b}?", [str(a + b), str(a), "x" * b], 0) for a in range(3) for b in (1, 4)
    ]
    for write in (by_letter, by_text):
        expected = []
        for question in questions:
            prompt, choices = write(question, [], "mmlu")
            scores = [log_probability(*model, prompt, choice) for choice in choices]
            if write is by_text:
                scores = [score / len(choice.encode()) for score, choice in zip(scores, question.choices)]
            expected.append(scores.index(max(scores)))
        settings = eval_choices.Settings(form="mmlu")
        for batch_size in (1, 5):
            settings.batch_size = batch_size
            found = eval_choices.answers(*model, questions, {}, write, settings)
            assert [choice for choice, *_ in found] == expected


def test_a_choice_that_begins_another_one_is_scored_too(model):
    """Of 1, 10 and 100, each is a beginning of the next: none is free."""
    question = Question("s", "How many?", ["1", "10", "100"], 0)
    rows, *_ = eval_choices.encoded(question, {}, by_text, eval_choices.Settings(form="mmlu"), model[1], 96)
    assert [model[1].decode(ids[n:]) for ids, n in rows] == [" 1", " 10", " 100"]
    chinese = Question("s", "几？", ["一", "二"], 0)
    rows, *_ = eval_choices.encoded(chinese, {}, by_letter, eval_choices.Settings(form="ceval"), model[1], 96)
    assert len({tuple(ids[:n]) for ids, n in rows}) == 1, "what is compared begins at one place"


def test_examples_are_left_out_until_the_question_fits(model):
    question = Question("s", "What is it?", ["a", "b"], 0)
    shots = [Question("s", f"Is it {n}?", ["no", "yes"], 1) for n in range(9)]
    settings = eval_choices.Settings(shots=9, form="mmlu")
    rows, n_shots, is_cut = eval_choices.encoded(question, {"s": shots}, by_text, settings, model[1], 96)
    text = model[1].decode(rows[0][0])
    assert n_shots == text.count("Is it") and not is_cut
    assert len(rows[0][0]) <= 97 and 0 < text.count("Is it") < 9 and text.startswith("<|endoftext|>Is it 0?")
    long = Question("s", "word " * 200, ["a", "b"], 0)
    rows, n_shots, is_cut = eval_choices.encoded(long, {"s": shots}, by_text, settings, model[1], 96)
    assert n_shots == 0 and is_cut
    assert [len(ids) for ids, _ in rows] == [97, 97] and model[1].decode(rows[1][0]).endswith("Answer: b")


def test_what_did_not_fit_into_the_context_is_told(tmp_path, model, capsys):
    """A score with fewer examples than were asked for, or of half a question, must not look like any other."""
    examples = [{"question": f"Is it {n}?", "choices": ["no", "yes"], "answer": 1, "subject": "s"} for n in range(9)]
    questions = [{**examples[0], "question": text} for text in ("What is it?", "word " * 200)]
    paths = {"questions": [str(written(tmp_path / "q.jsonl", *questions))], "out_dir": str(tmp_path / "out")}
    paths |= {"examples": [str(written(tmp_path / "e.jsonl", *examples))], "checkpoint": str(tmp_path / "run")}
    eval_choices.main(eval_choices.Settings(**paths, shots=9, form="mmlu", dtype="fp32", device="cpu"))
    found = json.loads((tmp_path / "out/summary.json").read_text())["prompts"]["by_text"]
    assert 0 < found["shots_mean"] < 4.5 and found["shots_least"] == 0 and found["n_cut"] == 1
    said = f"by text: {found['shots_mean']:.1f} examples in the mean, 0 at least; 1 questions cut to fit the context"
    assert said in capsys.readouterr().out


def test_a_model_that_computes_nan_gets_no_score(tmp_path, model, tokenizer):
    """NaN is not less than anything: every answer would be A."""
    with torch.no_grad():
        model[0].norm.weight[0] = float("nan")
    checkpoint.save(tmp_path / "nan", 1, model[0], [], tokenizer, {"settings": {}}, alone())
    arguments = [f"--questions={written(tmp_path / 'q.jsonl', SKY)}", f"--checkpoint={tmp_path / 'nan'}"]
    error = door_error(eval_choices, *arguments, f"--out_dir={tmp_path / 'out'}", "--device=cpu", "--dtype=fp32")
    assert "are its weights damaged?" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("groups", ['{"a": {"x": 1}}', '{"a": [1]}', '{"a": []}', "[1]", "{"])
def test_a_file_that_holds_no_groups_is_one_line(tmp_path, groups):
    (tmp_path / "groups.json").write_text(groups)
    with pytest.raises(UserError, match="groups.json is no JSON file of subject: group"):
        eval_choices.read_groups(tmp_path / "groups.json")


def test_a_model_that_has_learnt_the_answers_is_above_chance(tmp_path, model, tokenizer, capsys):
    """And one that has not is near it; both are told with their standard errors."""
    records = [
        {"question": f"Name {n}?", "choices": [f"w{n}{k}" for k in range(4)], "answer": n % 4, "subject": f"s{n % 2}"}
        for n in range(24)
    ]
    path, net = written(tmp_path / "q.jsonl", *records), Transformer(model[0].config)
    net.load_state_dict(model[0].state_dict())
    (tmp_path / "groups.json").write_text('{"s0": "even", "s1": ["x", "y", "odd"]}')
    rows = []
    for record in records:
        text = f"{record['question']}\nAnswer: {record['choices'][record['answer']]}"
        rows.append([tokenizer.eot, *tokenizer.encode(text)])
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.eot] * (length - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (net(ids[:, :-1], ids[:, 1:]) / ids.numel()).backward()
        optimizer.step()
    checkpoint.save(tmp_path / "learnt", 1, net, [], tokenizer, {"settings": {}}, alone())
    summaries = []
    for name in ("run", "learnt"):
        arguments = {
            "checkpoint": str(tmp_path / name),
            "questions": [str(path)],
            "out_dir": str(tmp_path / f"out-{name}"),
        }
        eval_choices.main(
            eval_choices.Settings(**arguments, groups=str(tmp_path / "groups.json"), dtype="fp32", device="cpu")
        )
        summaries.append(json.loads((tmp_path / f"out-{name}/summary.json").read_text()))
    before, after = summaries
    assert before["n"] == 24 and before["chance"] == 0.25 and set(after["groups"]) == {"even", "odd"}
    assert before["by_text"]["accuracy"] < 0.6 and after["by_text"]["accuracy"] > 0.9
    p = before["accuracy"]
    assert before["stderr"] == pytest.approx(math.sqrt(p * (1 - p) / 24))
    assert sum(row["n"] for row in after["subjects"].values()) == 24 and "by letter" in capsys.readouterr().out
