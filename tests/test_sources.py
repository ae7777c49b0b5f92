"""Names of sources: what they stand for, their options, budgets, and folders that are laid out as the hub lays them out."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

import prepare_data
from configurator import UserError
from corpus import shapes
from corpus.documents import Document, Problem, read
from corpus.sources import SETS, parsed, source_name


def written(path, records):
    """A file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def numbers(tmp_path):
    """A file of 1,000 documents."""
    return written(tmp_path / "numbers.jsonl", [{"text": f"document number {n}", "n": n} for n in range(1000)])


def texts(source):
    return [item.text for item in read(str(source)) if isinstance(item, Document)]


def test_a_set_has_what_its_entry_says_and_options_come_on_top():
    found = parsed("ultrachat")
    assert (found.hub, found.split, found.path) == ("HuggingFaceH4/ultrachat_200k", "train_sft", None)
    assert parsed("ultrachat?split=test_sft").split == "test_sft"
    more = parsed('wildchat?keep=language == "en"').keep
    assert more == [*SETS["wildchat"]["keep"], 'language == "en"'], "what the set itself asks for stays"
    assert parsed("hf:HuggingFaceH4/ultrachat_200k").split == "train_sft", "it is the same set"
    assert parsed("hf:HuggingFaceTB/smollm-corpus").config == "", "three sets have this place: none is meant"
    found = parsed("hf:owner/name:python?split=test&documents=1e3")
    assert (found.hub, found.data_dir, found.split, found.documents) == ("owner/name", "python", "test", 1000)


def test_a_name_says_the_same_when_it_is_read_again(tmp_path):
    """What manifests hold can be given on a command line, where a comma begins the next source."""
    file = written(tmp_path / "a.jsonl", [{"x": "q"}])
    for source in (
        r"dolly?user={a}\n\n{b}&assistant={c}",
        "c4?tokens=2.5e8&share=0.25",
        f'{file}?keep=language in ["en", "de"]&keep=not bad',
        f"{file}?documents=20000",
        "hf:a/b:c?split=x",
    ):
        name = source_name(source)
        assert parsed(name) == parsed(source) and source_name(name) == name and "," not in name


def test_a_file_that_is_there_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dolly", "what?.jsonl", "a@b.jsonl"):
        written(tmp_path / name, [{"text": name}])
        assert parsed(name).path is not None and not parsed(name).hub


@pytest.mark.parametrize(
    "source, words",
    [
        ("dollly", "did you mean the set dolly?"),
        ("dolly?spilt=train", "did you mean split?"),
        ("dolly?split", "is no option"),
        ("dolly?share=2", "share=2 is no share"),
        ("dolly?documents=some", "is no count"),
        ("dolly?user={question}", "needs both templates"),
        ("dolly?user=question&assistant={a}", "is no template"),
        ("dolly?text={a", "is no template"),
        ("dolly?keep=import os", "is no condition"),
        ("dolly?keep=score >= three", "is no number, text in quotes, list"),
        ("dolly@nowhere", "no source 'dolly@nowhere'"),
        ("news2016zh", "news2016zh@FOLDER"),
        ("", "no source ''"),
    ],
)
def test_mistakes_are_one_line(source, words):
    with pytest.raises(UserError) as raised:
        list(read(source))
    assert words in str(raised.value) and "\n" not in str(raised.value)


# -- budgets


def test_budgets_end_the_reading(numbers):
    assert texts(f"{numbers}?documents=7") == texts(numbers)[:7]
    assert len(texts(f"{numbers}?tokens=100")) == pytest.approx(100 * 4 / 19, abs=3), "four bytes are a token"
    counted = list(read(f"{numbers}?tokens=300", count_tokens=lambda text: len(text.split())))
    assert len(counted) == 100, "three words each"


