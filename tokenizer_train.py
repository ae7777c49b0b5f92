"""Stage 1: documents, conversations -> a byte-level BPE tokenizer.

    python tokenizer_train.py
    python tokenizer_train.py --sources=my/ --vocab_size=16384 --out=my.json

Byte-pair encoding (Sennrich et al., arXiv:1508.07909) begins with the 256 bytes as tokens. Again
and again it joins the two neighbours that stand side by side most often to one new token, until the
vocabulary is full. Text is cut into pre-tokens first (words, digits, punctuation, white space), and
no merge crosses the border between two of them.

SentencePiece's trainer, in C++, learns the merges, and their order becomes the ranks with which
tiktoken encodes. The report says how the tokenizer does on text that it was not trained on.
"""

import needs  # noqa: F401

import collections
import hashlib
import io
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import regex
import sentencepiece
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus import chats
from corpus.documents import Document, read
from corpus.records import escaped
from corpus.sources import distinct, short_name, spare
from ranges import Amount, Place, Range, ShareBelow1
from tokenizer import MAX_VOCAB, PATTERNS, SPECIAL_TOKENS, Tokenizer

SMALLEST_VOCAB = 256 + len(SPECIAL_TOKENS)  # without a merge
MAX_PRETOKEN = 1000  # characters; a longer one is data, not language, and is left out


@dataclass
class Settings:
    """The settings of this stage."""

    # -- text
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # presets, files or folders to learn from
    chat_sources: list[str] = field(default_factory=list)  # the same for conversations, which it learns from too
    max_bytes: Amount = 100_000_000  # text to count per source: more changes the merges little
    holdout: ShareBelow1 = 0.05  # share of the documents kept back for the report
    # -- tokenizer
    # tokens in all: 256 bytes, the merges and 8 special tokens; each is stored in 16 bits
    vocab_size: Annotated[int, Range(SMALLEST_VOCAB, MAX_VOCAB)] = 2048
    # what cuts text into pre-tokens; gguf: as llama.cpp can, for 2 % more tokens at two thirds of the speed
    pattern: Literal[tuple(PATTERNS)] = "fast"
    out: Place = "data/tokenizer.json"  # the tokenizer; the report lies beside it


