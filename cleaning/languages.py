"""What is known of languages: their names and suffixes, how they write comments, and which of them are prose.

One table for everybody who asks. Names are compared without case, spaces, - and _, so that "Jupyter Notebook" and
jupyter-notebook are one. After GitHub's linguist (languages.yml), ISO 639 and ISO 15924.
"""

import re
from typing import NamedTuple

KINDS = PYTHON, CODE, PROSE, CHINESE = "python", "code", "prose", "chinese"


class Comments(NamedTuple):
    """How a language writes comments."""

    lines: tuple[str, ...]  # what begins a comment that ends with its line
    blocks: tuple[tuple[str, str], ...]  # what begins and what ends a comment of any length


# What begins a comment, what surrounds one, the languages' names, and the suffixes that are theirs alone.
TABLE = (
    ("#", "", "python python2 python3", ".py .pyi"),
    ("#", "", "cython starlark bazel gdscript", ".pyw .pyx .pxd .bzl .gd"),
    ("#", "", "shell bash sh zsh fish csh awk sed tcl perl raku r", ".sh .bash .zsh .fish .awk .tcl .pl .pm .r"),
    ("#", "", "make makefile dockerfile yaml toml graphql meson puppet", ".mk .yaml .yml .toml .graphql .pp"),
    ("#", "", "elixir crystal gnuplot robotframework", ".ex .exs .cr"),
    ("#", "=begin =end", "ruby", ".rb .rake .gemspec"),
    ("#", "#= =#", "julia", ".jl"),
    ("#", "#[ ]#", "nim", ".nim"),
    ("#", "#[[ ]]", "cmake", ".cmake"),
    ("#", "<# #>", "powershell", ".ps1 .psm1 .psd1"),
    ("#", "### ###", "coffeescript", ".coffee"),
    ("#", "/* */", "nix", ".nix"),
    ("//", "/* */", "c c++ cpp objectivec objectivec++ objc cuda opencl", ".c .h .cc .cpp .cxx .hpp .hh .hxx .inl .mm"),
    ("//", "/* */", "glsl hlsl verilog systemverilog", ".cu .cuh .cl .glsl .hlsl .sv .y"),
    (
        "//",
        "/* */",
        "c# csharp java kotlin scala groovy gradle dart d",
        ".cs .java .kt .kts .scala .groovy .gradle .dart .d",
    ),
    ("//", "/* */", "javascript js jsx typescript tsx scss less", ".js .jsx .mjs .cjs .ts .tsx .scss .less"),
    ("//", "/* */", "go golang rust swift zig solidity vala", ".go .rs .swift .zig .sol .vala"),
    ("//", "/* */", "protocolbuffer protobuf proto thrift", ".proto .thrift"),
    ("// #", "/* */", "php hack terraform hcl", ".php .tf .hcl"),
    ("//", "(* *)", "f# fsharp", ".fs .fsx"),
    ("//", "(* *) { }", "pascal delphi", ".pas .dpr"),
    ("", "/* */", "css", ".css"),
    ("", "(* *)", "ocaml standardml sml coq mathematica", ".ml .mli .sml"),
    ("", "<!-- -->", "html xml svg xslt vue svelte", ".html .htm .xhtml .xml .svg .xsl .xsd .pom .vue .svelte"),
    ("--", "--[[ ]]", "lua luau", ".lua .luau"),
    ("--", "/* */", "sql plsql plpgsql tsql mysql", ".sql"),
    ("--", "{- -}", "haskell elm purescript agda idris", ".hs .lhs .elm .purs .agda"),
    ("--", "", "ada vhdl eiffel", ".adb .ads .vhd .vhdl"),
    (";", "#| |#", "lisp commonlisp emacslisp elisp scheme racket", ".lisp .lsp .el .scm .rkt"),
    (";", "", "clojure clojurescript llvm", ".clj .cljs .ll"),
    ("; #", "", "ini", ".ini"),
    ("; # @ //", "/* */", "assembly asm nasm gas unixassembly", ".s .asm .nasm"),
    ("%", "%{ %}", "matlab octave", ""),
    ("// %", "/* */ (* *) %{ %}", "", ".m"),  # of Objective-C, MATLAB and Mathematica
    ("%", "", "erlang postscript", ".erl .hrl .ps"),
    ("%", "/* */", "prolog", ""),
    ("!", "", "fortran fortranfreeform", ".f90 .f95 .f03 .f08"),
    ("! C c *", "", "fortran77 fortranfixedform", ".f .for .f77"),
    ("'", "", "visualbasic visualbasic.net vb vb.net vba vbscript", ".vb .bas .vbs"),
    ("REM Rem rem @REM @rem ::", "", "batchfile batch", ".bat .cmd"),
    ('"', "", "vimscript viml", ".vim"),
    ("", "", "json jsonlines csv tsv jupyternotebook jupyter diff", ".json .jsonl .csv .tsv .ipynb"),
)
# Where the language is unknown. TeX's and MATLAB's % and others that are operators elsewhere are left out.
UNKNOWN = Comments(("//", "#", "--", ";"), (("/*", "*/"), ("<!--", "-->"), ("(*", "*)"), ("{-", "-}")))


