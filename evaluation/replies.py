"""Code out of what a model replies."""

import re


def code_in(reply):
    """The code in a chat model's reply: its first fenced block that is not marked as another language than Python,
    else its first block, else all of it. A fence that was cut off at the end of the reply is not part of it."""
    blocks = fenced_blocks(reply)
    for label, code in blocks:
        if not label or label.lower().lstrip("{. ").startswith(("py", "ipy")):
            return code
    if blocks:
        return blocks[0][1]
    before, _, last_line = reply.rstrip().rpartition("\n")
    return before + "\n" if re.fullmatch(r"\s*`+\w*", last_line) else reply


def fenced_blocks(reply):
    """[(label, code), ...] of the blocks between fences, as in CommonMark 4.5: a fence is a run of three back-ticks or
    tildes, or more; a line of at least as many closes the block, so that shorter and deeper ones are part of the code.
    As models write, back-ticks may also open behind a text and close behind the code of their line. The last block of
    a reply that was cut off goes to its end."""
    blocks, code, fence = [], [], ""
    for line in reply.split("\n"):
        if not fence:
            indent, fence, label = opening_fence(line)
            continue
        before = line.rstrip().rstrip(fence[0])
        is_long = len(line.rstrip()) - len(before) >= len(fence)
        if is_long and (before.strip() or len(before.expandtabs()) <= indent + 3):
            blocks.append((label, unindented([*code, before.rstrip(" ")], indent)))
            code, fence = [], ""
        else:
            code.append(line)
    if any(line.strip() for line in code):
        if code[-1].strip() and not code[-1].strip(fence[0] + " "):
            code[-1] = ""  # the first half of the closing fence
        blocks.append((label, unindented(code, indent)))
    return blocks


def opening_fence(line):
    """(columns in front of it, fence, label) of the fence that a line opens; the fence is "" where there is none."""
    if tildes := re.match(r"( *)(~{3,})(?!~)(.*)", line):
        return len(tildes[1]), tildes[2], tildes[3].strip()
    parts = re.split("(`{3,})", line)
    if len(parts) != 3 or "`" in parts[2]:
        return 0, "", ""  # none, or code within a line
    before, fence, label = parts[0], parts[1], parts[2].strip()
    if re.fullmatch(r" *(?:(?:[-*+]|\d+[.)]) +)?", before):  # the fence may be an item of a list
        return len(before), fence, label
    return (0, fence, label) if re.fullmatch(r"(?:[A-Za-z][\w+#.-]*)?", label) else (0, "", "")


def unindented(lines, indent):
    """Lines without the indentation that all of them have, at most that of their fence, as one text."""
    own = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return "\n".join(line[min(indent, own) :] for line in lines)


# A base model is asked for a function by a prompt that ends in def.


def with_def(completion):
    """The function that a completion of such a prompt is the rest of; a text that is not is left as it is."""
    return f"def{completion}" if re.match(r" \w+\(", completion) else completion


def behind_def(program):
    """What is to complete such a prompt: a program that begins with a function, without its def."""
    return re.sub(r"\Adef\b", "", program)