def main(settings):
    """Learn a tokenizer, save it, measure it on the documents kept back, and write and print a report."""
    start = time.time()
    report_path = settings.out.removesuffix(".json") + ".report.json"
    for path in (settings.out, report_path):
        spare(settings.sources + settings.chat_sources, path)
        if Path(path).is_dir():
            raise UserError(f"{path} is a folder: --out names a file")
    counts, held_out = count_pretokens(settings)
    ranks = learn_ranks(counts, settings.vocab_size)
    tokenizer = Tokenizer.from_bpe(PATTERNS[settings.pattern], ranks)
    tokenizer.save(settings.out)

    longest = sorted(tokenizer.token_bytes, key=len)[:-13:-1]
    report = {
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "seconds": time.time() - start,
        "held_out": {source: measure(tokenizer, texts) for source, texts in held_out.items()},
        "longest_tokens": [token.decode("utf-8", "replace") for token in longest],
        "settings": vars(settings),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(report_path, report)
    print_report(report, settings.out)


def count_pretokens(settings):
    """(counts, held_out): how often each pre-token occurs, and {source: texts} of the documents kept back.

    Merges do not depend on where a pre-token stands, so its count is all that the trainer needs. The hash of a document
    decides whether it is kept back, so that every run keeps back the same ones.
    """
    find_pretokens = regex.compile(PATTERNS[settings.pattern]).findall
    counts, held_out = collections.Counter(), {}
    given = [(source, False) for source in distinct(settings.sources)]
    given += [(source, True) for source in distinct(settings.chat_sources)]
    for source, holds_chats in given:
        kept_back, n_bytes = held_out.setdefault(source, []), 0
        with tqdm(desc=f"counting {escaped(short_name(source))}", unit="B", unit_scale=True) as bar:
            for text in texts(source, holds_chats):
                data = text.encode()
                if int.from_bytes(hashlib.sha256(data).digest()[:8]) < settings.holdout * 2**64:
                    kept_back.append(text)
                else:
                    counts.update(find_pretokens(text))
                n_bytes += len(data)
                bar.update(len(data))
                if n_bytes >= settings.max_bytes:
                    break
        if holds_chats and not n_bytes:
            raise UserError(f"no conversation in {source}: documents belong into --sources")
    if not counts:
        n_kept_back = sum(map(len, held_out.values()))
        why = f": all {n_kept_back:,} documents are kept back for the report, --holdout=0 keeps back none"
        names = ", ".join(settings.sources + settings.chat_sources)
        raise UserError(f"no text to learn from in {names}{why if n_kept_back else ''}")
    return counts, held_out


def texts(source, holds_chats):
    """Yield the text of each document of a source; of a conversation, who speaks and what is said. The marks between
    these are special tokens, in which there is nothing to merge. What cannot be read, prepare_data.py reports."""
    for item in read(source, chats.from_record if holds_chats else None):
        if not isinstance(item, Document):
            continue
        if holds_chats:
            messages = json.loads(item.text)["messages"]
            yield "\n".join(f"{message['role']}\n{message['content']}" for message in messages)
        else:
            yield item.text


def printable_bytes():
    """A list of printable characters, one for each byte, so that a trainer for text can learn over bytes. Printable
    ASCII stays as it is, every other byte b becomes U+0100 + b: " été", bytes 20 C3 A9 74 C3 A9, is written ĠǃƩtǃƩ."""
    return [chr(byte) if 33 <= byte < 127 else chr(0x100 + byte) for byte in range(256)]


def learn_ranks(counts, vocab_size):
    """The tokens, bytes, in rank order: the 256 bytes, then one token for each merge, as it was learnt.

    counts: how often each pre-token occurs. SentencePiece gives its pieces in the order of the merges, in printable
    characters. If " été" occurs 10 times and " et" 5 times, the first ones are

        piece   ǃƩ       tǃƩ         ĠǃƩ         ĠǃƩtǃƩ
        bytes   C3 A9    74 C3 A9    20 C3 A9    20 C3 A9 74 C3 A9
        text    "é"      "té"        " é"        " été"
        rank    256      257         258         259

    Raises UserError if the text has too few merges in it.
    """
    letters = printable_bytes()
    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    n_merges = vocab_size - 256 - len(SPECIAL_TOKENS)
    words = {pretoken: n for pretoken, n in counts.items() if len(pretoken) <= MAX_PRETOKEN}
    pieces = train_sentencepiece(words, letters, n_merges) if words else []
    merges = [bytes(map(byte_of.get, piece)) for piece in pieces if len(piece) > 1]
    if len(merges) < n_merges:
        enough = vocab_size - n_merges + len(merges)
        raise UserError(f"only {len(merges):,} merges in this text: use more text or --vocab_size={enough}")
    return [bytes([byte]) for byte in range(256)] + merges[:n_merges]


def train_sentencepiece(counts, letters, n_merges):
    """The pieces that SentencePiece learns from pre-tokens, in the order of its merges."""

    def lines():
        """Pre-tokens and counts, sorted: so ties between merges break alike on every machine."""
        for pretoken, count in sorted(counts.items()):
            yield "".join(letters[byte] for byte in pretoken.encode()) + f"\t{count}"

    # The bytes, the merges and a token for unknown text, on which SentencePiece insists. No other special token: ours
    # follow the ranks, see tokenizer.py.
    size = dict(vocab_size=256 + n_merges + 1, hard_vocab_limit=False, unk_id=0, bos_id=-1, eos_id=-1)
    # Every byte is in the vocabulary, whether the text has it or not.
    all_bytes = dict(required_chars="".join(letters), character_coverage=1.0)
    # The text stays as it is, and a line is one word: the pattern has cut it already.
    as_it_is = dict(normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False)
    uncut = dict(split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False)
    limits = dict(max_sentencepiece_length=64, max_sentence_length=1 << 20)  # bytes
    options = {**size, **all_bytes, **as_it_is, **uncut, **limits, "minloglevel": 2}
    model, train = io.BytesIO(), sentencepiece.SentencePieceTrainer.train
    try:
        train(sentence_iterator=lines(), model_writer=model, model_type="bpe", input_format="tsv", **options)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    except RuntimeError as error:
        wanted = f"{n_merges:,} merges from {len(counts):,} distinct pre-tokens"
        raise UserError(f"cannot learn {wanted}: use more text or a smaller vocab_size ({error})") from None
    return [processor.id_to_piece(i) for i in range(1, len(processor))]


def measure(tokenizer, texts):
    """Size of the texts, bytes per token, speed on one thread, and whether decoding gives every text back exactly."""
    start = time.perf_counter()
    ids = [tokenizer.encode(text) for text in tqdm(texts, desc="measuring", leave=False)]
    seconds = time.perf_counter() - start
    n_bytes, n_tokens = sum(len(text.encode()) for text in texts), sum(map(len, ids))
    return {
        "documents": len(texts),
        "bytes": n_bytes,
        "tokens": n_tokens,
        "bytes_per_token": n_bytes / max(1, n_tokens),
        "mb_per_second": n_bytes / 1e6 / max(1e-9, seconds),
        "round_trip": all(tokenizer.decode_bytes(i) == text.encode() for i, text in zip(ids, texts)),
    }


def print_report(report, out):
    """Print a table with a line per source, the longest tokens and where the tokenizer is."""
    head = f"{'documents':>10}{'bytes':>12}{'tokens':>11}{'bytes/token':>13}{'MB/s':>7}"
    print(f"\n{'held-out source':<24}{head}  round trip")
    for source, found in report["held_out"].items():
        sizes = f"{found['documents']:>10,}{found['bytes']:>12,}{found['tokens']:>11,}"
        rates = f"{found['bytes_per_token']:>13.3f}{found['mb_per_second']:>7.1f}"
        print(f"{source:<24}{sizes}{rates}  {'exact' if found['round_trip'] else 'BROKEN'}")
    print("longest tokens: " + "  ".join(map(repr, report["longest_tokens"])))
    print(f"{report['vocab_size']:,} tokens, fingerprint {report['fingerprint']}, {report['seconds']:.1f} s -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
