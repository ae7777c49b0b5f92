"""Parquet: one value that cannot be converted, one damaged row group, costs itself alone."""

import datetime

import pytest

from corpus import chats
from corpus.documents import Document, Problem, read_file

pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def read_back(tmp_path, columns, parse=None, name="x.parquet", **options):
    """(Documents, {where: rule of a Problem}) of a parquet file with these columns."""
    if columns is not None:
        parquet.write_table(pyarrow.table(columns), tmp_path / name, **options)
    items = list(read_file(tmp_path / name, name, parse))
    problems = {item.where: item.rule for item in items if isinstance(item, Problem)}
    return [item for item in items if isinstance(item, Document)], problems


def strings(values):
    """A column of strings from bytes, which need not be UTF-8."""
    return pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())


@pytest.mark.parametrize("name", ["x.parquet", "X.PARQUET"])
def test_a_row_with_a_bad_byte_costs_itself_alone(tmp_path, name):
    rows = [b"text %d" % i for i in range(600)]
    rows[300] = b"caf\xe9"
    documents, problems = read_back(tmp_path, {"content": strings(rows), "id": list(range(600))}, name=name)
    assert [document.meta["id"] for document in documents] == [i for i in range(600) if i != 300]
    assert problems == {f"{name}:301": "bad_utf8"}


def integers(values, kind):
    """Integers taken for values of another type of the same width, as a damaged or careless writer leaves them."""
    width = pyarrow.int32() if kind == pyarrow.date32() else pyarrow.int64()
    return pyarrow.array(values, width).cast(kind)


# A column in which the first value has no counterpart in Python or is nested, and what is read of that value.
ODD_VALUES = {
    "date after the year 9999": (integers([2**31 - 1, 0], pyarrow.date32()), None),
    "time after the year 9999": (integers([2**62, 0], pyarrow.timestamp("us")), None),
    "time before the year 1": (integers([-(10**12), 0], pyarrow.timestamp("s")), "-29719-04-05 22:13:20.000"),
    "time zone of another planet": (integers([0, 0], pyarrow.timestamp("s", "Mars/Phobos")), None),
    "duration of ages": (integers([2**62, 0], pyarrow.duration("s")), "4611686018427387904"),
    "bytes": (pyarrow.array([b"\xff", b"x"]), "\udcff"),
    "bad bytes": (strings([b"caf\xe9", b"x"]), "caf\udce9"),
    "bad bytes in a dictionary": (pyarrow.DictionaryArray.from_arrays([0, 1], strings([b"x", b"y"])), "x"),
    "bad bytes in a list": (pyarrow.ListArray.from_arrays([0, 1, 2], strings([b"\xe9", b"x"])), ["\udce9"]),
    "bad bytes in a struct": (pyarrow.StructArray.from_arrays([strings([b"\xe9", b"x"])], ["a"]), None),
    "nothing": (pyarrow.nulls(2), None),
    "a map": (pyarrow.array([[("a", 1)], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())), None),
    "a number of 400 digits": (pyarrow.array(["9" * 400, "1"]), "9" * 400),
}


@pytest.mark.parametrize("column, value", ODD_VALUES.values(), ids=ODD_VALUES)
@pytest.mark.parametrize("name", ["date", "stars", "path"])
def test_a_value_that_python_has_nothing_for_costs_itself_alone(tmp_path, column, value, name):
    documents, problems = read_back(tmp_path, {"text": ["a", "b"], name: column})
    assert [document.text for document in documents] == ["a", "b"] and problems == {}
    assert documents[0].meta == ({} if value is None else {name: value})


def test_nanoseconds_are_read_with_pandas_and_without(tmp_path):
    column = integers([1577836800000000001, 1577836800000000000], pyarrow.timestamp("ns"))
    documents, problems = read_back(tmp_path, {"text": ["a", "b"], "date": column})
    assert problems == {} and str(documents[0].meta["date"]).startswith("2020-01-01 00:00:00.000000001")
    assert str(documents[1].meta["date"]).startswith(str(datetime.datetime(2020, 1, 1)))


def test_text_that_its_writer_stored_as_bytes_is_read(tmp_path):
    documents, problems = read_back(tmp_path, {"text": pyarrow.array(["é".encode(), b"\xff"])})
    assert [document.text for document in documents] == ["é"] and problems == {"x.parquet:2": "bad_utf8"}


def test_a_bad_byte_in_a_conversation_costs_that_one_alone(tmp_path):
    contents = strings([b"q", b"a", b"q", b"\xff", b"q", b"a"])
    turns = pyarrow.StructArray.from_arrays([pyarrow.array(["user", "assistant"] * 3), contents], ["role", "content"])
    column = pyarrow.ListArray.from_arrays([0, 2, 4, 6], turns)
    documents, problems = read_back(tmp_path, {"messages": column}, chats.from_record)
    assert [document.where for document in documents] == ["x.parquet:1", "x.parquet:3"]
    assert problems == {"x.parquet:2": "bad_utf8"}


def test_a_damaged_row_group_costs_itself_alone(tmp_path):
    path = tmp_path / "x.parquet"
    texts = [f"text {i} " * 20 for i in range(3000)]
    read_back(tmp_path, {"text": texts}, row_group_size=1000, use_dictionary=False)
    data, start = (
        bytearray(path.read_bytes()),
        parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset,
    )
    data[start : start + 400] = bytes(byte ^ 0x5A for byte in data[start : start + 400])
    path.write_bytes(data)
    documents, problems = read_back(tmp_path, None)
    assert [document.text for document in documents] == texts[:1000] + texts[2000:]
    assert problems == {"x.parquet:1001": "truncated"} and documents[-1].where == "x.parquet:3000"


@pytest.mark.parametrize("data", [b"", b"PAR1", b'{"text": "a"}\n', b"\0" * 999])
def test_what_is_no_parquet_is_one_problem(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    assert read_back(tmp_path, None) == ([], {"x.parquet:1": "truncated"})


def test_a_table_without_rows_or_without_texts_is_named(tmp_path):
    assert read_back(tmp_path, {"text": pyarrow.array([], pyarrow.string())}) == ([], {"x.parquet": "empty"})
    read_back(tmp_path, {"foo": [1], "bar": [2]})
    (problem,) = read_file(tmp_path / "x.parquet", "x.parquet")
    assert (problem.rule, problem.detail) == ("no_text", "fields: foo, bar")
