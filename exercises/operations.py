"""What the exercises are made of: tables of operations, each with several wordings and its code.

A row of a table is: name | ways to say it | code. Words and code hold slots in braces, which programs.py fills:

    {x} {vs} {o}     a value, "price", in words and in code; the values, "prices"; "each price" or "it"
    {v} {n}          the variable that holds the result so far; the variable that takes the next result
    {k} {m}          a constant from 2 to 40; a small divisor, factor or length from 2 to 5
    {c} {d}          two different letters
    {s} {separator}  a separator as a character, and in words
    {state}          the number that a state machine carries along
"""


def table(text):
    """Rows (name, ways to say it, code) from a text with one row a line."""
    rows = []
    for line in text.strip().split("\n"):
        name, *phrases, code = [cell.strip() for cell in line.split("|")]
        rows.append((name, phrases, code))
    return rows


# -- what a value is asked, and how it is changed

CONDITIONS = table("""
    above | greater than {k} | above {k} | larger than {k} | {x} > {k}
    below | less than {k} | below {k} | smaller than {k} | {x} < {k}
    at_least | at least {k} | not below {k} | {x} >= {k}
    at_most | at most {k} | not above {k} | {x} <= {k}
    even | even | divisible by two | {x} % 2 == 0
    odd | odd | not divisible by two | {x} % 2 == 1
    multiple | divisible by {m} | evenly divisible by {m} | {x} % {m} == 0
    no_multiple | not divisible by {m} | {x} % {m} != 0
    other | different from {k} | not equal to {k} | {x} != {k}
    positive | positive | above zero | {x} > 0
""")
CHANGES = table("""
    add | add {k} to {o} | increase {o} by {k} | {x} + {k}
    subtract | subtract {k} from {o} | decrease {o} by {k} | {x} - {k}
    multiply | multiply {o} by {m} | scale {o} by {m} | {x} * {m}
    square | square {o} | multiply {o} by itself | {x} * {x}
    negate | negate {o} | flip the sign of {o} | -{x}
    remainder | take the remainder of {o} divided by {m} | reduce {o} modulo {m} | {x} % {m}
    divide | divide {o} by {m} and round down | floor-divide {o} by {m} | {x} // {m}
    cap | cap {o} at {k} | limit {o} to at most {k} | min({x}, {k})
    lift | raise {o} to at least {k} | lift {o} to {k} if it is lower | max({x}, {k})
    distance | take the distance of {o} from {k} | measure how far {o} is from {k} | abs({x} - {k})
""")

# -- pipelines: steps lead from list to list, text to text, words to words, dict to dict; an end returns something

LIST_STEPS = table("""
    ascending | sort the {vs} | sort the {vs} from smallest to largest | sorted({v})
    descending | sort the {vs} from largest to smallest | sort the {vs} in descending order | sorted({v}, reverse=True)
    reverse | reverse the order | turn the order around | {v}[::-1]
    distinct | drop repeated {vs} | keep each {x} only once | list(dict.fromkeys({v}))
    first | keep the first {m} {vs} | take only the first {m} {vs} | {v}[:{m}]
    skip | skip the first {m} {vs} | drop the first {m} {vs} | {v}[{m}:]
    last | keep the last {m} {vs} | take only the last {m} {vs} | {v}[-{m}:]
    alternate | keep every second {x} | take every other {x} | {v}[::2]
    append | append {k} at the end | put {k} at the end | {v} + [{k}]
    prepend | put {k} in front | insert {k} at the start | [{k}] + {v}
    gaps | take the differences between neighbours | replace the {vs} by the differences of neighbours | \
        [after - before for before, after in zip({v}, {v}[1:])]
""")
LIST_ENDS = table("""
    list | return the {vs} | return what is left | return the resulting list | {v}
    sum | return the sum | return the total | sum({v})
    count | return how many {vs} are left | return the number of {vs} | len({v})
    largest | return the largest (0 if there is none) | return the maximum, or 0 if nothing is left | \
        max({v}, default=0)
    smallest | return the smallest (0 if there is none) | return the minimum, or 0 if nothing is left | \
        min({v}, default=0)
    front | return the first {x}, or -1 if there is none | {v}[0] if {v} else -1
    spread | return the difference between largest and smallest (0 if empty) | max({v}) - min({v}) if {v} else 0
""")
TEXT_STEPS = table("""
    upper | turn it into upper case | make all letters upper case | {v}.upper()
    lower | turn it into lower case | make all letters lower case | {v}.lower()
    backwards | reverse it | turn it around | {v}[::-1]
    letters | keep only its letters | remove everything that is not a letter | \
        "".join(char for char in {v} if char.isalpha())
    no_digits | remove its digits | drop all digits | "".join(char for char in {v} if not char.isdigit())
    no_vowels | remove its vowels | drop all vowels | "".join(char for char in {v} if char.lower() not in "aeiou")
    without | remove every "{c}" | delete each "{c}" | {v}.replace("{c}", "")
    replace | replace every "{c}" by "{d}" | change each "{c}" into "{d}" | {v}.replace("{c}", "{d}")
    head | keep the first {k} characters | cut it after {k} characters | {v}[:{k}]
    tail | drop the first {m} characters | skip {m} characters at the start | {v}[{m}:]
    alternate | keep every second character | take every other character | {v}[::2]
    twice | double each character | write each character twice | "".join(char * 2 for char in {v})
""")
WORD_STEPS = table("""
    long | keep the words with more than {m} letters | drop words of {m} letters or fewer | \
        [word for word in {v} if len(word) > {m}]
    short | keep the words with at most {k} letters | drop words longer than {k} letters | \
        [word for word in {v} if len(word) <= {k}]
    with | keep the words that contain "{c}" | drop words without "{c}" | [word for word in {v} if "{c}" in word]
    without | keep the words that do not contain "{c}" | drop words with "{c}" | \
        [word for word in {v} if "{c}" not in word]
    capital | capitalize each word | begin each word with a capital | [word.capitalize() for word in {v}]
    mirror | reverse each word | spell each word backwards | [word[::-1] for word in {v}]
    initials | take the first letter of each word | replace each word by its first letter | [word[0] for word in {v}]
    sorted | sort the words | put the words into alphabetical order | sorted({v})
    by_length | sort the words by length | order the words from shortest to longest | sorted({v}, key=len)
    reverse | reverse the order of the words | turn the order of the words around | {v}[::-1]
    first | keep the first {m} words | take only the first {m} words | {v}[:{m}]
    distinct | drop repeated words | keep each word only once | list(dict.fromkeys({v}))
""")
TEXT_ENDS = table("""
    text | return the result | return the text | {v}
    length | return its length | return how many characters are left | len({v})
    occurrences | return how often "{c}" occurs | count the "{c}" in it | {v}.count("{c}")
    starts | return whether it starts with "{c}" | {v}.startswith("{c}")
    ends | return whether it ends with "{c}" | {v}.endswith("{c}")
""")
WORD_ENDS = table("""
    words | return the words | return the list of words | {v}
    join | join them with {separator} | return them joined by {separator} | "{s}".join({v})
    count | return how many words there are | return the number of words | len({v})
    lengths | return their lengths | return the length of each word | [len(word) for word in {v}]
    longest | return the longest word (empty if there is none) | max({v}, key=len, default="")
""")
TABLE_STEPS = table("""
    long_names | keep the names with more than {m} letters | drop names of {m} letters or fewer | len(name) > {m}
    with_letter | keep the names that contain "{c}" | drop names without "{c}" | "{c}" in name
    without_letter | keep the names that do not contain "{c}" | drop names with "{c}" | "{c}" not in name
""")
TABLE_ENDS = table("""
    dict | return the resulting dict | return what is left | {v}
    names | return the names in alphabetical order | return the sorted names | sorted({v})
    amounts | return the {vs} in ascending order | return the sorted {vs} | sorted({v}.values())
    total | return the sum of the {vs} | return the total | sum({v}.values())
    entries | return how many entries are left | return the number of entries | len({v})
    best | return the name with the largest {x} (empty if there is none) | max({v}, key={v}.get, default="")
    ranking | return the names ordered by {x} | return the names from smallest to largest {x} | sorted({v}, key={v}.get)
    swap | return a dict from {x} to name | swap names and {vs} and return the dict | \
        {{x}: name for name, {x} in {v}.items()}
""")
DIGIT_STEPS = table("""
    digit_sum | add up its digits | replace it by the sum of its digits | sum(int(figure) for figure in str(abs({v})))
    digit_reverse | reverse its digits | read its digits backwards | int(str(abs({v}))[::-1])
    digit_largest | take its largest digit | replace it by its largest digit | \
        max(int(figure) for figure in str(abs({v})))
    digit_count | count its digits | replace it by the number of its digits | len(str(abs({v})))
""")

