"""Similar documents side by side: in-context pretraining (arXiv:2310.10638), by words instead of a neural network.

    1. Identifiers are cut into words: readLine and read_line are "read line". A document is a vector with one entry per
       word, the larger, the more often it has the word and the fewer other documents have it (TF-IDF).
    2. Its neighbours are the N_NEIGHBOURS documents of largest cosine. Near copies are no neighbours: who finds one in
       the context learns to copy and nothing else.
    3. A path begins at the document with the fewest neighbours. It goes on to the most similar neighbour that is on no
       path yet, until there is none or the path is long enough; then the next path begins.

Memory is 50 bytes per different word of a document, about 13 kB per file of code. Time grows with the square of the
number of documents.
"""

import re
from collections import Counter

import numpy as np
from tqdm import tqdm

from cleaning.dedup import jaccard

N_NEIGHBOURS = 10
MAX_WORDS = 100  # entries of a vector, the largest ones; the others change a cosine little
MAX_JACCARD = 0.7  # of two documents' sets of words, above which they are near copies
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]")  # of other alphabets every letter is a word


def arranged(texts, lengths, path_tokens):
    """An order of documents in which neighbours are similar: their numbers, int (n,). texts: an iterable of str, of
    which one at a time is in memory. lengths: the tokens of each. path_tokens: a path that has so many ends."""
    return greedy_paths(*similar_pairs(texts), lengths, path_tokens)


def similar_pairs(texts):
    """(pairs of documents that are neighbours, int (m, 2); their cosines), without near copies."""
    starts, words, counts = bags_of_words(texts)
    pairs, cosines = neighbours(*vectors(starts, words, counts))
    sets = [words[start:end] for start, end in zip(starts[:-1], starts[1:])]
    is_copy = np.array([jaccard(sets[a], sets[b]) > MAX_JACCARD for a, b in pairs], bool)
    return pairs[~is_copy], cosines[~is_copy]


def bags_of_words(texts):
    """(starts, words, counts): document i has the words with the numbers words[starts[i] : starts[i + 1]], rising, each
    as often as counts says."""
    numbers, words, counts = {}, [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for text in texts:
        found = Counter(map(str.lower, WORD.findall(text)))
        ids = np.array([numbers.setdefault(word, len(numbers)) for word in found], np.int32)
        rising = np.argsort(ids)
        words.append(ids[rising])
        counts.append(np.array(list(found.values()), np.int32)[rising])
    return np.cumsum([len(ids) for ids in words]), np.concatenate(words), np.concatenate(counts)


def vectors(starts, words, counts):
    """The TF-IDF vectors of documents, of length 1, in the same form: (starts, words, weights).

    weight = (1 + ln(count of the word here)) x ln(documents / documents with the word). A word that no other document
    has is left out: it can agree with nothing."""
    n = len(starts) - 1
    rows, n_with_word = np.repeat(np.arange(n), np.diff(starts)), np.bincount(words)
    weights = (1 + np.log(counts)) * np.log(n / n_with_word[words])
    weights[n_with_word[words] == 1] = 0
    heaviest_first = np.lexsort((-weights, rows))  # row by row
    place_in_row = np.arange(len(rows)) - starts[rows]
    kept = heaviest_first[place_in_row < MAX_WORDS]
    kept = np.sort(kept[weights[kept] > 0])
    rows, words, weights = rows[kept], words[kept], weights[kept]
    weights /= np.sqrt(np.bincount(rows, weights**2, minlength=n))[rows]
    return np.searchsorted(rows, np.arange(n + 1)), words, weights


def neighbours(starts, words, weights):
    """(pairs, int (m, 2), with the smaller number first; their cosines): each document with those N_NEIGHBOURS that are
    most similar to it, of equally similar ones the first.

    A row of the product of the matrix with its transpose at a time, from lists of the documents that have a word."""
    n, rows = len(starts) - 1, np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    by_word = np.argsort(words, kind="stable")
    with_word, their_weights = rows[by_word], weights[by_word]
    bounds = np.searchsorted(words[by_word], np.arange(words.max(initial=0) + 2))
    pairs, cosines = [], []
    for i in tqdm(range(n), desc="seeking neighbours", unit="document", delay=2):
        row = np.zeros(n)
        for word, weight in zip(words[starts[i] : starts[i + 1]], weights[starts[i] : starts[i + 1]]):
            part = slice(bounds[word], bounds[word + 1])
            row[with_word[part]] += weight * their_weights[part]
        row[i] = 0
        least = np.partition(row, -N_NEIGHBOURS)[-N_NEIGHBOURS] if n > N_NEIGHBOURS else 0
        found = np.flatnonzero((row >= least) & (row > 0))
        for j in found[np.argsort(-row[found], kind="stable")][:N_NEIGHBOURS]:
            pairs.append((min(i, j), max(i, j)))
            cosines.append(row[j])
    pairs, first = np.unique(np.array(pairs, np.int64).reshape(-1, 2), axis=0, return_index=True)
    return pairs, np.array(cosines)[first]


def greedy_paths(pairs, cosines, lengths, path_tokens):
    """The numbers of all documents, path behind path, int (n,). pairs: which documents are neighbours, int (m, 2)."""
    ends, others = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((others, -np.tile(cosines, 2), ends))  # of each document the most similar first
    others, starts = others[order], np.searchsorted(ends[order], np.arange(len(lengths) + 1))
    visited, path = np.zeros(len(lengths), bool), []
    for document in np.argsort(np.diff(starts), kind="stable"):  # those with fewest neighbours first
        n_tokens = 0
        while document is not None and not visited[document]:
            visited[document] = True
            path.append(document)
            n_tokens += lengths[document]
            near = others[starts[document] : starts[document + 1]]
            near = near[~visited[near]]
            document = near[0] if len(near) and n_tokens < path_tokens else None
    return np.array(path, np.int64)