def by_name(table):
    """{name or suffix: Comments} of rows such as TABLE's."""
    found = {}
    for marks, pairs, names, suffixes in table:
        words = pairs.split()
        comments = Comments(tuple(marks.split()), tuple(zip(words[::2], words[1::2])))
        found |= dict.fromkeys(names.split() + suffixes.split(), comments)
    return found


COMMENTS_OF = by_name(TABLE)
PYTHON_NAMES = set("python python2 python3 py .py .pyi".split())

MARKUP = set("text plaintext txt markdown md gfmarkdown restructuredtext rst tex latex .txt .md .rst .tex".split())
CHINESE_NAMES = set("chinese mandarin zh zho chi cmn yue wuu lzh hak nan simplifiedchinese traditionalchinese".split())
NATURAL = set(
    "afrikaans albanian amharic arabic armenian azerbaijani basque belarusian bengali bosnian bulgarian burmese "
    "catalan croatian czech danish dutch english esperanto estonian farsi finnish french galician georgian german "
    "greek gujarati hausa hebrew hindi hungarian icelandic igbo indonesian irish italian japanese kannada kazakh "
    "khmer korean kurdish kyrgyz lao latin latvian lithuanian macedonian malay malayalam maltese marathi mongolian "
    "nepali norwegian pashto persian polish portuguese punjabi romanian russian serbian sinhala slovak slovenian "
    "somali spanish swahili swedish tagalog tajik tamil tatar telugu thai tibetan turkish turkmen ukrainian urdu "
    "uyghur uzbek vietnamese welsh xhosa yiddish yoruba zulu".split()
)
# Codes of ISO 639-1, and those of ISO 639-3 for the same languages and some more.
NATURAL |= set(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el "
    "en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu "
    "ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na "
    "nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so "
    "sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zu afr amh "
    "ara arb arz asm azj aze bel ben bod bos bul cat ceb ces ckb cym cze dan deu dut ekk ell eng epo est eus fas fil "
    "fin fra fre gle glg ger gre guj hau heb hin hrv hun hye ibo ind isl ita jav jpn kan kat kaz khm kir kmr kor lao "
    "lat lav lit lvs mal mar mkd mlt mon msa mya nep nld nno nob nor npi ory pan pes pol por pus ron rum rus san sin "
    "slk slo slv snd som spa sqi srp sun swa swe swh tam tat tel tgk tgl tha tuk tur uig ukr urd uzb uzn vie war xho "
    "yid yor zsm zul".split()
)
# A code with its script or region, as they are written: eng_Latn, zh-CN, pt_BR.UTF-8, sr-Latn-RS.
TAGGED = re.compile(r"[a-z]{2,3}[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|\d{3})(?:[-_.].*)?")


def normal(name):
    """A language's name as the tables have it: "Jupyter Notebook" -> "jupyternotebook"."""
    return re.sub(r"[\s_-]+", "", name.lower())


def kind_of_language(name):
    """PYTHON, CODE, PROSE or CHINESE for a language's name or code, or "" for one that is unknown or can be either:
    pl is Polish and Perl."""
    name = name.strip()
    code, *tags = re.split("[-_.]", name.lower())
    if tags and code in CHINESE_NAMES:  # zho_Hans, zh-min-nan
        return CHINESE
    # In another case, only after a code that is known: eng_latn is English, dns-zone is no language of people.
    if TAGGED.fullmatch(name) or tags and code in NATURAL and re.fullmatch(r"[a-z]{4}|[a-z]{2}|\d{3}", tags[0]):
        return PROSE
    name = normal(name)
    if name in PYTHON_NAMES:
        return PYTHON
    if name in CHINESE_NAMES and name != "nan":  # Southern Min, or what pandas writes where there is none
        return CHINESE
    is_natural = name in NATURAL or name in MARKUP
    is_code = name in COMMENTS_OF or "." + name in COMMENTS_OF
    if is_natural == is_code:
        return ""
    return PROSE if is_natural else CODE