def test_a_share_is_the_same_documents_whatever_else_is_read(numbers, tmp_path):
    some = texts(f"{numbers}?share=0.1")
    assert 60 < len(some) < 140 and set(some) < set(texts(numbers))
    other = written(tmp_path / "other.jsonl", [json.loads(line) for line in open(numbers)][::-1][:500])
    assert set(texts(f"{other}?share=0.1")) == set(some) & set(texts(other))


def test_each_of_several_machines_has_its_part_of_a_budget(tmp_path):
    for n in range(4):
        written(tmp_path / f"d/{n}.jsonl", [{"text": f"{n} {i}"} for i in range(100)])
    parts = [len(list(read(f"{tmp_path}/d?documents=80", share=(i, 4)))) for i in range(4)]
    assert parts == [20] * 4


def test_a_file_is_read_by_one_machine_with_all_of_its_budget(numbers):
    parts = [len(list(read(f"{numbers}?documents=80", share=(i, 4)))) for i in range(4)]
    assert parts == [80, 0, 0, 0]


def test_the_preset_with_options_is_the_preset():
    found = list(read("stdlib?documents=20"))
    assert [item.where for item in found] == [item.where for item, _ in zip(read("stdlib"), found)]


# -- conditions and templates


@pytest.mark.parametrize(
    "text, meets",
    [
        ("not toxic", [True, False, True, True, False]),
        ("toxic", [False, True, False, False, True]),
        ("toxic == False", [True, False, True, False, False]),
        ("score >= 3", [True, True, False, False, False]),
        ("score in [1, 4]", [False, True, True, False, False]),
        ("meta.lang == 'en'", [True, False, False, False, False]),
        ("meta.lang != 'en'", [False, True, True, True, True]),
        ("score in [3, None]", [True, False, False, False, True]),
    ],
)
def test_conditions(text, meets):
    records = [
        {"toxic": False, "score": 3, "meta": {"lang": "en"}},
        {"toxic": True, "score": 4.0, "meta": {"lang": "de"}},
        {"toxic": 0, "score": 1, "meta": {}},
        {"toxic": None, "score": "3", "meta": None},
        {"toxic": "yes", "score": None},
    ]
    assert [shapes.condition(text)(record) for record in records] == meets


def test_what_does_not_meet_a_condition_is_counted(numbers):
    found = list(read(f"{numbers}?keep=n < 10"))
    assert sum(isinstance(item, Document) for item in found) == 10
    assert Counter(item.rule for item in found if isinstance(item, Problem)) == {"not_wanted": 990}


@pytest.mark.parametrize(
    "template, expected",
    [
        ("{title}\n\n{text}", "T\n\nbody"),
        ("{nothing}\n\n{text}", "body"),
        ("{title}\n{nothing}\n{text}", "T\nbody"),
        ("Read.\n\n{text}\nTopic: {nothing}", "Read.\n\nbody"),
        ("{nothing|text}", "body"),
        ("{meta.author.name}: {list.first}", "Ada: a"),
        ("{list.all}", "a\nb"),
        ("{objects.all.text}", "x\ny"),
        ("{objects.text}", "x"),
        ("{title}\n{titled}", "T\nT is said once"),
    ],
)
def test_templates(template, expected):
    record = {"title": "T", "text": "body", "nothing": None, "list": ["a", "b"], "titled": "T is said once"}
    record |= {"meta": {"author": {"name": "Ada"}}, "objects": [{"text": "x"}, {"text": "y"}]}
    assert shapes.filled(template, record, lambda value, path: value) == expected


