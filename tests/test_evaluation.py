"""Benchmarks and the score: problems, samples, pass@k, runs that are interrupted, mistakes in one line; score files."""

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import DATA, assert_one_line_error, door_error, load_model, stage, untrained_checkpoint, write_records

import eval_humaneval
import evaluation.score
import sample
from configurator import UserError
from evaluation.problems import pass_at_k, read_lines, read_problems, score
from evaluation.replies import code_in
from training import machine as machines

# -- pass@k


@pytest.mark.parametrize(
    "n, c, k, value",
    [(200, 1, 10, 0.05), (200, 10, 10, 0.408548), (10, 2, 5, 0.777778), (5, 3, 3, 1.0), (4, 0, 2, 0.0)],
)
def test_pass_at_k_equals_published_values(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-6)


def test_scores_and_their_standard_errors():
    result = score([(1, 1)] * 30 + [(1, 0)] * 70)
    assert result["pass@1"] == 0.3 and result["stderr"] == pytest.approx((0.3 * 0.7 / 99) ** 0.5)
    assert "pass@10" not in result
    assert set(score([(10, 3), (10, 0)])) == {"pass@1", "stderr", "pass@10", "stderr@10"}


def test_code_is_taken_from_replies():
    assert code_in("Sure:\n```python\nx = 1\n```\nand\n```\ny\n```") == "x = 1\n"
    assert code_in("```\nx = 1") == "x = 1" and code_in("x = 1") == "x = 1"


# -- eval_humaneval.py


def evaluate(out, *arguments):
    """The summary.json of a run in a process of its own."""
    stage("eval_humaneval.py", f"--out_dir={out}", *arguments, cwd=out.parent)
    return json.loads((out / "summary.json").read_text())


def problem_file(folder, count=6):
    """(path, records) of problems of HumanEval's shape."""
    lines = [
        {
            "task_id": f"t/{i}",
            "prompt": f'def add{i}(x):\n    """Add {i}."""\n',
            "entry_point": f"add{i}",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + i}\n",
        }
        for i in range(count)
    ]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "problems.jsonl", lines


def test_given_samples_are_scored_and_an_interrupted_run_goes_on(tmp_path):
    path, problems = problem_file(tmp_path)
    samples = [
        {"task_id": p["task_id"], "completion": p["canonical_solution"] if n < i else "    return -1"}
        for i, p in enumerate(problems)
        for n in range(10)
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    out = tmp_path / "out"
    summary = evaluate(out, f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}")
    assert summary["pass@1"] == pytest.approx(0.25) and summary["pass@10"] == pytest.approx(5 / 6)
    assert (summary["n_problems"], summary["n_samples"]) == (6, 60) and summary["stderr"] > 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(r["task_id"], r["completion"]) for r in results] == [(s["task_id"], s["completion"]) for s in samples]
    assert all(r["passed"] == (r["result"] == "passed") for r in results)
    lines = (out / "results.jsonl").read_text().splitlines(True)
    (out / "results.jsonl").write_text("".join(lines[:3]) + lines[3][:20])  # killed in the middle of a line
    again = evaluate(out, f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}")
    assert again["pass@1"] == summary["pass@1"] and len((out / "results.jsonl").read_text().splitlines()) == 60


