"""Rules for natural language: Gopher's for words between spaces, others for Chinese. They never see code.

Gopher: Rae et al., arXiv:2112.11446, table A1, as datatrove and C4's successors apply it. Chinese: what web crawls are
full of. jieba (words) and opencc (traditional to simplified) are used where they are installed.
"""

import importlib
import re
from collections import Counter
from functools import cache

from cleaning.rules import ALL_RULES, over, under

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
BULLETS = ("-", "*", "•", "‣", "◦", "·")


def word_count(view, t):
    n = len(view.text.split())
    return under(n, t.min_words, "words") or over(n, t.max_words, "words")


def word_length(view, t):
    words = view.text.split()
    mean = sum(map(len, words)) / max(1, len(words))
    return under(mean, t.min_mean_word, "mean word") or over(mean, t.max_mean_word, "mean word")


def symbols(view, t):
    n = view.text.count("#") + view.text.count("...") + view.text.count("…")
    return over(n / max(1, len(view.text.split())), t.max_symbols, "symbols per word")


def bullets(view, t):
    n = sum(line.startswith(BULLETS) for line in view.full_lines)
    return over(n / len(view.full_lines), t.max_bullets, "lines with a bullet")


def ellipses(view, t):
    n = sum(line.endswith(("...", "…")) for line in view.full_lines)
    return over(n / len(view.full_lines), t.max_ellipses, "lines that end in an ellipsis")


def words_with_letter(view, t):
    words = view.text.split()
    n = sum(any(char.isalpha() for char in word) for word in words)
    return under(n / max(1, len(words)), t.min_words_with_letter, "words with a letter")


def stop_words(view, t):
    found = STOP_WORDS & set(re.findall(r"[a-z]+", view.text.lower()))
    return under(len(found), t.min_stop_words, "different stop words")


def repeated_lines(view, t):
    return repeated(view.full_lines, "line", t)


def repeated_paragraphs(view, t):
    return repeated([part.strip() for part in re.split(r"\n\s*\n", view.text) if part.strip()], "paragraph", t)


def repeated(parts, what, t):
    """Gopher: at most .3 of the parts, and .2 of their characters, in parts that occurred before."""
    seen, again, chars = set(), 0, 0
    for part in parts:
        if part in seen:
            again, chars = again + 1, chars + len(part)
        seen.add(part)
    return over(again / max(1, len(parts)), 0.3 * t.max_repetition, f"repeated {what}s") or over(
        chars / max(1, sum(map(len, parts))), 0.2 * t.max_repetition, f"characters in repeated {what}s"
    )


TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def repeated_ngrams(view, t):
    """Characters in the commonest n-gram (n = 2..4), and in all that occur twice (n = 5..10), over all characters."""
    words = view.text.split()
    n_chars = max(1, sum(map(len, words)))
    for n, bound in TOP.items():
        ngrams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        (ngram, count), *_ = ngrams.most_common(1) or [((), 0)]
        if count > 1 and (reason := over(sum(map(len, ngram)) * count / n_chars, bound * t.max_repetition, f"commonest {n}-gram")):  # fmt: skip
            return reason
    for n, bound in REPEATED.items():
        seen, covered = set(), bytearray(len(words))
        for i in range(len(words) - n + 1):
            ngram = tuple(words[i : i + n])
            if ngram in seen:
                covered[i : i + n] = b"\1" * n
            seen.add(ngram)
        chars = sum(len(word) for word, mark in zip(words, covered) if mark)
        if reason := over(chars / n_chars, bound * t.max_repetition, f"repeated {n}-grams"):
            return reason


# -- Chinese


@cache
def optional(name):
    """The module, or None where it is not installed: these two only sharpen what works without them."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def chinese_length(view, t):
    if jieba := optional("jieba"):
        jieba.setLogLevel("ERROR")
        n = sum(bool(word.strip()) for word in jieba.cut(view.text))
    else:
        n = sum("\u4e00" <= char <= "\u9fff" for char in view.text) // 2
    return under(n, t.min_chinese_words, "words")


CONTACT = re.compile(r"(?:QQ|微信|加微|VX|WeChat|电话|手机|热线|联系方式|客服)\s*(?:群|号|号码)?\s*[:：是]?\s*[\w+-]{5,}|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)0\d{2,3}-\d{7,8}(?!\d)", re.I)  # fmt: skip
URL = re.compile(r"https?://|www\.|\.(?:com|cn|net)\b", re.I)
BOILERPLATE = re.compile(r"版权所有|未经授权|转载请|点击(?:这里|查看|下载|进入)|上一[篇页]|下一[篇页]|返回(?:首页|顶部)|登录|注册会员|扫码|关注(?:我们|公众号)|ICP备|广告|友情链接|免责声明|责任编辑|相关(?:阅读|推荐)")  # fmt: skip


def lines_with(pattern, setting, what):
    def rule(view, t):
        n = sum(bool(pattern.search(line)) for line in view.full_lines)
        return over(n / len(view.full_lines), getattr(t, setting), what)

    rule.__name__ = setting.removeprefix("max_")
    return rule


def simplified(text):
    """Traditional characters as simplified ones, where opencc is installed (pip install opencc)."""
    return converter().convert(text) if optional("opencc") else text


@cache
def converter():
    return optional("opencc").OpenCC("t2s")


PROSE_RULES = [
    *ALL_RULES, word_count, word_length, symbols, bullets, ellipses, words_with_letter, stop_words,
    repeated_lines, repeated_paragraphs, repeated_ngrams,
]  # fmt: skip
CHINESE_RULES = [
    *ALL_RULES,
    chinese_length,
    lines_with(CONTACT, "max_contacts", "lines with a contact number"),
    lines_with(URL, "max_url_lines", "lines with a URL"),
    lines_with(BOILERPLATE, "max_boilerplate", "lines of boilerplate"),
    repeated_lines,
    repeated_paragraphs,
]
