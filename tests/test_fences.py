"""Code in chats: a fence is longer than any inside, and the reader of replies finds the code again."""

import random
import time

import pytest

from evaluation.replies import code_in
from tokenizer import complete_request, fenced

README = "# Title\n\n```sh\nmake\n```\n\nThen:\n\n~~~\nx\n~~~"


def test_code_without_fences_is_written_as_ever():
    """Golden: the bytes on which published chats and prompts were made."""
    assert fenced("x = 1\n\n", "python") == "```python\nx = 1\n```"
    assert fenced("", "") == "```\n\n```"
    assert fenced("a = '``' + `b`", "objective-c++") == "```objective-c++\na = '``' + `b`\n```"
    for begun in ("def f():\n", "\n\ndef f():"):  # as most of HumanEval's begin
        assert complete_request(begun) == "Complete this function:\n```python\ndef f():\n```"


def test_a_fence_is_longer_than_any_inside():
    assert fenced(README, "markdown") == f"````markdown\n{README}\n````"
    assert fenced("````\n`````x", "") == "``````\n````\n`````x\n``````"
    assert fenced("x", "a`b\n```c") == "```a b c\nx\n```", "a language's name can't end the line or the fence"


def test_what_is_fenced_is_found_again():
    rng = random.Random(0)
    pieces = [
        "`",
        "``",
        "```",
        "````",
        "~~~",
        "\n",
        "\n\n",
        " ",
        "    ",
        "\t",
        "\r",
        "x",
        "sh",
        "é",
        "-",
        "1. ",
        ">",
        "\u2028",
    ]
    for _ in range(5000):
        code, language = (
            "".join(rng.choices(pieces, k=rng.randrange(14))),
            rng.choice(["", "python", "sh", "~~~", "`\n"]),
        )
        for reply in (fenced(code, language), f"Use `x`:\n\n{fenced(code, language)}\nDone ```y```.\n"):
            assert code_in(reply) == code.rstrip() + "\n", reply


DOCSTRING = 'def f():\n    """Example:\n\n    ```\n    f()\n    ```\n    """\n    return 1\n'


@pytest.mark.parametrize(
    "reply, code",
    [
        ("x = 1", "x = 1"),
        ("Sure:\n```python\nx = 1\n```\nand\n```\ny\n```", "x = 1\n"),
        ("````md\n```sh\nls\n```\n````\nend", "```sh\nls\n```\n"),
        ("```python\nx\n`````\ny", "x\n"),
        ("~~~python title=x\nx\n```\ny\n~~~~", "x\n```\ny\n"),
        ("~~~~\nx\n~~~\ny\n~~~~", "x\n~~~\ny\n"),
        ("1. Do\n\n   ```python\n   def f():\n       return 1\n   ```\n\n2. Test", "def f():\n    return 1\n"),
        ("- ```py\n  x\n  ```", "x\n"),
        (" ```python\ndef f():\n    return 1\n```", "def f():\n    return 1\n"),
        (f"```python\n{DOCSTRING}```\nend", DOCSTRING),
        ("```python\r\nx\r\n```\r\nend", "x\r\n"),
        ("``` {.python .numberLines}\nx\n```", "x\n"),
        ("```python\n```\nnone", ""),
        ("Run:\n```bash\npip install x\n```\nthen\n```Python3\ny\n```", "y\n"),
        ("```js\nx\n```\n```rust\ny\n```", "x\n"),
        ("Write ```x``` or `y`:\n```\nz\n```", "z\n"),
        ("Here it is: ```python\nx = 1```\nIt adds.", "x = 1"),
        ("In ``` nothing is closed\n```python\nx\n```", "x\n"),
    ],
)
def test_the_code_of_a_reply(reply, code):
    assert code_in(reply) == code


@pytest.mark.parametrize(
    "reply, code",
    [
        ("```\nx = 1", "x = 1"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("```python\nx = 1\n`", "x = 1\n"),
        ("```python\nx = 1\n``", "x = 1\n"),
        ("````python\n```\nx\n```\n```", "```\nx\n```\n"),
        ("~~~\nx\n~~", "x\n"),
        ("```sh\nls\n```\n```python\nx = 1\n``", "x = 1\n"),
        ("x = 1\n```", "x = 1\n"),
        ("x = 1\n``", "x = 1\n"),
        ("x = 1\n```pyth", "x = 1\n"),
        ("x = 1\n```\n", "x = 1\n"),
        ("```", "\n"),
        (f"```python\n{DOCSTRING[:45]}", DOCSTRING[:45]),
    ],
)
def test_a_fence_that_was_cut_off_is_not_part_of_the_code(reply, code):
    assert code_in(reply) == code


PIECES = ["`", "~", "```\n", "``` ", "```a`", " ", "\n", "```\n    ", "- ", "1", "a```\n", "~~~\n~~~~ ", "`~"]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_reply_takes_no_longer_than_its_length(piece):
    start = time.process_time()
    code_in("```\n" + piece * (200_000 // len(piece)))
    code_in(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 1
