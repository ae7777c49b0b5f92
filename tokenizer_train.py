"""Stage 1: documents -> a byte-level BPE tokenizer.

Text is cut into pre-tokens and counted; SentencePiece's C++ trainer learns the merges over the distinct
pre-tokens, each byte written as one printable character; the learnt pieces, in rank order, become the ranks
that tiktoken runs. The report shows what it does to text that it was not trained on.
"""

import collections
import hashlib
import io
import time
from dataclasses import dataclass, field

import regex
import sentencepiece
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus.documents import Document, read
from tokenizer import MAX_VOCAB, PATTERN, SPECIAL_TOKENS, Tokenizer


@dataclass
class Settings:
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # presets, files or folders to learn from
    out: str = "data/tokenizer.json"  # the tokenizer; the report lies beside it
    vocab_size: int = 2048  # tokens in all: 256 bytes, the merges and 8 special tokens; at most 65,536
    max_bytes: int = 100_000_000  # text to count per source: more changes the merges little
    holdout: float = 0.05  # share of the documents kept back for the report


def main(settings):
    if not 256 + len(SPECIAL_TOKENS) < settings.vocab_size <= MAX_VOCAB:
        raise UserError(
            f"vocab_size must lie between {257 + len(SPECIAL_TOKENS)} and {MAX_VOCAB:,} (a token is stored "
            f"in 16 bits), not {settings.vocab_size:,}"
        )
    start = time.time()
    counts, held_out = count_pretokens(settings)
    tokenizer = Tokenizer.from_bpe(PATTERN, learn_ranks(counts, settings.vocab_size))
    tokenizer.save(settings.out)
    report = {
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "seconds": time.time() - start,
        "held_out": {source: measure(tokenizer, texts) for source, texts in held_out.items()},
        "longest_tokens": [t.decode("utf-8", "replace") for t in sorted(tokenizer.token_bytes, key=len)[:-13:-1]],
        "settings": vars(settings),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(report_path(settings.out), report)
    print_report(report, settings.out)


def report_path(out):
    return out.removesuffix(".json") + ".report.json"


def count_pretokens(settings):
    """How often each pre-token occurs, and per source the documents held out, chosen by their hash."""
    find = regex.compile(PATTERN).findall
    counts, held_out = collections.Counter(), {}
    for source in settings.sources:
        taken, texts = 0, held_out.setdefault(source, [])
        with tqdm(desc=f"counting {source}", unit="B", unit_scale=True) as bar:
            for item in read(source):
                if not isinstance(item, Document):
                    continue  # prepare_data.py reports what cannot be read
                data = item.text.encode()
                if int.from_bytes(hashlib.sha256(data).digest()[:8]) < settings.holdout * 2**64:
                    texts.append(item.text)
                else:
                    counts.update(find(item.text))
                taken += len(data)
                bar.update(len(data))
                if taken >= settings.max_bytes:
                    break
    if not counts:
        raise UserError(f"no text to learn from in {', '.join(settings.sources)}")
    return counts, held_out


def learn_ranks(counts, vocab_size):
    """The tokens (bytes) in rank order: the 256 bytes, then SentencePiece's merges."""
    letters = printable_bytes()
    n_merges = vocab_size - 256 - len(SPECIAL_TOKENS)
    # The trainer's input is one distinct pre-token a line with its count, sorted so that ties break alike everywhere.
    lines = (
        "".join(letters[b] for b in token.encode()) + f"\t{n}"
        for token, n in sorted(counts.items())
        if len(token) <= 1000
    )  # a kilobyte without a space or a word is data: nothing to learn from
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="bpe",
            input_format="tsv",
            vocab_size=n_merges + 257,
            hard_vocab_limit=False,
            required_chars="".join(letters),
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            max_sentencepiece_length=64,
            max_sentence_length=1 << 20,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    except RuntimeError as error:
        raise UserError(
            f"cannot learn {n_merges:,} merges from {len(counts):,} distinct pre-tokens: use more text or a "
            f"smaller vocab_size ({error})"
        ) from None
    byte_of = {letter: b for b, letter in enumerate(letters)}
    merges = [
        bytes(byte_of[c] for c in piece) for piece in map(pieces.id_to_piece, range(1, len(pieces))) if len(piece) > 1
    ]
    if len(merges) < n_merges:
        raise UserError(
            f"only {len(merges):,} merges in this text: use more text or --vocab_size={vocab_size - n_merges + len(merges)}"
        )
    return [bytes([b]) for b in range(256)] + merges[:n_merges]


def printable_bytes():
    """One printable character for each byte, so that a trainer for text learns over bytes."""
    return [chr(b) if 33 <= b < 127 else chr(0x100 + b) for b in range(256)]


def measure(tokenizer, texts):
    """Size, bytes per token, speed on one thread, and whether every text comes back exactly."""
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
    print(
        f"\n{'held-out source':<24}{'documents':>10}{'bytes':>12}{'tokens':>11}{'bytes/token':>13}{'MB/s':>7}  round trip"
    )
    for source, r in report["held_out"].items():
        print(
            f"{source:<24}{r['documents']:>10,}{r['bytes']:>12,}{r['tokens']:>11,}{r['bytes_per_token']:>13.3f}"
            f"{r['mb_per_second']:>7.1f}  {'exact' if r['round_trip'] else 'BROKEN'}"
        )
    print("longest tokens: " + "  ".join(map(repr, report["longest_tokens"])))
    print(f"{report['vocab_size']:,} tokens, fingerprint {report['fingerprint']}, {report['seconds']:.1f} s -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
