"""Pages for a person: what they show, what they leave out, and that no text of the data can break them."""

import html.parser
import json
import re

import pytest
from conftest import door_error, write_records

import pages
from cleaning import report as cleaning_report
from cleaning.settings import Settings as Cleaning
from experiments import plot, report

# -- pages.py


class Reader(html.parser.HTMLParser):
    """What a browser would see: the tags, the text, and that every element is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def written(folder, *blocks):
    """(Reader of the HTML page, the Markdown page) of blocks behind a title."""
    pages.write(folder / "page", [("title", "A page"), *blocks])
    reader = Reader((folder / "page.html").read_text(encoding="utf-8"))
    assert not reader.open, "every element is closed"
    return reader, (folder / "page.md").read_text(encoding="utf-8")


def test_a_page_fits_a_phone_and_the_night(tmp_path):
    written(tmp_path, ("table", (["a"], [["1"]])))
    page = (tmp_path / "page.html").read_text()
    assert 'name="viewport" content="width=device-width' in page and "prefers-color-scheme:dark" in page
    assert "pre-wrap" in page and "overflow-wrap:anywhere" in page, "a long line of code wraps"
    assert '<div class="wide"><table' in page, "a wide table scrolls by itself, not the page"
    assert "http" not in page, "nothing is loaded"


def test_back_ticks_are_code_and_not_characters(tmp_path):
    reader, markdown = written(tmp_path, ("text", "Score with `eval --similar=<x>` apart."), ("text", "an odd ` stays"))
    assert "Score with eval --similar=<x> apart." in reader.text and "code" in reader.tags
    assert "`eval --similar=<x>`" in markdown and "an odd ` stays" in reader.text


@pytest.mark.parametrize(
    "text, in_markdown",
    [
        ("failed: SyntaxError (<program>, line 9)", "failed: SyntaxError (\\<program>, line 9)"),
        ("__init__.py", "\\_\\_init\\_\\_.py"),
        ("exact_dedup", "exact_dedup"),
        ("a|b", "a\\|b"),
        ("2 * 3 [x](y)", "2 \\* 3 \\[x](y)"),
        ("two\nlines", "two lines"),
        ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
    ],
)
def test_text_of_the_data_stays_what_it_is(tmp_path, text, in_markdown):
    blocks = [("text", text), ("table", ([text], [[text]])), ("texts", [(text, text)]), ("code", text)]
    reader, markdown = written(tmp_path, *blocks)
    assert reader.text.count(text) == 6 and "script" not in reader.tags
    assert markdown.count(in_markdown) >= 4 or in_markdown == text


def test_texts_have_captions_side_by_side(tmp_path):
    reader, markdown = written(tmp_path, ("texts", [("one", "x = 1"), ("two", "x = 2")]))
    assert reader.tags.count("figure") == reader.tags.count("figcaption") == 2
    assert markdown.index("one") < markdown.index("x = 1") < markdown.index("two") < markdown.index("x = 2")


# -- the report of a recipe


def an_evaluation(folder, name, completions, results, **settings):
    """What eval_humaneval.py leaves for one model, the problems being lists/0, lists/1, ..."""
    (folder / name).mkdir()
    records = []
    for number, (completion, result) in enumerate(zip(completions, results)):
        record = {"task_id": f"lists/{number}", "completion": completion, "result": result}
        records.append({**record, "passed": result == "passed"})
    write_records(folder / name / "results.jsonl", records)
    failures = {"wrong answer": sum(result != "passed" for result in results)}
    about = {"n_samples": len(results), "n_passed": results.count("passed"), "failures": failures}
    about["cut_off"] = {"passed": 1} if name == "tuned" else {}
    settings = {"problems": str(folder / "problems.jsonl"), "mbpp_ids": "11"}
    (folder / name / "summary.json").write_text(json.dumps({**about, "settings": settings}))
    score = {"pass@1": 0.5, "stderr": 0.1, "n": len(results), "results": str(folder / name)}
    return {name: score}


@pytest.fixture
def finished(tmp_path):
    """The folder of a small recipe that has run: two models, two problems."""
    problem = {"prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "", "test": "", "family": "lists"}
    write_records(tmp_path / "problems.jsonl", [{"task_id": f"lists/{i}", **problem} for i in range(2)])
    scores = an_evaluation(
        tmp_path, "base", ["    return base", ""], ["failed: NameError: base", "failed: AssertionError: "]
    )
    scores |= an_evaluation(
        tmp_path, "tuned", ["    return tuned", "    return x"], ["passed", "failed: AssertionError: "]
    )
    stages = {"install": {"seconds": 0.0, "tokens": None, "val_bpb": None}}
    stages |= {"pretrain": {"seconds": 70.0, "tokens": 2000, "val_bpb": 1.5}}
    stages |= {"sft": {"seconds": 10.0, "tokens": 1000, "val_bpb": None}}
    summary = {
        "stages": stages,
        "exercises": scores,
        "ladder": {"lists": scores},
        "total_seconds": 80.0,
        "torch": "2",
        "cores": 2,
    }
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "bpb_of": "data/x"}))
    return tmp_path


def test_all_models_answers_stand_side_by_side(finished):
    report.main(report.Settings(recipe=str(finished)))
    markdown = (finished / "report.md").read_text()
    for words in ("base - failed: NameError: base", "return base", "tuned - passed", "return tuned", "(nothing)"):
        assert words in markdown
    assert "tuned - failed: AssertionError\n" in markdown and not re.search(r"Error: ?(,|\n|<)", markdown)


def test_runs_with_other_seeds_are_shown_beside_each_other(finished):
    def page_with(**base):
        """The report beside a run of seed 2 that differs in the score of the base model."""
        summary = json.loads((finished / "summary.json").read_text())
        summary["ladder"]["lists"]["base"] |= base
        other = finished.with_name(f"{finished.name}-seed2")
        other.mkdir(exist_ok=True)
        (other / "summary.json").write_text(json.dumps(summary))
        report.main(report.Settings(recipe=str(finished)))
        return (finished / "report.md").read_text()

    report.main(report.Settings(recipe=str(finished)))
    assert "`--seed=2` makes another one" in (finished / "report.md").read_text(), "one run has no spread"
    # Of 50 % and 90 % the mean is 70 %, and the deviation 40 % / sqrt(2) = 28.3 %; the tuned models are equal.
    markdown = page_with(**{"pass@1": 0.9})
    assert "pass@1 over 2 seeds" in markdown and "| lists | 70.0% ± 28.3% | 50.0% ± 0.0% |" in markdown
    # Tuning adds nothing to the one and takes 40 % from the other: -20 % in the mean, known to 28.3 % / sqrt(2).
    assert "| lists | -20.0% ± 20.0% |" in markdown
    assert "| lists | 2 | 50.0% ± 10.0% | 50.0% ± 10.0% |" in markdown, "its own scores stay"
    finished.with_name(f"{finished.name}-seed2.bak").mkdir()
    report.main(report.Settings(recipe=f"{finished}-seed2"))
    assert "pass@1 over 2 seeds" in (finished.with_name(f"{finished.name}-seed2") / "report.md").read_text()
    assert "cannot be compared" in page_with(n=3), "other problems"


def test_the_report_adds_up_and_shows_only_what_ran(finished):
    report.main(report.Settings(recipe=str(finished)))
    markdown = (finished / "report.md").read_text()
    assert "install" not in markdown and "| pretrain | 1:10 | 2,000 | 1.500 |" in markdown
    assert "| all | 1:20 |" in markdown and "trained on 3,000 tokens in all" in markdown
    assert "| passed | 0 | 1 |" in markdown and "| wrong answer | 2 | 1 |" in markdown and "| all | 2 | 2 |" in markdown
    assert "| of all, cut off | 0 | 1 |" in markdown
    assert "anneal" not in markdown.lower(), "there was none"


def test_where_nothing_was_trained_nothing_is_said_of_it(tmp_path):
    stages = {"exercises": {"seconds": 3.0, "tokens": None, "val_bpb": None}}
    summary = {"stages": stages, "exercises": {}, "ladder": {}, "total_seconds": 3.0, "torch": "2", "cores": 2}
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "bpb_of": ""}))
    report.main(report.Settings(recipe=str(tmp_path)))
    markdown = (tmp_path / "report.md").read_text().lower()
    assert "| all | 0:03 |" in markdown and not re.search("trained|unseen|pass@1|wrote|loss", markdown)


def test_a_report_can_be_made_from_any_folder(finished, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    report.main(report.Settings(recipe=str(finished)))
    assert (finished / "report.html").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"exercises": {"base": {"results": "nowhere"}}}', '{"exercises": {}}']
)
def test_a_folder_without_results_is_one_line(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    assert "does not hold the results of a recipe" in door_error(report, f"--recipe={tmp_path}")
    assert not (tmp_path / "report.html").exists()


# -- the report of cleaning


def cleaned(**settings):
    """The funnel's blocks of a report of two documents, one of which was too short."""
    settings = Cleaning(**settings)
    settings.check()
    sizes = {"documents": 2, "bytes": 20, "tokens": 8, "raw_bytes": 22}
    gone = {"documents": 1, "bytes": 5, "tokens": 2}
    drops = {"here": {"filters": {"too_short": gone}}} if "filters" in cleaning_report.steps_that_ran(settings) else {}
    steps = cleaning_report.funnel({"here": sizes}, drops, cleaning_report.steps_that_ran(settings))
    about = {"replaced": {}, "retrieved": {}, "clusters": {}, "duplicates": [], "benchmarks": {"similar": {}}, "examples": {}}
    blocks = list(cleaning_report.contents({"steps": steps, "made_by": {"command": "prepare_data.py"}, **about}))
    return {row[0] for kind, block in blocks if kind == "bars" for row in block[1]}, blocks


