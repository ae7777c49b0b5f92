"""The order of the documents in the shards. A model's context is cut from this stream, so it sees neighbours together.

    as_read            the files of a folder one after the other, as the sources have them
    random             by the hash of the text
    alike              similar documents side by side (alike.py)
    repository         a repository is one document: each file after those that it imports (repositories.py)
    repository_random  the same with its files in random order

The documents that are kept are written once more, as chunks in the new order, and shards are made of these as of any
others. The order depends on the documents and the settings alone.

Memory: about 1 kB per document, and one document's or the largest repository's text; with `alike` 13 kB per document.
"""

import shutil

import numpy as np

from cleaning import alike, repositories
from cleaning.chunks import DOCUMENT, Chunks, ChunkWriter, split_number
from corpus.documents import joined


def in_order(chunks, stays, is_val, settings, tokenizer):
    """The documents of Chunks that stay, in settings.order, as new Chunks, of which there are as many. stays, is_val:
    bool (documents,)."""
    if settings.order.startswith("repository"):
        found = by_repository(chunks, stays, settings.order, tokenizer)
    else:
        order = by_likeness if settings.order == "alike" else by_hash
        # Each split by itself, so that no validation document stands between two that are trained on.
        splits = (np.flatnonzero(stays & ~is_val), np.flatnonzero(stays & is_val))
        numbers = np.concatenate([order(chunks, split, settings, tokenizer) for split in splits])
        found = ((chunks.documents[i], chunks.tokens(i)) for i in numbers)
    return rewritten(chunks, found, chunks.documents["tokens"][stays].sum(), tokenizer.eot)


def rewritten(chunks, found, n_tokens, eot):
    """New Chunks, as many as there were, of (DOCUMENT, its tokens without <|endoftext|>) as they come. n_tokens: about
    how many there will be, by which the chunks get equal parts."""
    folder, entries, written = chunks.folder / "ordered", [], 0
    shutil.rmtree(folder, ignore_errors=True)  # what a run that was interrupted has left
    folder.mkdir()
    for number, entry in enumerate(chunks.entries):
        writer, is_last = ChunkWriter(folder, number), number == len(chunks.entries) - 1
        try:
            while is_last or written < n_tokens * (number + 1) / len(chunks.entries):
                document, tokens = next(found, (None, None))
                if document is None:
                    break
                writer.append(document, np.concatenate([[eot], tokens]).astype("<u2"))
                written += len(tokens) + 1
            # The sha256 of what was read is needed in its place, to see whether it is the same in the next run.
            entries.append({**writer.close(), "documents_sha256": entry["documents_sha256"]})
        except BaseException:
            writer.abort()
            raise
    return Chunks(folder, entries)


# -- documents one by one


def by_hash(chunks, numbers, settings, tokenizer):
    """Numbers of documents in random order, by the hash of their texts."""
    return numbers[np.argsort(chunks.documents["split"][numbers], kind="stable")]


def by_likeness(chunks, numbers, settings, tokenizer):
    """Numbers of documents in an order that has similar ones side by side."""
    marks = list(tokenizer.special.values())  # of gaps and repositories: they are no words
    ids = map(chunks.tokens, numbers)
    texts = (tokenizer.decode(document[~np.isin(document, marks)]) for document in ids)
    return numbers[alike.arranged(texts, chunks.documents["tokens"][numbers], settings.path_tokens)]


# -- repositories


def by_repository(chunks, stays, order, tokenizer):
    """Yield (DOCUMENT, tokens) of each repository, and of each document that belongs to none, in random order.

    The split goes by the hash of the repository's name, so that all of it is on one side."""
    groups = {}  # (hash, source, name, number of a document that stands alone) -> [(path, number of the document)]
    for i, meta in enumerate(chunks.metas()):
        if stays[i]:
            name, path = repository_of(meta), str(meta.get("path") or "")
            split = split_number(name) if name else int(chunks.documents["split"][i])
            alone = -1 if name and path else i  # a record that holds a whole repository has no path
            groups.setdefault((split, int(chunks.documents["source"][i]), name, alone), []).append((path, i))
    for (split, source, name, alone), members in sorted(groups.items()):
        if alone >= 0:
            document, ids = chunks.documents[alone].copy(), chunks.tokens(alone)
        else:
            files = [(path, tokenizer.decode(chunks.tokens(i))) for path, i in members]
            document, ids = whole_repository(name, repositories.arranged(files, order), tokenizer)
        document["source"], document["split"] = source, split
        yield document, ids


def whole_repository(name, files, tokenizer):
    """(DOCUMENT, tokens) of a repository's files [(path, text), ...] in this order, as one document."""
    document, ids = np.zeros((), DOCUMENT), tokenizer.render_repository(name, files)
    document["tokens"] = document["counted"] = len(ids) + 1
    document["bytes"] = len(joined(files).encode("utf-8", "surrogatepass"))
    return document, ids


def repository_of(meta):
    """The name of a document's repository by its line in .meta: as its record has it; of a file below a source the
    first folder of its path, which is the package where packages are installed; or "" for none."""
    path = str(meta.get("path") or "")
    is_file = path and meta["where"].startswith(path)  # a record is called by its file and line
    return str(meta.get("repo") or "") or (path.partition("/")[0].removesuffix(".py") if is_file else "")
