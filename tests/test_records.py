"""Files of JSON: every form, every compression, every kind of damage; what cannot be read costs itself alone."""

import bz2
import codecs
import gzip
import itertools
import json
import lzma
import random
import struct
import zlib
from functools import partial

import pytest

from configurator import UserError
from corpus import chats, records
from corpus.documents import Document, Problem, read_file

A, B, C = '{"text": "a"}', '{"text": "b"}', '{"text": "c"}'


def read_back(tmp_path, data, name="x.jsonl", parse=None):
    """(texts, {where: rule of a Problem}) of a file with these bytes."""
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))
    items = list(read_file(path, name, parse))
    problems = [item for item in items if isinstance(item, Problem)]
    assert len({problem.where for problem in problems}) == len(problems), "a place is named once"
    return [item.text for item in items if isinstance(item, Document)], {p.where: p.rule for p in problems}


PRETTY = json.dumps([json.loads(A), json.loads(B), json.loads(C)], indent=2)
ABC_FORMS = {
    "lines": f"{A}\n{B}\n{C}\n",
    "no newline at the end": f"{A}\n{B}\n{C}",
    "Windows": f"{A}\r\n{B}\r\n{C}\r\n",
    "old Macintosh": f"{A}\r{B}\r{C}\r",
    "byte order mark": codecs.BOM_UTF8 + f"{A}\n{B}\n{C}".encode(),
    "UTF-16": f"{A}\n{B}\n{C}\n".encode("utf-16"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + f"{A}\n{B}\n{C}\n".encode("utf-16-be"),
    "two files with marks joined": f"\ufeff{A}\n{B}\n\ufeff{C}\n",
    "blank lines first": f"\n \n\n{A}\n\n{B}\n{C}\n\n",
    "commas behind": f"{A},\n{B},\n{C},\n",
    "on one line": f"{A}{B} {C}",
    "line separators in between": f"{A}\u2028\n{B}\n\u2029{C}",
    "record separators, RFC 7464": f"\x1e{A}\n\x1e{B}\n\x1e{C}\n",
    "objects over several lines": "\n".join(json.dumps(json.loads(text), indent=1) for text in (A, B, C)),
    "array": f"[{A},{B},{C}]",
    "array over lines": f"[\n{A},\n{B},\n{C}\n]\n",
    "indented array": PRETTY,
    "blank line before an array": f"\n\n  {PRETTY}",
    "byte order mark and blank line before an array": codecs.BOM_UTF8 + f"\n{PRETTY}".encode(),
    "blank line and byte order mark before an array": f"\n\ufeff\n{PRETTY}",
    "UTF-16 array": PRETTY.encode("utf-16"),
    "comma before the array's end": f"[{A},{B},{C},]",
    "two arrays": f"[{A},{B}]\n[{C}]",
    "array, then lines": f"[{A},{B}]\n{C}\n",
}


@pytest.mark.parametrize("data", ABC_FORMS.values(), ids=ABC_FORMS)
@pytest.mark.parametrize("piece", [1 << 20, 7])  # characters that are read at a time
def test_every_form_of_json_is_read(tmp_path, monkeypatch, data, piece):
    monkeypatch.setattr(records, "PIECE", piece)
    for name in ("x.jsonl", "x.json", "x.ndjson"):
        assert read_back(tmp_path, data, name) == (["a", "b", "c"], {})
    assert [record["text"] for record in records.read_lines(tmp_path / "x.json")] == ["a", "b", "c"]


BAD_LINES = {
    "{broken": "bad_json",
    '{"text": "cut': "bad_json",
    '{"text":': "bad_json",
    "[" * 100_000: "bad_json",
    '{"a":' * 100_000: "bad_json",
    "5": "bad_json",
    '"text"': "bad_json",
    "[1]": "bad_json",
    '{"text": "\ttab"}': "bad_json",
    "\0" * 99: "bad_json",
    "# a comment": "bad_json",
    '{"text": "\udcff"}': "bad_utf8",
    '{"text": "x", "path": "\udcff"}': "bad_utf8",
    "\udcff": "bad_utf8",
    '{"text": "\\ud800"}': "bad_utf8",
    '{"text": "\\udcff"}': "bad_utf8",
    '{"text": "\\u0000"}': "nul_byte",
    '{"text": 5}': "no_text",
    '{"text": null}': "no_text",
    '{"text": ["x"]}': "no_text",
    '{"title": "x"}': "no_text",
    '{"data": [{"text": "x"}]}': "no_text",
    '{"\\ud800": 1}': "no_text",
}


@pytest.mark.parametrize("line, rule", BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_bad_line_costs_itself_alone(tmp_path, line, rule):
    assert read_back(tmp_path, f"{A}\n{line}\n{B}") == (["a", "b"], {"x.jsonl:2": rule})
    if not line.startswith("["):
        assert read_back(tmp_path, f"{line}\n{A}\n{B}") == (["a", "b"], {"x.jsonl:1": rule})
    assert read_back(tmp_path, f"{A}\n{line}") == (["a"], {"x.jsonl:2": rule})


@pytest.mark.parametrize("element", ["{broken}", "nope", '{"text": "\udcff"}', "[" * 9999, "5", '{"text": "x"'])
def test_a_bad_element_of_an_indented_array_costs_itself_alone(tmp_path, element):
    texts, problems = read_back(tmp_path, f"[\n  {A},\n  {element},\n  {B},\n  {C}\n]", "x.json")
    assert texts == ["a", "b", "c"] and list(problems) == ["x.json:[1]"]


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"value": "q", "from": "human"}, {"value": "a", "from": "gpt"}]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("turns", [TURNS, SHAREGPT])
def test_an_array_of_turns_is_one_record(tmp_path, turns, indent):
    """However many of them a file holds, and also where one of them is damaged."""
    one = json.dumps(turns, indent=indent) + "\n"
    for n in (1, 3):
        texts, problems = read_back(tmp_path, one * n, parse=chats.from_record)
        assert len(texts) == n and not problems
    texts, problems = read_back(tmp_path, one + one[:-9] + "\n" + one, parse=chats.from_record)
    assert len(texts) == 2 and len(problems) == 1