def test_steps_that_did_not_run_are_not_shown_as_run():
    always = {"read", "replace", "exact_dedup"}
    assert cleaned()[0] == always | {"filters", "near_dedup"}
    assert cleaned(filters=False, near_dedup=False)[0] == always
    assert cleaned(clean=False)[0] == {"read"}
    assert cleaned(scores="s.jsonl", max_score=1.0, decontaminate=["x"])[0] >= {"quality", "decontamination"}
    assert "filters" not in cleaned(chats=True)[0]
    assert ("text", "Not asked for: quality, decontamination, near_dedup.") in cleaned(near_dedup=False)[1]


def test_the_rules_add_up_in_a_last_row():
    _, blocks = cleaned()
    rows = next(block[1] for kind, block in blocks if kind == "table")
    assert rows == [["filters", "too_short", "1", "5", "1"], ["all", "", "1", "5", "1"]]
    assert ("text", "No document was dropped.") in cleaned(filters=False)[1]


# -- the loss curves


def test_the_smoothed_curve_begins_and_ends_where_the_loss_does():
    values = [float(x**2) for x in range(20)]
    smooth = plot.smoothed(values)
    assert (smooth[0], smooth[-1], len(smooth)) == (values[0], values[-1], 20)
    assert smooth[10] == pytest.approx(sum(values[6:15]) / 9) and smooth[1] == pytest.approx(sum(values[:3]) / 3)
    assert plot.smoothed([3.0]) == [3.0] and plot.smoothed([]) == []


@pytest.mark.parametrize("lines", [None, "", '{"step": 1, "tokens": 9, "val_bpb": 2.0}\n', "garbage\n"])
def test_a_run_without_steps_is_one_line(tmp_path, lines):
    pytest.importorskip("matplotlib")
    if lines is not None:
        (tmp_path / "metrics.jsonl").write_text(lines)
    assert "metrics.jsonl" in door_error(plot, f"--runs={tmp_path}", f"--out={tmp_path / 'loss.png'}")
    assert "is no picture" in door_error(plot, f"--runs={tmp_path}", f"--out={tmp_path / 'loss.xyz'}")
    assert "nothing to draw" in door_error(plot, "--runs=", f"--out={tmp_path / 'loss.png'}")
    assert not (tmp_path / "loss.png").exists()
