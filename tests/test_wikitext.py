"""A wiki's markup: what a reader sees of it stays, in the lines it is seen in, and no page takes more than its length."""

import random
import time

import pytest

from corpus.wikitext import plain_text

HIDDEN = {"file", "category"}


def text(markup):
    return plain_text(markup, HIDDEN)


@pytest.mark.parametrize(
    "markup, expected",
    [
        ("a<br>b<br/>c<br />d</br>e<BR clear=all>f", "a\nb\nc\nd\ne\nf"),
        ("a<p>b</p>c<P class='x'>d", "a\n\nb\n\nc\n\nd"),
        ("<div>a</div><div>b</div>", "a\n\nb"),
        ("<ul><li>a<li>b</ul>", "a\nb"),
        ("== One<br>two ==\nx", "One\ntwo\nx"),
        ("[[a|b<br>c]] [https://x.org d<br>e]", "b\nc d\ne"),
        ("<small>never closed", "never closed"),
        ("List<String> x; #include <stdio.h>; a < b", "List<String> x; #include <stdio.h>; a < b"),
        ("the &lt;b&gt; tag &amp;amp; &nbsp;x &copy=1 &#x41;", "the <b> tag &amp; \xa0x &copy=1 A"),
        ("&#xD800;&#0;&#99999999;", "\ufffd\ufffd\ufffd"),
    ],
)
def test_breaks_are_breaks_and_tags_go(markup, expected):
    assert text(markup) == expected


@pytest.mark.parametrize(
    "markup, expected",
    [
        ("Call main() or <code>exit()</code>.", "Call main() or exit()."),
        ("Python ({{lang|x}}; {{y}}) is", "Python  is"),
        ("()\n({{x}})\n,", "()\n\n,"),
        ("a ({{lang|x}}, born in 1900; {{y}}) f(, x)", "a (born in 1900; ) f(, x)"),
        ("__init__ and __FILE__ and __NOTOC__\n__INHALTSVERZEICHNIS__\n__无目录__", "__init__ and __FILE__ and"),
        ("m = [[1, 2], [3, 4]]; a[[i]]", "m = [[1, 2], [3, 4]]; ai"),
        ("l''''amour''' ''x'' '''''y'''''", "l'amour x y"),
        ("x{{a|{{b}}|{{{c|d}}}}}y{{{e}}}z", "xyz"),
        ("{| class=x\n|a\n{|\n|b\n|}\n|}c {|", "c {|"),
        ("{{t|a\n|}}b\n|}", "b\n|}"),
        ("[[File:a.png|thumb|see [[b|c]] [https://d e]]]f", "f"),
        ("[[Resim:a.jpg|küçük|b]]c [[صورة:d.PNG ]] [[Vim: e.jpg.txt]]", "c  Vim: e.jpg.txt"),
        ("[[:Category:a|b]] [[:File:c.png]]", "b File:c.png"),
        ("[[a#b]] [[a|b|c]] [[:a]] [[a|]] ]] [[", "a#b b|c a  ]] [["),
        ("[[de:Haus]]x[[zh-min-nan:y]] [[s:Source]] [[doi:10.1]] [[fr:a|b]]", "x s:Source doi:10.1 b"),
        ("a<!-- b <pre> -->c<ref>d</ref><ref name=e/>f", "acf"),
        ("a<ref>b", "ab"),
        ("* a\n** b\n#c\n:d\n----\n=== e ===\n==f", " a\n b\nc\nd\n\ne\n==f".strip()),
    ],
)
def test_what_a_reader_does_not_see_goes_and_nothing_else(markup, expected):
    assert text(markup) == expected


CODE = "def f(x):\n    '''[[not]] {{a}} link'''\n\n\n\n    return -{x}- # main()\n== x =="


@pytest.mark.parametrize("tag", ["syntaxhighlight lang=python", "source", "pre", "PRE style='x'", "syntaxHighlight"])
def test_blocks_of_code_keep_their_text_and_lines(tag):
    assert text(f"See:\n<{tag}>\n{CODE}\n</{tag.split()[0]}>\nend") == f"See:\n\n{CODE}\n\nend"
    assert text(f"<{tag}>\n  {CODE}\n</{tag.split()[0]}>") == f"  {CODE}", "the first line keeps its indentation"


