"""Parquet files -> records, one at a time. What cannot be read costs itself alone: a value, a row, or a row group.

pyarrow reads them. Its conversion of a whole column fails where one value has no counterpart in Python, so the values
of such a column are converted one by one.
"""

from collections.abc import Mapping

from configurator import UserError
from corpus.records import Problem, damage, open_regular, optional


def read_parquet(path, where, names=None):
    """Yield (record, where:row) of a parquet file, and a Problem for each row group from where on it is damaged. names:
    the columns to read; None, or where there is none of them: all."""
    first = 1  # row of the row group
    try:
        open_regular(path).close()
        with optional("pyarrow.parquet", ".parquet files").ParquetFile(path) as table:
            columns = [name for name in table.schema_arrow.names if name in (names or ())]
            for group in range(table.num_row_groups):
                yield from read_row_group(table, group, columns or None, where, first)
                first += table.metadata.row_group(group).num_rows
        if first == 1:
            yield Problem(where, "empty")
    except UserError:
        raise
    except Exception as error:  # pyarrow's own are of many kinds
        yield damage(error, where, first)


def read_row_group(table, group, columns, where, row):
    """Yield (record, where:row) of a row group of a pyarrow ParquetFile. row: the number of its first row."""
    try:
        for batch in table.iter_batches(batch_size=256, row_groups=[group], columns=columns):
            values = {name: column_values(batch[name]) for name in batch.schema.names}
            for i in range(batch.num_rows):
                yield {name: values[name][i] for name in values}, f"{where}:{row}"
                row += 1
    except Exception as error:  # as above
        yield damage(error, where, row)


def column_values(column):
    """The values of a column of pyarrow as a list. If one cannot be converted, the others still are. Bytes are taken
    for text, since many writers do not say that their strings are strings."""
    try:
        values = column.to_pylist()
    except Exception:  # UnicodeDecodeError, OverflowError, KeyError for a time zone, ...
        values = [scalar_value(scalar) for scalar in column]
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def scalar_value(scalar):
    """A value of pyarrow as Python's. Bytes that are not UTF-8 become characters of NOT_UTF8; a value that Python has
    nothing for, such as a time in nanoseconds, becomes text; None where there is no text for it either."""

    def with_bad_bytes():
        """The string of a scalar, which may be one of a dictionary."""
        data = getattr(scalar, "value", scalar).as_buffer().to_pybytes()
        return data.decode("utf-8", "surrogateescape")

    def parts():
        """A list or a struct, part by part."""
        if isinstance(scalar, Mapping):
            return {name: scalar_value(part) for name, part in scalar.items()}
        return [scalar_value(part) for part in scalar.values]

    def as_text():
        """What pyarrow writes for the value; <value out of range: ...> is no text for it."""
        text = scalar.cast("string").as_py()
        return None if text.startswith("<value") else text

    for convert in (scalar.as_py, with_bad_bytes, parts, as_text):
        try:
            return convert()
        except Exception:  # as above
            pass
    return None
