"""Text <-> token ids: byte-level BPE, the special tokens, and the chat template.

A token is a string of bytes and its id is its rank: the lower, the earlier it was learnt. Text is cut into
pre-tokens by PATTERN, and inside each one the neighbouring pair of lowest rank is merged until none is left
(Sennrich et al., arXiv:1508.07909; on bytes as in GPT-2):

    " total += 1"  ->  " total" | " +=" | " " | "1"        pre-tokens: no merge crosses a border
    " total"       ->  " " "t" "o" "t" "a" "l"  ->  " t" "o" "t" "al"  ->  " to" "tal"  ->  " total"

tiktoken runs that; tokenizer_train.py learns the ranks. A prompt must end where a pre-token ends: "def f(" is cut into
"def" " f" "(", but in "def f(x):" the bracket belongs to "(x", so that the model has not seen what the prompt shows it.
"""

import base64
import hashlib
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import sentencepiece
import tiktoken

from configurator import UserError, write_json
from hints import how_to_make

# A word with the one character before it, a digit, a run of punctuation, or a run of white space.
# Unlike GPT-4's it has no look-ahead: tiktoken then runs 2.4 times as fast, and a line break with the indentation
# after it is one pre-token of its own, so that a prompt cut before or after it is cut between tokens.
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
# By the names of tokenizer_train.py --pattern. llama.cpp knows a fixed list of patterns, and this is the nearest one
# ("ufakzeka"): Qwen2's without contractions. White space before a word ends before its last blank, which a look-ahead
# finds.
PATTERNS = {
    "fast": PATTERN,
    "gguf": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
# tiktoken's engine for look-aheads gives up in a run of a million blanks, by an error that ends the process. So such a
# run is encoded in pieces.
PIECE = 100_000
LONG_RUN = re.compile(rf"(?<!\s)\s{{{PIECE},}}")

# ChatML in Jinja, for others: what render() makes of a conversation, with the <|endoftext|> that opens every document.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Their ids follow the ranks, in this order. A tokenizer that was saved with other ones keeps those.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|repo_name|>",
    "<|file_sep|>",
)

RAW_BYTES = re.compile("([\udc80-\udcff]+)")  # bytes that are not UTF-8, as Python's surrogateescape reads them
MAX_VOCAB = 65_536  # a token is stored as a uint16
ROLES = ("system", "user", "assistant")


def complete_request(prompt):
    """How a chat model is asked to complete a function: in instruction data and in the evaluation alike. Empty lines
    at the beginning, which most of HumanEval's prompts have and no exercise, are left out."""
    code = fenced(prompt.lstrip("\n"), "python")
    return f"Complete this function:\n{code}"


def fenced(code, language):
    """Code as it stands in a chat, between ``` and ```, or between longer fences than those it holds itself
    (CommonMark 4.5)."""
    fence = "`" * (1 + max(map(len, re.findall("`{3,}", code)), default=2))
    label = " ".join(language.replace("`", " ").split())  # a back-tick or a line end would end the fence's own line
    return f"{fence}{label}\n{code.rstrip()}\n{fence}"