def test_code_within_a_line_stays_there():
    assert text("the <nowiki>[[x]] ''y'' &lt;</nowiki> z") == "the [[x]] ''y'' < z"
    assert text("call <syntaxhighlight lang=c inline>f(&a);</syntaxhighlight> now") == "call f(&a); now"
    assert text("<code>a<br>b</code> <tt>c</tt><nowiki/>d") == "a\nb cd"
    assert text("<pre><nowiki>{{x}}</nowiki> &amp;</pre>") == "{{x}} &"
    assert text("<syntaxhighlight>&lt;</syntaxhighlight>") == "&lt;", "as the wiki shows it"
    assert text("a <pre> never closed {{x}}") == "a  never closed"


@pytest.mark.parametrize(
    "markup, expected",
    [
        ("-{zh-hans:软件; zh-hant:軟體;}-", "软件"),
        ("-{zh-hant:軟體;zh-hans:软件}-", "软件"),
        ("-{zh-cn:内存;zh-tw:記憶體;zh-hk:記憶體}-", "内存"),
        ("-{zh-tw:a;zh-sg:b}-", "b"),
        ("-{zh-tw:只有}-", "只有"),
        ("-{A|zh-cn:博客; zh-tw:部落格;}-", "博客"),
        ("-{R|後}-面 -{後}- -{zh;zh-cn|里}-", "後面 後 里"),
        ("x-{H|zh-cn:a;zh-tw:b}-y-{T|zh-cn:a}-z-{-|zh-cn:a}-", "xyz"),
        ("-{A|巨集=>zh-cn:宏}-", "宏"),
        ("-{zh-hant:甲-{zh-hans:x;zh-hant:y}-; zh-hans:乙-{zh-cn:p;zh-tw:q}-}-", "乙p"),
        ("[[X|-{zh-hans:线; zh-hant:線}-]]程 '''-{zh-cn:a;zh-tw:b}-'''", "线程 a"),
        ("-{zh-hans:a;b;zh-hant:c}- -{https://x.org/}- -{a|b}-", "a;b https://x.org/ a|b"),
        ("a-{{x}}-b -{{{lang|ja|x}}}- -{ 1 }", "a--b  -{ 1 }"),
        ("<math>e^{-{x}}-y</math>-{zh-hans:简;zh-hant:繁}-", "简"),
        ("-{sr-ec:ек; sr-el:ek}-", "ек"),
    ],
)
def test_a_conversion_is_read_in_simplified_characters(markup, expected):
    assert text(markup) == expected


PIECES = "{{ [[ {| <div> <ref> <ref/> ''' <!-- --> [http://a &#x {{a| {{{ [[a| [[File: -{ -{A| -{zh:a; a=> ;zh: <pre> </pre> <"
PIECES = [
    *PIECES.split(),
    "<br ",
    "( ",
    "== ",
    "=\n",
    "*a\n",
    "{|\n|-\n",
    "\n",
    " ",
    "}}",
    "]]",
    "}-",
    "\n|}",
    "_",
    "a",
    "|",
    ",",
]
CLOSED = {"{{": "}}", "[[": "]]", "[[a|": "]]", "-{zh:a;": "}-", "<ref>": "</ref>", "<!--": "-->", "{|\n|-\n": "\n|}"}


def test_time_grows_with_the_length_alone():
    """30,000 characters of every piece, open, and closed in the end: the slowest takes less than 0.05 s alone."""
    for piece in PIECES:
        n = 30_000 // len(piece)
        start = time.process_time()
        text(piece * n + CLOSED.get(piece, "") * n)
        assert time.process_time() - start < 1, piece


@pytest.mark.parametrize("begin, unit, end", [("[http://", "a", ""), ("-{", " ", "x}-"), ("-{zh:a;", " ", "=> b}-")])
def test_time_grows_with_the_length_of_a_piece(begin, unit, end):
    """Quadratic patterns took minutes."""
    start = time.process_time()
    text(begin + unit * 100_000 + end)
    assert time.process_time() - start < 1


def test_any_markup_gives_text():
    rng = random.Random(0)
    for _ in range(1500):
        found = text("".join(rng.choices([*PIECES, *CLOSED.values()], k=rng.randrange(40))))
        assert not set(found) & set("\x01\x02\x03\x04"), "no mark of the work is left"