def test_a_template_reads_what_no_shape_knows(tmp_path, capsys):
    file = written(tmp_path / "odd.jsonl", [{"ask": "q", "more": "m", "reply": "a"}, {"ask": "q2", "reply": "b"}])
    settings = prepare_data.Settings(sources=[str(file)], chats=True, show=2)
    prepare_data.main(settings)
    assert "fields: ask, more, reply; say how to read them, as in --sources='FILE?user=" in capsys.readouterr().out
    settings.sources = [f"{file}?user={{ask}}\\n{{more}}&assistant={{reply}}&system={{nothing}}"]
    prepare_data.main(settings)
    assert "[user]\nq\nm\n[assistant]\na\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "record, options, text",
    [
        ({"text": "hello", "files": []}, "", "hello"),
        ({"text": "hello", "files": [{"path": "a"}]}, "", "hello"),
        ({"body": "b", "files": [{"path": "a", "content": "c"}]}, "?text={body}", "b"),
        ({"title": "T", "text": "T\n\nbody"}, "", "T\n\nbody"),
        ({"title": "T", "text": "body"}, "", "T\n\nbody"),
        ({"title": ["T"], "text": "body"}, "", "body"),
        ({"instruction": "4", "output": "a", "text": "t"}, "?text={instruction}\n{output}", "4\na"),
    ],
)
def test_a_document_loses_nothing(tmp_path, record, options, text):
    assert texts(f"{written(tmp_path / 'd.jsonl', [record])}{options}") == [text]


def test_options_come_on_top_of_what_the_fields_say(tmp_path):
    """A template of the system prompt alone leaves the rest to the fields; a list of objects may have one in a path."""
    from corpus.chats import from_record

    given = parsed(f"{written(tmp_path / 'x', [])}?system={{persona}}").shape
    found = from_record({"persona": "s", "question": "q", "answer": "a"}, "f:1", given)
    assert [turn["content"] for turn in json.loads(found.text)["messages"]] == ["s", "q", "a"]
    shape = {"user": "{title}", "assistant": "{replies.first.text}"}
    found = from_record({"title": "q", "replies": [{"from": "bob", "text": "a"}]}, "f:1", shape)
    assert [turn["content"] for turn in json.loads(found.text)["messages"]] == ["q", "a"]


def test_usual_names_of_a_question_and_its_answer_go_in_any_pair():
    from corpus.chats import from_record

    for asked in ("instruction", "question", "query", "prompt", "problem", "input"):
        for answered in ("response", "output", "answer", "completion", "solution"):
            if asked != "input" or answered == "output":
                found = from_record({asked.upper(): "q", answered: "a", "id": 7}, "f:1")
                assert [turn["content"] for turn in json.loads(found.text)["messages"]] == ["q", "a"]


def test_a_part_of_a_request_is_never_lost():
    """A shape that does not know a field of the request refuses the record, and says what to write."""
    from corpus.chats import from_record

    found = from_record({"problem": "p", "options": "a) 1", "solution": "s"}, "f:1")
    assert found.rule == "no_chat" and "options would be lost" in found.detail and "?user=" in found.detail


# -- the hub, and folders as it lays them out


@pytest.mark.parametrize(
    "source, name, arguments",
    [
        ("wmt19-zh-en", "wmt/wmt19", {"name": "zh-en", "data_dir": None, "split": "train"}),
        ("ultrachat", "HuggingFaceH4/ultrachat_200k", {"data_dir": None, "split": "train_sft"}),
        ("hc3", "json", {"data_files": "hf://datasets/Hello-SimpleAI/HC3/all.jsonl", "split": "train"}),
        (
            "github-code",
            "parquet",
            {"data_files": "hf://datasets/codeparrot/github-code/data/*.parquet", "split": "train"},
        ),
        ("hf:a/b:c?config=d&split=e", "a/b", {"name": "d", "data_dir": "c", "split": "e"}),
    ],
)
def test_what_the_library_of_the_hub_is_asked_for(monkeypatch, source, name, arguments):
    """One that is known by a script of its own, which the library runs no more, is read by its files."""
    asked = []

    def load_dataset(*names, **given):
        asked.append((*names, given))
        return iter(())

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert list(read(source)) == [] and asked == [(name, {**arguments, "streaming": True})]


def test_a_gate_is_named_where_a_set_cannot_be_read(monkeypatch):
    def load_dataset(*_, **__):
        raise PermissionError("401")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match="401 .log in and accept the terms of The Stack on its page"):
        list(read("starcoderdata"))