@pytest.mark.parametrize("rest", [",nope," + B + "]", ',{"te', "", ",", "] and more", ',"cut'])
def test_an_array_that_breaks_off_gives_what_stands_before(tmp_path, rest):
    texts, problems = read_back(tmp_path, f"[{A},{B}{rest}", "x.json")
    assert texts == ["a", "b"] and len(problems) == 1
    problem = list(read_file(tmp_path / "x.json", "x.json"))[-1]
    assert "nothing that follows is read" in problem.detail or problem.detail == "the array has no end"


@pytest.mark.parametrize("data", ["", " \n\n", "[]", "[\n]\n", codecs.BOM_UTF8, gzip.compress(b"", mtime=0)])
def test_a_file_without_records_is_named(tmp_path, data):
    assert read_back(tmp_path, data, "x.json") == ([], {"x.json": "empty"})


def test_numbers_beyond_every_type_keep_their_record(tmp_path):
    odd = ["NaN", "-Infinity", "1e999", "1" + "0" * 400, "1" + "0" * 5000, "-1" + "0" * 5000, "1.5", '"many"', "{}"]
    data = "\n".join(f'{{"text": "{i}", "stars": {number}}}' for i, number in enumerate(odd))
    assert read_back(tmp_path, data) == ([str(i) for i in range(len(odd))], {})
    assert read_back(tmp_path, '{"text": "first", "text": "last"}')[0] == ["last"]


def test_memory_does_not_depend_on_the_length_of_a_line_or_an_array(tmp_path, monkeypatch):
    """A line beyond MAX_VALUE is a bad one; an array, on one line, may be as long as it likes."""
    monkeypatch.setattr(records, "PIECE", 100)
    monkeypatch.setattr(records, "MAX_VALUE", 1000)
    long = json.dumps({"text": "x" * 3000})
    assert read_back(tmp_path, f"{A}\n{long}\n{B}") == (["a", "b"], {"x.jsonl:2": "bad_json"})
    assert read_back(tmp_path, f"{A}\n{A}{' ' * 3000}{B}\n{B}")[0] == ["a", "a", "b"]
    assert len(read_back(tmp_path, "[" + ",".join([A] * 3000) + "]", "x.json")[0]) == 3000


