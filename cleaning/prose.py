"""Rules for natural language, never applied to code: Gopher's where spaces separate words, others for Chinese.

Gopher: Rae et al., arXiv:2112.11446, table A1, as datatrove and C4's successors apply it. The rules for Chinese are
our own and drop what web crawls are full of. jieba cuts Chinese into words where it is installed. opencc turns
traditional characters into simplified ones, for --simplify only.
"""

import re
from collections import Counter
from functools import cache

from cleaning.rules import ALL_RULES, outside, over, under
from configurator import UserError
from corpus.records import optional

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
# Gopher's bounds: n -> share of characters in the commonest n-gram, and in all n-grams that occurred before.
TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def word_count(view, thresholds):
    """Captions and headings at one end, whole books and dumps at the other (Gopher)."""
    return outside(len(view.spaced_words), thresholds.min_words, thresholds.max_words, "words")


def word_length(view, thresholds):
    """Text that is not made of words: codes, URLs, single letters (Gopher)."""
    mean = sum(map(len, view.spaced_words)) / max(1, len(view.spaced_words))
    return outside(mean, thresholds.min_mean_word, thresholds.max_mean_word, "mean word")


def symbols(view, thresholds):
    """Hash tags, and teasers that are cut off (Gopher)."""
    n_symbols = view.text.count("#") + view.text.count("...") + view.text.count("…")
    return over(n_symbols / max(1, len(view.spaced_words)), thresholds.max_symbols, "symbols per word")


def words_with_letter(view, thresholds):
    """Tables of numbers, and strings of punctuation (Gopher)."""
    found = sum(any(map(str.isalpha, word)) for word in view.spaced_words)
    share = found / max(1, len(view.spaced_words))
    return under(share, thresholds.min_words_with_letter, "words with a letter")


def stop_words(view, thresholds):
    """Text that is no English sentence: lists of keywords, other languages (Gopher)."""
    found = STOP_WORDS & set(re.findall(r"[a-z]+", view.text.lower()))
    return under(len(found), thresholds.min_stop_words, "different stop words")


def repeated_lines(view, thresholds):
    """Menus and footers that occur on every page of a crawl (Gopher)."""
    return repeated(view.full_lines, "line", thresholds)


def repeated_paragraphs(view, thresholds):
    """Texts pasted together from the same parts (Gopher)."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", view.text)]
    return repeated([part for part in parts if part], "paragraph", thresholds)


def repeated(parts, what, thresholds):
    """The reason to drop a text if too many of its parts, or of its characters in parts, occurred before."""
    distinct, n_chars = set(parts), sum(map(len, parts))
    share = (len(parts) - len(distinct)) / max(1, len(parts))
    share_of_chars = (n_chars - sum(map(len, distinct))) / max(1, n_chars)
    too_many = over(share, 0.3 * thresholds.max_repetition, f"repeated {what}s")
    return too_many or over(share_of_chars, 0.2 * thresholds.max_repetition, f"characters in repeated {what}s")


def repeated_ngrams(view, thresholds):
    """Phrases over and over: the commonest n-gram (n = 2 to 4), and all repeated ones (n = 5 to 10) (Gopher)."""
    words = view.spaced_words
    n_chars = max(1, sum(map(len, words)))
    for n, bound in TOP_NGRAM.items():
        counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        for ngram, count in counts.most_common(1):
            share = sum(map(len, ngram)) * count / n_chars
            reason = over(share, bound * thresholds.max_repetition, f"commonest {n}-gram")
            if count > 1 and reason:
                return reason
    for n, bound in REPEATED_NGRAMS.items():
        share = chars_in_repeated(words, n) / n_chars
        if reason := over(share, bound * thresholds.max_repetition, f"repeated {n}-grams"):
            return reason


def chars_in_repeated(words, n):
    """Characters of the words that are part of an n-gram that occurred before; each word counts once."""
    seen, repeats = set(), bytearray(len(words))
    for i in range(len(words) - n + 1):
        ngram = tuple(words[i : i + n])
        if ngram in seen:
            repeats[i : i + n] = b"\1" * n
        seen.add(ngram)
    return sum(len(word) for word, is_repeat in zip(words, repeats) if is_repeat)


# -- Chinese

CONTACT = re.compile(
    r"(?i)(?:QQ|微信|加微|VX|WeChat|电话|手机|热线|联系方式|客服)\s{0,9}(?:群|号码?)?\s{0,9}[:：是]?\s{0,9}[\w+-]{5}"
    r"|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)0\d{2,3}-\d{7,8}(?!\d)"
)
URL = re.compile(r"(?i)https?://|www\.|\.(?:com|cn|net)\b")
BOILERPLATE = re.compile(
    r"版权所有|未经授权|转载请|点击(?:这里|查看|下载|进入)|上一[篇页]|下一[篇页]|返回(?:首页|顶部)|登录|注册会员|扫码"
    r"|关注(?:我们|公众号)|ICP备|广告|友情链接|免责声明|责任编辑|相关(?:阅读|推荐)"
)


@cache
def word_cutter():
    """The module jieba, which cuts Chinese into words, or None where it is not installed. Raises UserError where its
    import fails: the words would be counted in another way without a word."""
    try:
        import jieba
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "jieba":
            return None
        raise UserError(f"jieba, which counts Chinese words, is installed, but its import fails: {error!r}") from None
    jieba.setLogLevel("ERROR")
    return jieba


def chinese_length(view, thresholds):
    """Captions, titles and scraps of a few words."""
    if cutter := word_cutter():
        n_words = sum(bool(word.strip()) for word in cutter.cut(view.text))
    else:
        n_words = sum("\u4e00" <= char <= "\u9fff" for char in view.text) // 2  # a word has two characters or so
    return under(n_words, thresholds.min_chinese_words, "words")


@cache
def converter():
    """opencc's converter from traditional to simplified. Raises UserError where opencc is not installed."""
    return optional("opencc", "simplified Chinese characters").OpenCC("t2s")


def simplified(text):
    """A text with simplified characters in place of traditional ones."""
    return converter().convert(text)


def lines_with(pattern, name, what):
    """Make the rule that bounds the share of lines in which a pattern is found, by the threshold max_<name>."""

    def rule(view, thresholds):
        """Drop a text with too large a share of such lines."""
        found = sum(bool(pattern.search(line)) for line in view.full_lines)
        return over(found / len(view.full_lines), getattr(thresholds, f"max_{name}"), what)

    rule.__name__ = name
    return rule


REPETITION_RULES = [repeated_lines, repeated_paragraphs]
PROSE_LINES = [
    lines_with(re.compile("^[-*•‣◦·]"), "bullets", "lines with a bullet"),  # lists and menus (Gopher)
    lines_with(re.compile(r"(?:\.\.\.|…)$"), "ellipses", "lines that end in an ellipsis"),  # lists of teasers (Gopher)
]
PROSE_RULES = ALL_RULES + [word_count, word_length, symbols] + PROSE_LINES + [words_with_letter, stop_words]
PROSE_RULES += REPETITION_RULES + [repeated_ngrams]
CHINESE_LINES = [
    lines_with(CONTACT, "contacts", "lines with a contact number"),
    lines_with(URL, "url_lines", "lines with a URL"),
    lines_with(BOILERPLATE, "boilerplate", "lines of boilerplate"),
]
CHINESE_RULES = ALL_RULES + [chinese_length] + CHINESE_LINES + REPETITION_RULES
