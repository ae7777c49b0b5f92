"""Data sets of the Hugging Face hub: streamed from there, or read from a folder that is laid out as theirs are."""

import os
import re
from pathlib import Path

from configurator import UserError
from corpus import records
from corpus.records import optional
from corpus.sources import SETS


def records_of(source):
    """Yield (record, where) of a data set on the hub, streamed. Raises UserError where the stream ends in an error:
    half of a data set must not pass for all of it."""
    datasets = optional("datasets", "hub data sets")
    row, (name, arguments) = 0, load_arguments(source)
    try:
        stream = datasets.load_dataset(name, **arguments, split=source.split or "train", streaming=True)
        for row, record in enumerate(stream, 1):
            yield record, f"{source.hub}:{row}"
    except Exception as error:  # of datasets, of the network, of pyarrow, of packages that decode: of any kind
        place = f"after row {row}: " if row else ""
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"cannot read {source.hub!r} from the hub: {place}{what}{gate(source)}") from None


def load_arguments(source):
    """(name, arguments) that datasets.load_dataset takes for a source."""
    if source.files:  # a set that is known by a script of its own, which datasets no longer runs, or that mixes files
        kind = os.path.splitext(records.without_compression(source.files))[1]
        builder = "parquet" if kind == ".parquet" else "json"
        return builder, {"data_files": f"hf://datasets/{source.hub}/{source.files}"}
    config = {"name": source.config} if source.config else {}
    return source.hub, {**config, "data_dir": source.data_dir or None}


def gate(source):
    """What a person must accept before a set can be read, if anything."""
    about = next((about for about in SETS.values() if about.get("hub") == source.hub), {})
    return f" ({about['gated']})" if about.get("gated") else ""


def files_of(found, source):
    """The data files of a split, and the Problems, of what walk() finds in a folder that is laid out as the hub lays
    out a set: the split's name stands in the name of the file or of a folder around it, the config's and data_dir in
    the path. Raises UserError where there are none."""
    problems = [item for item in found if not isinstance(item, Path)]
    files = {path: path.relative_to(source.path) for path in found if isinstance(path, Path) and is_data(path)}
    for part in filter(None, [source.config, source.data_dir, source.files]):
        inside = {path: place for path, place in files.items() if place.match(part) or f"/{part}/" in f"/{place}"}
        if not inside and (folders := {place.parts[0] for place in files.values()} & folders_in(files.values())):
            raise UserError(f"{source.path} has nothing of {part!r}: it has {', '.join(sorted(folders))}")
        files = inside or files
    if source.files:
        return [*problems, *files]
    split, splits = source.split or "train", {path: split_of(place) for path, place in files.items()}
    if not any(splits.values()) and split == "train":  # a set without splits is all train, as on the hub
        return [*problems, *files]
    return [*problems, *([path for path in files if splits[path] == split] or missing(source, split, splits))]


def folders_in(places):
    """The first folders of some paths that are no name of a split, nor "data": those of configs."""
    return {
        place.parts[0]
        for place in places
        if len(place.parts) > 1 and place.parts[0] != "data" and not split_of(place.parent)
    }


def missing(source, split, splits):
    """Raise a UserError that names the splits that are there."""
    there = ", ".join(sorted({name for name in splits.values() if name})) or "train"
    raise UserError(f"{source.path} has no split {split!r}: it has {there}")


SPLIT = re.compile(r"(?:^|[/._-])(train|test|val(?:id|idation)?|dev)((?:_[a-z]+)*)(?=[/._-]|$)")


def split_of(path):
    """The split in a file's path, as the hub knows it: train, test_sft, validation; "" where there is none."""
    found = SPLIT.findall(path.as_posix().lower())
    if not found:
        return ""
    name, more = found[-1]
    return {"val": "validation", "valid": "validation", "dev": "validation"}.get(name, name) + more


def is_data(path):
    """Whether a file holds records: a set's folder also has a README and the like."""
    kind = os.path.splitext(records.without_compression(path.name.lower()))[1]
    about_it = ("dataset_infos.json", "dataset_info.json", "LICENSE", "NOTICE")
    return kind in (".parquet", "", *records.JSON) and path.name not in about_it