def test_problems_that_the_data_came_close_to_are_scored_apart(tmp_path):
    path, problems = problem_file(tmp_path)
    samples = [
        {"task_id": p["task_id"], "completion": p["canonical_solution"] if i < 2 else "    return -1"}
        for i, p in enumerate(problems)
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    for number in (4, 5):  # a term of a sum has three nodes of a syntax tree
        problems[number]["canonical_solution"] = f"    return x + {number}{' + 0' * 10}\n"
    write_records(path, problems)
    close = {problems[0]["task_id"]: 1.0, problems[1]["task_id"]: 0.85, problems[2]["task_id"]: 0.6}
    report = {"benchmarks": {"similar": {name: {"similarity": s, "document": "x"} for name, s in close.items()}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    arguments = [f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}"]
    summary = evaluate(tmp_path / "out", *arguments, f"--similar={tmp_path / 'report.json'}")
    assert {name: (g["pass@1"], g["n_problems"]) for name, g in summary["by_similarity"].items()} == {
        "similar": (1.0, 2),
        "too small": (0.0, 2),
        "other": (0.0, 2),
    }
    error = door_error(eval_humaneval, *arguments, f"--out_dir={tmp_path / 'out'}", f"--similar={path}")
    assert "report.json" in error


def canonical(tmp_path, file):
    """(arguments that score a benchmark's own solutions, how many they are)."""
    problems = read_problems(DATA / file, "11-510")
    lines = [json.dumps({"task_id": p.task_id, "completion": p.solution}) for p in problems.values()]
    (tmp_path / "canonical.jsonl").write_text("\n".join(lines))
    return [f"--problems={DATA / file}", f"--samples={tmp_path / 'canonical.jsonl'}"], len(problems)


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
@pytest.mark.parametrize(
    "file, count, workers",
    [
        ("humaneval/HumanEval.jsonl.gz", 164, 4),
        ("mbpp/mbpp.jsonl.gz", 500, 1),
    ],
)
def test_canonical_solutions_all_pass(tmp_path, file, count, workers):
    # MBPP's 123 needs up to four seconds of CPU time, more than the default gives.
    arguments, n = canonical(tmp_path, file)
    summary = evaluate(tmp_path / "out", *arguments, f"--num_workers={workers}", "--timeout=20")
    assert n == count == summary["n_problems"] and summary["pass@1"] == 1.0


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
def test_stubs_pass_no_humaneval_problem(tmp_path):
    with gzip.open(DATA / "humaneval/HumanEval.jsonl.gz", "rt") as f:
        ids = [json.loads(line)["task_id"] for line in f][:40]
    (tmp_path / "s.jsonl").write_text(
        "\n".join(json.dumps({"task_id": i, "completion": "    return None\n"}) for i in ids)
    )
    summary = evaluate(
        tmp_path / "out", f"--problems={DATA / 'humaneval/HumanEval.jsonl.gz'}", f"--samples={tmp_path / 's.jsonl'}"
    )
    assert summary["pass@1"] == 0.0


def test_mistakes_end_in_one_line(tmp_path):
    path, _ = problem_file(tmp_path)
    assert "either" in door_error(eval_humaneval, f"--problems={path}")
    assert "temperature" in door_error(eval_humaneval, f"--problems={path}", "--checkpoint=x", "--n_samples=2")
    (tmp_path / "bad.jsonl").write_text("{]")
    assert "line 1" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    (tmp_path / "bad.jsonl").write_text('{"task_id": "t/0"}')
    assert "no completion" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    (tmp_path / "bad.jsonl").write_text('{"task_id": "other", "completion": ""}')
    assert "no samples" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    assert "no usable" in door_error(eval_humaneval, f"--problems={tmp_path / 'bad.jsonl'}", "--samples=x")
    error = door_error(eval_humaneval, "--problems=data/exercises/nowhere.jsonl", "--samples=x")
    assert "no file of problems" in error and "`python -m exercises`" in error
    assert not Path("out/eval").exists(), "a mistake leaves nothing behind"
    assert_one_line_error(
        stage("eval_humaneval.py", f"--problems={path}", "--checkpoint=nowhere", cwd=tmp_path, check=False), "nowhere"
    )


def samples_file(folder, completions):
    """A file of samples of the first problems, one for each of the completions."""
    lines = [json.dumps({"task_id": f"t/{i % 6}", "completion": text}) for i, text in enumerate(completions)]
    (folder / "samples.jsonl").write_text("\n".join(lines))
    return folder / "samples.jsonl"


def results_of(folder, samples, out):
    """results.jsonl of a run in this process, without the seconds."""
    path, _ = problem_file(folder)
    eval_humaneval.main(eval_humaneval.Settings(problems=str(path), samples=str(samples), out_dir=str(out)))
    records = map(json.loads, (out / "results.jsonl").read_bytes().splitlines())
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_a_run_that_is_interrupted_twice_goes_on(tmp_path):
    """Killed in the middle of a line, then again behind it; with characters that end a line elsewhere."""
    samples = samples_file(tmp_path, [f"    return x + {i}  # \u2028 \x85 \ud800" for i in range(6)])
    first = results_of(tmp_path, samples, tmp_path / "out")
    assert [record["passed"] for record in first] == [True] * 6
    results = tmp_path / "out/results.jsonl"
    lines = results.read_bytes().splitlines(True)
    results.write_bytes(lines[0] + lines[1][: lines[1].index(b"\xe2") + 1])  # in the middle of a character
    assert len(eval_humaneval.whole_lines(results)) == 1
    with open(results, "ab") as file:
        file.write(lines[2])
    assert len(eval_humaneval.whole_lines(results)) == 2
    assert results_of(tmp_path, samples, tmp_path / "out") == first


def test_equal_samples_keep_their_numbers_when_they_are_read_again(tmp_path):
    samples = samples_file(tmp_path, ["    return x"] * 12)
    first = results_of(tmp_path, samples, tmp_path / "out")
    assert [record["completion_id"] for record in first] == [0] * 6 + [1] * 6
    assert results_of(tmp_path, samples, tmp_path / "out") == first
    (tmp_path / "out/results.jsonl").write_text('{"task_id": "t/0", "passed": true}\n')
    assert results_of(tmp_path, samples, tmp_path / "out") == first, "results of another program are not taken over"
    (tmp_path / "out/results.jsonl").write_text("no JSON\n")
    assert results_of(tmp_path, samples, tmp_path / "out") == first


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tokenizer):
    return untrained_checkpoint(tmp_path_factory.mktemp("untrained"), tokenizer, block_size=32)


def write_and_score(folder, untrained, **settings):
    """(samples.jsonl, summary) of a run in this process that writes two samples of three problems."""
    (folder / "problems.jsonl").exists() or problem_file(folder, count=3)
    defaults = dict(n_samples=2, temperature=1.0, max_new_tokens=6, batch_size=4, device="cpu", dtype="fp32")
    paths = dict(problems=str(folder / "problems.jsonl"), checkpoint=str(untrained), out_dir=str(folder / "out"))
    eval_humaneval.main(eval_humaneval.Settings(**paths, **{**defaults, **settings}))
    return (folder / "out/samples.jsonl").read_text(), json.loads((folder / "out/summary.json").read_text())


def test_samples_of_an_interrupted_run_are_kept_and_those_of_another_run_are_not(tmp_path, untrained):
    samples, summary = write_and_score(tmp_path, untrained)
    assert summary["n_samples"] == 6 and len(set(samples.splitlines())) == 6
    lines = samples.splitlines(True)
    marked = eval_humaneval.json_line(
        eval_humaneval.with_digest({**json.loads(lines[0]), "completion": "kept"})
    ).decode()
    (tmp_path / "out/samples.jsonl").write_text(marked + lines[1] + lines[2][:9])
    again, _ = write_and_score(tmp_path, untrained)
    assert again.splitlines() == [marked.strip(), *samples.splitlines()[1:]]
    for other in ({"dtype": "bf16"}, {"seed": 7}, {"mbpp_ids": "11"}):
        (tmp_path / "out/samples.jsonl").write_text(marked)
        assert "kept" not in write_and_score(tmp_path, untrained, **other)[0]


def test_neighbouring_seeds_share_no_samples(tmp_path, untrained):
    """With seed + number a run would repeat all samples but one of the run whose seed is 1 less."""
    completions = []
    for seed in (1337, 1338):
        samples, _ = write_and_score(tmp_path, untrained, seed=seed, smooth=False)
        completions.append({json.loads(line)["completion"] for line in samples.splitlines()})
    assert len(completions[0]) == 6 and not completions[0] & completions[1]


def test_device_and_format_are_picked_as_in_training_and_saved(tmp_path, untrained):
    _, summary = write_and_score(tmp_path, untrained, device=None, dtype=None)
    machine = machines.start()
    assert summary["settings"]["device"] == str(machine.device)
    assert summary["settings"]["dtype"] == {torch.bfloat16: "bf16", torch.float32: "fp32"}[machine.dtype]
    assert {"device", "dtype"} <= json.loads((tmp_path / "out/samples.settings.json").read_text()).keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported_as_one(tmp_path, untrained):
    path, _ = problem_file(tmp_path)
    arguments = ["--device=cuda", f"--checkpoint={untrained}"]
    assert "no GPU" in door_error(eval_humaneval, *arguments, f"--problems={path}", f"--out_dir={tmp_path / 'out'}")
    assert "no GPU" in door_error(sample, *arguments)
    assert "no GPU" in door_error(evaluation.score, *arguments, f"--out={tmp_path / 'scores.jsonl'}")


def test_without_a_sandbox_nothing_is_scored(monkeypatch):
    """Elsewhere than on Linux every program would fail without a word: 0 %."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UserError, match="only Linux has"):
        eval_humaneval.check(eval_humaneval.Settings(samples="x"))


def test_ids_of_mbpp_are_one_or_a_range(tmp_path):
    record = {"text": "Add.", "code": "def f(x):\n    return x", "test_list": ["assert f(1) == 1"]}
    path = tmp_path / "mbpp.jsonl"
    path.write_text("\n".join(json.dumps({"task_id": i, **record}) for i in range(10, 15)))
    assert list(read_problems(path, "11")) == ["11"]
    assert list(read_problems(path, "11-13")) == ["11", "12", "13"]
    for ids in ("", "eleven", "11-", "11-13-15", "-3"):
        assert "one id or a range" in door_error(
            eval_humaneval, f"--problems={path}", "--samples=x", f"--mbpp_ids={ids}"
        )
    for wrong in ({"task_id": "eleven"}, {"task_id": None}, {"task_id": 11, "test_list": []}):
        path.write_text(json.dumps({"task_id": 11, **record, **wrong}))
        assert "no usable fields" in door_error(eval_humaneval, f"--problems={path}", "--samples=x")


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    good = b'{"a": "\xc3\xa9"}\n'
    for content, line in ((b"\xff\n", 1), (good * 3 + b'{"a": "\xff"}\n', 4), (good + b"[1]\n", 2)):
        (tmp_path / "lines.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=f"line {line}"):
            list(read_lines(tmp_path / "lines.jsonl"))
        (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(content))
        with pytest.raises(UserError, match=f"line {line}"):
            list(read_lines(tmp_path / "lines.jsonl.gz"))
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(good * 9)[:-12])
    with pytest.raises(UserError, match="not a file of JSON records"):
        list(read_lines(tmp_path / "lines.jsonl.gz"))


@pytest.mark.parametrize(
    "setting", ["limit=-1", "seed=-1", "num_workers=-1", "max_new_tokens=0", "memory_mb=0", "timeout=nan", "timeout=0"]
)
def test_settings_out_of_range_end_in_one_line(setting, tmp_path):
    path, _ = problem_file(tmp_path)
    assert setting.split("=")[0] in door_error(eval_humaneval, f"--problems={path}", "--samples=x", f"--{setting}")


# -- why programs failed


@pytest.mark.parametrize(
    "result, completion, ended, reason",
    [
        ("passed", "x", "length", "passed"),
        ("passed", "", "stop", "passed"),
        ("failed: AssertionError: ", "x", "stop", "wrong answer"),
        ("failed: AssertionError", "x", None, "wrong answer"),
        ("failed: SyntaxError: '(' was never closed", "x", "length", "does not compile"),
        ("failed: IndentationError: unexpected indent", "x", None, "does not compile"),
        ("failed: NameError: name 'x: y' is not defined", "x", "stop", "NameError"),
        ("failed: passed: ", "x", "stop", "another exception"),
        ("failed: \x1b]0;x\x07: ", "x", "stop", "another exception"),
        ("timed out", "x", "length", "timed out"),
        ("failed: AssertionError: ", " \n", "stop", "nothing written"),
        ("failed: AssertionError: ", "", "prompt too long", "prompt too long"),
    ],
)
def test_a_failure_has_a_reason(result, completion, ended, reason):
    record = {"result": result, "passed": result == "passed", "completion": completion, "ended": ended}
    assert eval_humaneval.reason_of(record) == reason


def test_why_programs_failed_is_counted(tmp_path, capsys):
    completions = ["    return x", "    return -1", "    return (", "    return y", "    while x: pass", ""]
    samples = samples_file(tmp_path, completions)
    path, _ = problem_file(tmp_path)
    paths = dict(problems=str(path), samples=str(samples), out_dir=str(tmp_path / "out"))
    eval_humaneval.main(eval_humaneval.Settings(**paths, timeout=0.5))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    reasons = ("wrong answer", "does not compile", "NameError", "timed out", "nothing written")
    assert summary["failures"] == dict.fromkeys(reasons, 1) and summary["n_passed"] == 1
    assert summary["cut_off"] == {}, "what another program wrote does not say how it ended"
    printed = capsys.readouterr().out
    assert "of 6 programs" in printed and "       1  does not compile\n" in printed


def test_prompts_that_do_not_fit_and_completions_that_are_cut_off_are_counted_aloud(tmp_path, untrained, capsys):
    path, problems = problem_file(tmp_path, count=3)
    problems[1]["prompt"] += "    # " + "word " * 40 + "\n"
    path.write_text("\n".join(map(json.dumps, problems)))
    _, summary = write_and_score(tmp_path, untrained, n_samples=1, temperature=0.0, max_new_tokens=2)
    printed = capsys.readouterr().out
    assert "1 of 3 prompts do not fit into the model's 32 tokens: they count as failed" in printed
    assert summary["failures"]["prompt too long"] == 1 and sum(summary["cut_off"].values()) == 2
    assert "of them cut off" in printed and "prompt too long" in printed
    ended = [json.loads(line)["ended"] for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert ended == ["length", "prompt too long", "length"]


# -- evaluation/score.py


def test_every_document_is_scored_by_its_bits_per_byte(tmp_path, workdir, untrained, corpus):
    """Against the definition, one window at a time; and the score file is one that prepare_data.py filters by."""
    out = tmp_path / "scores.jsonl"
    settings = dict(checkpoint=str(untrained), sources=[str(corpus)], out=str(out), windows=3)
    evaluation.score.main(evaluation.score.Settings(**settings, device="cpu", dtype="fp32"))
    records = {record["id"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert set(records) == {path.name for path in corpus.iterdir()}
    model, tokenizer, _ = load_model(untrained)
    for name in ("file_00.py", "file_59.py"):
        text = (corpus / name).read_text(encoding="utf-8")
        ids = [tokenizer.eot, *tokenizer.encode(text)][: 3 * 32 + 1]
        bits = 0.0
        for start in range(0, len(ids) - 1, 32):
            window = ids[start : start + 33]
            log_p = torch.log_softmax(model(torch.tensor([window[:-1]]))[0].float(), -1)
            bits -= sum(log_p[i, token].item() for i, token in enumerate(window[1:])) / math.log(2)
        n_bytes = len(tokenizer.decode_bytes(ids[1:]))
        assert records[name]["bytes"] == n_bytes and records[name]["score"] == pytest.approx(bits / n_bytes, abs=2e-3)
    limit = sorted(record["score"] for record in records.values())[30]
    arguments = [f"--sources={corpus}", f"--scores={out}", f"--max_score={limit}", f"--out_dir={tmp_path / 'likely'}"]
    stage("prepare_data.py", *arguments, cwd=workdir)
    dropped = [json.loads(line) for line in (tmp_path / "likely/dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == sum(record["score"] > limit for record in records.values())
    assert {record["rule"] for record in dropped} == {"score"}


def test_scoring_leaves_nothing_half_written(tmp_path, untrained, corpus):
    arguments = [f"--checkpoint={untrained}", f"--out={tmp_path / 'scores.jsonl'}"]
    assert "nowhere" in door_error(evaluation.score, *arguments, f"--sources={corpus},nowhere")
    assert not list(tmp_path.iterdir())
    assert_one_line_error(stage("evaluation.score", "--checkpoint=nowhere", cwd=tmp_path, check=False), "nowhere")