class Tokenizer:
    """encode, decode and render. Made by load(), from_bpe(), from_tiktoken() or from_sentencepiece().

    text_to_ids: text without special tokens -> ids. ids_to_bytes: the way back. token_bytes: the bytes of each id.
    """

    def __init__(self, kind, content, text_to_ids, ids_to_bytes, token_bytes, special_tokens=SPECIAL_TOKENS):
        self.content = {"kind": kind, **content, "special_tokens": list(special_tokens)}
        self.text_to_ids, self.ids_to_bytes = text_to_ids, ids_to_bytes
        self.special = {name: len(token_bytes) + i for i, name in enumerate(special_tokens)}
        self.special_names = {i: name for name, i in self.special.items()}
        self.token_bytes = token_bytes + [b""] * len(special_tokens)
        self.vocab_size = len(self.token_bytes)
        self.fingerprint = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:16]
        if self.vocab_size > MAX_VOCAB:
            raise UserError(f"a vocabulary of {self.vocab_size:,} tokens does not fit 16 bits (at most {MAX_VOCAB:,})")

    def token_id(self, name):
        """The id of a special token. Raises UserError where this tokenizer was made without it."""
        if name not in self.special:
            raise UserError(f"this tokenizer has no {name}: it was made with {', '.join(self.special)}")
        return self.special[name]

    @property
    def eot(self):
        """The id of <|endoftext|>, which opens every document."""
        return self.token_id("<|endoftext|>")

    # -- where tokenizers come from

    @classmethod
    def load(cls, source, hint=None):
        """source: a tokenizer.json written by save(), a SentencePiece .model, or the name of a tiktoken encoding.
        hint(): the end of the message about a file that is missing or damaged, which says how to make it."""
        path = Path(source)
        train = f"python tokenizer_train.py --sources=YOUR_TEXT --out={source}" if path.suffix == ".json" else ""
        hint = hint or partial(how_to_make, source, train)
        if path.suffix == ".model" and path.is_file():
            return cls.from_sentencepiece(path.read_bytes(), where=str(path))
        if path.is_file():  # no folder, and no pipe: reading it could block for ever
            try:
                return cls.from_file(path)
            except UserError as error:
                raise UserError(f"{error}{hint()}") from None
        if str(source) in tiktoken.list_encoding_names():
            return cls.from_tiktoken(str(source))
        names = ", ".join(tiktoken.list_encoding_names())
        raise UserError(f"no tokenizer {source}{hint()}; a SentencePiece .model serves too, or one of {names}")

    @classmethod
    def from_file(cls, path):
        """The tokenizer that save() wrote, with the special tokens that it had then."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            special_tokens = [str(name) for name in content["special_tokens"]]
            if content["kind"] == "bpe":
                ranks = [base64.b64decode(token) for token in content["ranks"]]
                tokenizer = cls.from_bpe(content["pattern"], ranks, special_tokens)
            else:
                tokenizer = cls.from_sentencepiece(base64.b64decode(content["model"]), special_tokens, str(path))
        except (UserError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path} is not a tokenizer of this project ({str(error)[:200]})") from None
        if content.get("fingerprint") != tokenizer.fingerprint:
            raise UserError(f"{path} is damaged: its fingerprint is not that of its content")
        return tokenizer

    @classmethod
    def from_bpe(cls, pattern, ranks, special_tokens=SPECIAL_TOKENS):
        """pattern: what cuts text into pre-tokens. ranks: the tokens (bytes) in rank order; b"" is a hole."""
        encoding = tiktoken.Encoding(
            "bpe",
            pat_str=pattern,
            special_tokens={},
            mergeable_ranks={token: rank for rank, token in enumerate(ranks) if token},
        )
        byte_ids = [encoding.encode_single_token(bytes([b])) for b in range(256)]
        looks_ahead = "(?!" in pattern

        def encode(text):
            """Ids of a text without raw bytes."""
            if not looks_ahead or len(text) < PIECE:
                return encoding.encode_ordinary(text)
            ids, done = [], 0
            for run in LONG_RUN.finditer(text):
                for end in (*range(run.start(), run.end(), PIECE), run.end()):
                    ids += encoding.encode_ordinary(text[done:end])
                    done = end
            return ids + encoding.encode_ordinary(text[done:])

        def text_to_ids(text):
            """Ids of a text, in which surrogates stand for raw bytes."""
            if text.isascii() or not RAW_BYTES.search(text):
                return encode(text)
            ids = []
            for n, part in enumerate(RAW_BYTES.split(text)):  # text, raw bytes, text, raw bytes, ...
                if n % 2 == 0:
                    ids += encode(part)
                else:
                    ids += [byte_ids[b] for b in part.encode("utf-8", "surrogateescape")]
            return ids

        content = {"pattern": pattern, "ranks": [base64.b64encode(token).decode() for token in ranks]}
        return cls("bpe", content, text_to_ids, encoding.decode_bytes, list(ranks), special_tokens)

    @classmethod
    def from_tiktoken(cls, name):
        """One of tiktoken's stock encodings; gpt2's <|endoftext|> keeps its id, 50256."""
        try:
            stock = tiktoken.get_encoding(name)
        except Exception as error:  # requests' errors: the ranks are downloaded on first use
            raise UserError(f"cannot load tiktoken's {name!r}: {error}") from None
        ranks = [b""] * (max(stock._mergeable_ranks.values()) + 1)
        for token, rank in stock._mergeable_ranks.items():
            ranks[rank] = token
        if len(ranks) + len(SPECIAL_TOKENS) > MAX_VOCAB:
            raise UserError(f"{name} has {len(ranks):,} tokens: too many for 16 bits (at most {MAX_VOCAB:,})")
        return cls.from_bpe(stock._pat_str, ranks)

    @classmethod
    def from_sentencepiece(cls, model, special_tokens=SPECIAL_TOKENS, where="model"):
        """model: the bytes of a SentencePiece .model file. Its own normalisation applies, so that only text that
        it leaves alone comes back exactly."""
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except Exception:
            raise UserError(f"{where} is not a SentencePiece model") from None

        def piece_bytes(i):
            """The bytes of a piece."""
            if processor.is_control(i) or processor.is_unknown(i):
                return b""
            if processor.is_byte(i):  # <0x0A>
                return bytes([int(processor.id_to_piece(i)[3:5], 16)])
            return processor.id_to_piece(i).replace("\u2581", " ").encode()

        def ids_to_bytes(ids):
            """The bytes of a list of ids."""
            return processor.decode(ids).encode()

        content = {"model": base64.b64encode(model).decode()}
        token_bytes = [piece_bytes(i) for i in range(len(processor))]

        def text_to_ids(text):
            """The ids of a text. SentencePiece takes UTF-8 alone: a byte that is none becomes a question mark."""
            return processor.encode(text.encode("utf-8", "replace").decode())

        return cls("sentencepiece", content, text_to_ids, ids_to_bytes, token_bytes, special_tokens)

    def save(self, path):
        """Write tokenizer.json, from which load() makes the same tokenizer."""
        write_json(path, {**self.content, "fingerprint": self.fingerprint})

    # -- text <-> ids

    def encode(self, text: str | bytes) -> list[int]:
        """Ids of a text. Never a special token, whatever the text says; bytes need not be UTF-8
        (SentencePiece has "?" in place of those that are not)."""
        return self.text_to_ids(text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text)

    def decode_bytes(self, ids) -> bytes:
        """The bytes that ids stand for; special tokens come out as their names."""
        out, run = [], []
        for i in map(int, ids):
            if i in self.special_names:
                out += [self.ids_to_bytes(run), self.special_names[i].encode()]
                run = []
            else:
                run.append(i)
        return b"".join([*out, self.ids_to_bytes(run)])

    def decode(self, ids) -> str:
        """The text that ids stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """(vocab_size,) int64: how many bytes of text each id stands for; 0 for special tokens."""
        return np.array([len(token) for token in self.token_bytes], dtype=np.int64)

    # -- the templates: the only place that knows how a chat or a gap is written down

    def render(self, messages, generation_prompt=False) -> tuple[list[int], list[int]]:
        r"""(ids, loss mask) of a conversation [{"role": ..., "content": ...}, ...] in ChatML.

            <|im_start|>user\nAdd 1 and 2.<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n
            0           0   0 0           0         0 0           0        0 1 1         0     mask

        The mask is 1 on what the assistant must learn to write: its content and the <|im_end|> after it, unless the
        message has "weight": 0. generation_prompt opens the assistant's next turn. Raises UserError on an unknown role.
        """
        ids, mask = [], []
        start, end = self.token_id("<|im_start|>"), self.token_id("<|im_end|>")
        line_end = self.encode("\n")
        for message in messages:
            role = message["role"]
            if role not in ROLES:
                raise UserError(f"unknown role {role!r} in a chat: use one of {', '.join(ROLES)}")
            if role == "assistant":  # its answer begins where a prompt ends
                header, content = [start, *self.encode("assistant\n")], message["content"]
            else:  # in one piece, as other tools encode the text of a chat
                header, content = [start], f"{role}\n{message['content']}"
            content = [*self.encode(content), end]
            is_target = int(role == "assistant" and message.get("weight") != 0)
            ids += header + content + line_end
            mask += [0] * len(header) + [is_target] * len(content) + [0] * len(line_end)
        if generation_prompt:
            header = [start, *self.encode("assistant\n")]
            ids, mask = ids + header, mask + [0] * len(header)
        return ids, mask

    def render_repository(self, name, files) -> list[int]:
        r"""The ids of a repository's files [(path, text), ...], which lie in one document as in StarCoder 2
        (arXiv:2402.19173, section 5.3): what one file defines, the next one may call.

            <|repo_name|>ada/tools<|file_sep|>tools/area.py\ndef area(r): ...<|file_sep|>tests/test_area.py\n...
        """
        ids = [self.token_id("<|repo_name|>"), *self.encode(name)]
        for path, text in files:
            ids += [self.token_id("<|file_sep|>"), *self.encode(f"{path}\n{text}")]
        return ids

    def render_gap(self, prefix, suffix) -> list[int]:
        r"""The prompt for filling in the middle, in prefix-suffix-middle order (arXiv:2207.14255).

            def area(r):\n    [      ]\n    return result         a gap in a text becomes
            <|fim_prefix|>def area(r):\n    <|fim_suffix|>\n    return result<|fim_middle|>

        The model, which writes from left to right, goes on with the middle.
        """
        before, after = self.encode(prefix), self.encode(suffix)
        marks = [self.token_id(f"<|fim_{part}|>") for part in ("prefix", "suffix", "middle")]
        return [marks[0], *before, marks[1], *after, marks[2]]

    def render_filled_gap(self, prefix, middle, suffix, suffix_first) -> list[int]:
        r"""A document for training: the prompt of render_gap(), and behind it the middle.

        With suffix_first the prefix stands behind the suffix, so that the middle goes on from it as in a whole text
        (suffix-prefix-middle, in the form that needs no other marks):

            <|fim_prefix|><|fim_suffix|>\n    return result<|fim_middle|>def area(r):\n    result = r * r
        """
        if suffix_first:
            return [*self.render_gap("", suffix), *self.encode(prefix), *self.encode(middle)]
        return [*self.render_gap(prefix, suffix), *self.encode(middle)]