# -- compression

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": partial(lzma.compress, preset=0)}
LINES = [json.dumps({"text": f"{i} {zlib.crc32(b'%d' % i):x}"}) for i in range(4000)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compression_is_told_by_the_first_bytes(tmp_path, suffix):
    data = COMPRESS[suffix](f"{A}\n{B}\n".encode())
    for name in ("x.jsonl" + suffix, "X.JSONL" + suffix.upper(), "x.json", "x.ndjson.zst"):
        assert read_back(tmp_path, data, name) == (["a", "b"], {})
    assert read_back(tmp_path, f"{A}\n{B}", "x.jsonl" + suffix) == (["a", "b"], {}), "plain text under such a name"
    several = data + COMPRESS[suffix](C.encode())
    assert read_back(tmp_path, several, "x.jsonl" + suffix) == (["a", "b", "c"], {})
    assert read_back(tmp_path, COMPRESS[suffix]("é = 1\n".encode()), "x.py" + suffix) == (["é = 1\n"], {})


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_damaged_archive_gives_what_stands_before_the_damage(tmp_path, suffix):
    whole = COMPRESS[suffix]("\n".join(LINES).encode())
    bad = bytearray(whole)
    bad[len(bad) // 2] ^= 255
    for data in (whole[: len(whole) // 2], whole[:-3], bytes(bad), whole[:20]):
        texts, problems = read_back(tmp_path, data, "x.jsonl" + suffix)
        assert texts == [json.loads(line)["text"] for line in LINES[: len(texts)]] or suffix == ".gz"
        assert list(problems.values())[-1:] == ["truncated"]
    assert read_back(tmp_path, b"no archive" + bytes(9), "x.jsonl" + suffix) == (
        [],
        {f"x.jsonl{suffix}:1": "truncated"},
    )


def test_garbage_behind_an_archive_costs_nothing(tmp_path):
    data = gzip.compress(f"{A}\n{B}\n".encode())
    assert read_back(tmp_path, data + bytes(99), "x.jsonl.gz") == (["a", "b"], {})
    assert read_back(tmp_path, data + b"garbage", "x.jsonl.gz") == (["a", "b"], {"x.jsonl.gz:3": "truncated"})


def test_zstandard_frames(tmp_path):
    """Windows above 128 MB, as zstd --long=31 makes them, frames to be skipped, several frames, garbage, cuts."""
    zstandard = pytest.importorskip("zstandard")
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(f"{A}\n{B}\n".encode()) + stream.flush()
    skipped = struct.pack("<II", 0x184D2A51, 3) + b"abc"
    for name in ("x.jsonl.zst", "X.JSONL.ZSTD", "x.jsonl"):
        assert read_back(tmp_path, data, name) == (["a", "b"], {})
        assert read_back(tmp_path, skipped + data + skipped + data, name) == (["a", "b"] * 2, {})
    assert read_back(tmp_path, data + b"garbage", "x.jsonl.zst") == (["a", "b"], {"x.jsonl.zst:3": "truncated"})
    assert read_back(tmp_path, data[:-3], "x.jsonl.zst")[1] == {"x.jsonl.zst:1": "truncated"}


# -- files that a person names


def test_what_is_no_record_is_named_with_its_file_and_line(tmp_path):
    path = tmp_path / "x.jsonl"
    for line in ("[1]", "5", "{broken", '{"a": "\udcff"}', "[" * 100_000, '{"a": 1} and more'):
        path.write_bytes(f"{A}\n\n{line}\n{B}".encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match=r"x.jsonl is not a file of JSON records, one a line \(line 3"):
            list(records.read_lines(path))
    path.write_text(f"[{A}, 5]")
    with pytest.raises(UserError, match=r"element \[1\]: not an object"):
        list(records.read_lines(path))
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        list(records.read_lines(tmp_path / "none.jsonl"))


def test_what_is_written_is_read_back(tmp_path):
    for record in ({"id": "caf\udce9.py", "\udcff": ["\ud800"], "é": "\U0001f600\n"}, {"n": [1.5, None, True]}):
        line = records.json_line(record)
        assert json.loads(line) == record and line.count(b"\n") == 1 and "\udce9" not in line.decode()


# -- anything


def mutations(seed, n):
    """(name, bytes): files of records, some compressed, with bytes changed, cut out, doubled and put in."""
    rng = random.Random(seed)
    odd = [b"\0", b"\xff", b"\n", b"\r", b"[", b"]", b"{", b"}", b",", b'"', b"\\ud800", b"1" * 5000, b"[" * 3000]
    plain = [f"{A}\n{B}\n".encode(), PRETTY.encode(), PRETTY.encode("utf-16"), f"{A}\n[{B}]\n".encode(), b"x = 1\n"]
    for _ in range(n):
        data = bytearray(rng.choice(plain))
        compress = rng.choice([bytes, bytes, *COMPRESS.values()])
        for level in range(2):
            for _ in range(rng.randrange(4)):
                i = rng.randrange(len(data) + 1)
                cut, put = rng.choice([0, 1, 1, 9]), rng.choice([b"", rng.choice(odd), data[i : i + 20]])
                data[i : i + cut] = put
            data = bytearray(compress(bytes(data))) if level == 0 else data
        yield rng.choice(["x.jsonl", "x.json", "x.py"]) + rng.choice(["", ".gz", ".XZ"]), bytes(data)


def test_whatever_a_file_holds_comes_out_as_documents_and_problems(tmp_path):
    for (name, data), parse in zip(mutations(0, 1000), itertools.cycle([None, None, chats.from_record])):
        path = tmp_path / name
        path.unlink(missing_ok=True)  # a new file is written faster than an old one is overwritten
        path.write_bytes(data)
        items = list(read_file(path, name, parse))
        assert items, data
        for item in items:
            assert isinstance(item, (Document, Problem)), data
            if isinstance(item, Document):
                item.text.encode()
            else:
                assert json.loads(records.json_line([item.where, item.rule, item.detail]))