# -- recursion: how {here}, the first value, is joined with rest, the result for the others; the result for no values

FOLDS = table("""
    sum | their sum | the sum of them | {here} + rest
    product | their product | the product of them | ({here}) * rest
    largest | the largest of them (at least 0) | the maximum of 0 and all of them | max({here}, rest)
    collect | a list of them | them as a list | [{here}] + rest
    backwards | a list of them in reverse order | them as a reversed list | rest + [{here}]
    difference | the first minus the result for the rest | each one minus what follows | {here} - rest
""")
EMPTY_FOLDS = {"sum": "0", "product": "1", "largest": "0", "collect": "[]", "backwards": "[]", "difference": "0"}

# -- states: how a value changes a counter's {state}; what a switch does with a character, {n} being the text so far

UPDATES = table("""
    add_move | add it to the {state} | increase the {state} by it | {state} += {x}
    take_move | subtract it from the {state} | decrease the {state} by it | {state} -= {x}
    add | add {k} to the {state} | increase the {state} by {k} | {state} += {k}
    take | subtract {k} from the {state} | decrease the {state} by {k} | {state} -= {k}
    double | double the {state} | multiply the {state} by two | {state} *= 2
    set | set the {state} to {k} | reset the {state} to {k} | {state} = {k}
    set_move | set the {state} to it | replace the {state} by it | {state} = {x}
""")
COPIES = table("""
    copy | copy the character | keep the character | {n} += char
    upper | copy the character in upper case | write the character in upper case | {n} += char.upper()
    twice | copy the character twice | write the character twice | {n} += char * 2
    front | put the character in front | add the character at the front | {n} = char + {n}
    star | write "{c}" instead | put a "{c}" in its place | {n} += "{c}"
""")

# -- words

PLURALS = "prices scores sizes marks ages costs points levels weights speeds heights grades".split()
# Said in words, since a model cannot simply copy punctuation: its tokens depend on what follows it.
SEPARATORS = [("-", "a dash"), ("_", "an underscore"), ("/", "a slash"), ("+", "a plus sign")]
VERBS = "select compute make build find get process update check measure prepare collect adjust derive handle".split()
TEXTS = "heading line title message label phrase".split()
TABLES = "stock ledger budget roster basket register".split()
NUMBERS = "number amount code width total count".split()
STATES = "level balance energy fuel health stack".split()
WORDS = "maple apple harbor tree Velvet river Stone tiger Comet seven Window Lantern Bridge ocean King snow".split()
WORDS += "route66 7b sun Gold".split()
NAMES = "Ann Bob Cleo Dan Eva Finn Gina Hugo Ida Jonas Karla Leo Maria Nils Olga".split()