@pytest.mark.parametrize(
    "files",
    [
        {
            "data/train-00000-of-00002.jsonl": "train",
            "data/train-00001-of-00002.jsonl": "train",
            "data/test.jsonl": "test",
        },
        {"train.jsonl": "train", "test.jsonl": "test", "README.md": "", "validation.jsonl": "validation"},
        {"train/a.jsonl": "train", "train/b.jsonl": "train", "dev/a.jsonl": "validation", "test/a.jsonl": "test"},
        {"data/train_sft-00000-of-00001.jsonl": "train_sft", "data/train-00000-of-00001.jsonl": "train"},
    ],
)
def test_a_copy_is_read_by_split(tmp_path, files):
    for name, split in files.items():
        written(tmp_path / name, [{"text": f"{split} {name}"}])
    for split in set(files.values()) - {""}:
        expected = {f"{split} {name}" for name, of in files.items() if of == split}
        assert set(texts(f"hf:a/b@{tmp_path}?split={split}")) == expected
    assert all(text.startswith("train ") for text in texts(f"hf:a/b@{tmp_path}"))
    with pytest.raises(UserError, match="has no split 'valid_gen': it has "):
        texts(f"hf:a/b@{tmp_path}?split=valid_gen")


def test_a_plain_folder_has_splits_where_they_are_asked_for(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        written(tmp_path / name, [{"text": name}])
    assert texts(f"{tmp_path}?split=test") == ["test.jsonl"] and len(texts(tmp_path)) == 2
    assert texts(f"wiki2019zh@{tmp_path}") == ["train.jsonl"], "a set's copy is its training part"
    written(tmp_path / "wiki/AA/wiki_00", [{"title": "T", "text": "x"}])
    assert texts(f"wiki2019zh@{tmp_path}/wiki") == ["T\n\nx"], "its files have no suffix"


def test_another_part_of_a_set_does_not_pass_for_the_one_that_is_asked_for(tmp_path):
    written(tmp_path / "fineweb-edu-dedup/train-0.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match="has nothing of 'python-edu': it has fineweb-edu-dedup"):
        texts(f"python-edu@{tmp_path}")
    with pytest.raises(UserError, match="there is no nowhere"):
        parsed("dolly@nowhere?split=x")


def test_a_wrong_entry_of_a_set_is_one_line(monkeypatch):
    for entry in ({"licence": "mit"}, {"keep": "toxic"}, {"documents": "many"}, {"hub": "a/b", "user": "{q}"}):
        monkeypatch.setitem(SETS, "mine", {"hub": "a/b", **entry})
        with pytest.raises(UserError, match="mine"):
            parsed("mine")


def test_a_copy_is_read_by_config_and_folder(tmp_path):
    for name in ("data/python/a.jsonl", "data/ruby/a.jsonl", "python-edu/train-0.jsonl"):
        written(tmp_path / name, [{"text": name}])
    assert texts(f"hf:a/b:data/ruby@{tmp_path}") == ["data/ruby/a.jsonl"]
    assert texts(f"hf:a/b@{tmp_path}?config=python-edu") == ["python-edu/train-0.jsonl"]
    assert texts(f"hf:a/b@{tmp_path}?files=data/python/*.jsonl") == ["data/python/a.jsonl"]


def test_a_copy_is_read_as_the_library_of_the_hub_reads_it(tmp_path):
    """The same rows in the same order, by the same names of splits."""
    datasets = pytest.importorskip("datasets")
    for split, shards in (("train_sft", 2), ("test_sft", 1), ("train", 3)):
        for n in range(shards):
            name = f"data/{split}-{n:05}-of-{shards:05}.jsonl"
            written(tmp_path / name, [{"text": f"{split} {n} {i}"} for i in range(5)])
    for split in ("train_sft", "test_sft", "train"):
        rows = datasets.load_dataset(str(tmp_path), split=split, streaming=True)
        assert texts(f"hf:a/b@{tmp_path}?split={split}") == [row["text"] for row in rows]
