"""What crosses between judge and candidate, in time linear in its size: data as copies, other objects by number.

A message is JSON, which the standard library reads and writes in C: [[cells, nodes], dropped].

    cells     the values that are sent. A cell is a scalar of JSON; or [number], an object of the table that both sides
              keep; or [kind, part, ...], a value that cannot change: a tuple, a Decimal, a long int
    nodes     [number, kind, ...] for each object of the table that is new, or has changed since it last crossed
    dropped   numbers that are free again: their objects can change no more

Objects that can change (lists, dicts, ...) are in the table of both sides, each of which has a copy. What one side
changes in place is changed in the other side's copy with the next message, so that both see what they would see in one
process. Nothing that is read is executed.
"""

import array
import collections
import itertools
import json
import operator
import sys
import types

SCALARS = {int, float, str, bool, type(None)}
MAX_DEPTH = 100  # of tuples in tuples
MAX_DIGITS = 4300  # of an int that is written in decimal, which takes quadratic time; Python's own limit
ENCODE = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
DECODE = json.JSONDecoder().decode

# Values that cannot change, {name of their class: (its module, the arguments that make such a value)}.
VALUES = {
    "complex": ("builtins", lambda x: (x.real, x.imag)),
    "range": ("builtins", lambda x: (x.start, x.stop, x.step)),
    "slice": ("builtins", lambda x: (x.start, x.stop, x.step)),
    "Decimal": ("decimal", lambda x: (str(x),)),
    "Fraction": ("fractions", lambda x: (x.numerator, x.denominator)),
    "date": ("datetime", lambda x: x.__reduce_ex__(4)[1]),  # its bytes
    "time": ("datetime", lambda x: x.__reduce_ex__(4)[1]),  # its bytes and its time zone
    "datetime": ("datetime", lambda x: x.__reduce_ex__(4)[1]),
    "timedelta": ("datetime", lambda x: (x.days, x.seconds, x.microseconds)),
    "timezone": ("datetime", lambda x: x.__getinitargs__()),
    "ZoneInfo": ("zoneinfo", lambda x: (x.key,)),
    "struct_time": ("time", lambda x: x.__reduce__()[1]),
    "UUID": ("uuid", lambda x: (x.hex,)),
}
# Views of what another object holds cross as views of a new one, {class: (kind, the items to send, the new view)}.
VIEWS = {
    types.MappingProxyType: (
        "mappingproxy",
        lambda view: view.items(),
        lambda items: types.MappingProxyType(dict(items)),
    ),
    memoryview: ("memoryview", lambda view: [view.tobytes()], lambda items: memoryview(*items)),
    array.array: ("array", lambda view: (view.typecode, view.tobytes()), lambda items: array.array(*items)),
}
for some in ({}, collections.OrderedDict()):
    VIEWS[type(some.keys())] = "keys", list, lambda items: dict.fromkeys(items).keys()
    VIEWS[type(some.values())] = "values", list, lambda items: dict(enumerate(items)).values()
    VIEWS[type(some.items())] = "items", list, lambda items: dict(items).items()
VIEW_OF = {kind: new for kind, _, new in VIEWS.values()}
CONSTANTS = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
# Containers, the derived ones first; bytearray's items are its bytes.
DICTS = (collections.Counter, collections.defaultdict, collections.OrderedDict, dict)
CONTAINERS = {kind.__name__: kind for kind in (*DICTS, list, set, collections.deque, bytearray)}
KINDS = set(CONTAINERS.values())
COPIED = {"derived", "record", *CONTAINERS}  # and objects of classes of the program or the test
UNHASHED = {"list", "deque", "bytearray", "record"}  # what does not hash its items
FROZEN = {"tuple": tuple, "frozenset": frozenset}


class Malformed(Exception):
    """A message that the other side cannot have written with encode."""


def base_of(kind):
    """The container that a class is, or is derived from; None if it is none."""
    if kind in KINDS:
        return kind
    return next((base for base in CONTAINERS.values() if issubclass(kind, base)), None)


def state(thing):
    """The items of a container as a list: of a dict the keys and then the values, of an object its attributes. Methods
    that a derived class overrides are not asked."""
    base = base_of(type(thing))
    if base is list:
        return list.copy(thing)
    if base is None:
        thing, base = attributes(thing), dict
    if base in DICTS:
        return [*base.keys(thing), *base.values(thing)]
    return list(base.__iter__(thing))


def slots_of(cls):
    """The names of the attributes that a class itself has places for in its objects."""
    names = vars(cls).get("__slots__", ())
    names = [names] if type(names) is str else names
    return [name for name in names if name != "__weakref__"]


def all_slots(cls):
    """The slots of a class and those that it is derived from."""
    return list(itertools.chain.from_iterable(map(slots_of, cls.__mro__)))


def attributes(thing):
    """The attributes of an object: its dict, or a new one if its class has slots."""
    if type(thing).__dictoffset__:
        return thing.__dict__
    return {name: getattr(thing, name) for name in all_slots(type(thing)) if hasattr(thing, name)}


def fill_object(thing, names, values):
    """Give an object these attributes and no others. Raises Malformed for a function, and for data that hide a method:
    a test would call what the program made."""
    if any(callable(getattr(type(thing), name, None)) for name in names) or any(map(callable, values)):
        raise Malformed("an attribute that can be called")
    if type(thing).__dictoffset__:
        dict.clear(thing.__dict__)
        dict.update(thing.__dict__, zip(names, values, strict=True))
        return
    for name in attributes(thing):
        object.__delattr__(thing, name)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(thing, name, value)


def fill(thing, items):
    """Give a container, in place, the items of a state."""
    base, half = base_of(type(thing)), len(items) // 2
    if base is None:
        fill_object(thing, items[:half], items[half:])
    elif base is list or base is bytearray:
        base.__setitem__(thing, slice(None), items)
    elif base in DICTS:
        ordered = base if base is collections.OrderedDict else dict  # which keeps the order in a place of its own
        ordered.clear(thing)
        for key, item in zip(items[:half], items[half:], strict=True):
            ordered.__setitem__(thing, key, item)
    else:
        base.clear(thing)
        (base.update if base is set else base.extend)(thing, items)


def known_class(name):
    """The class of VALUES with this name, or None as long as nobody has imported its module."""
    return getattr(sys.modules.get(VALUES[name][0]), name, None)


def references(objects, number):
    """How many references there are to an object of a table."""
    return sys.getrefcount(objects[number])


NO_OTHERS = references({0: []}, 0)  # the table's own and those of the call, which differ between Pythons


class Border:
    """One side of the border: its table of objects, and what it reads and writes.

    A derived class knows the objects that stay where they are: describe(thing) returns the node of one, without the
    number, build(kind, parts) what stands for it on the other side; named(thing) and by_name(name) are the
    name of what both sides have, such as len, and the thing itself."""

    def __init__(self, first_number):
        self.objects = {}  # by number
        self.numbers = {}  # by id
        self.before = {}  # what a container held when it last crossed, by number
        self.next_number = first_number  # each side has every other number
        self.nodes = []  # of the message that is being written, [number, node]; the node of a container is None
        self.incoming = {}  # of the message that is being read, by number
        self.is_careful = False  # about long ints

    def enter(self, number, thing):
        """Put an object into the table."""
        self.objects[number] = thing
        self.numbers[id(thing)] = number
        return thing

    def new_number(self, thing):
        """Put an object of this side into the table; returns its number."""
        number = self.next_number
        self.next_number += 2
        self.enter(number, thing)
        return number

    def drop(self, number):
        """Take a container out of the table."""
        del self.before[number]
        del self.numbers[id(self.objects.pop(number))]

    # -- writing

    def encode(self, *values):
        """A message with these values, as bytes. Raises ValueError for what is nested too deeply."""
        digits, first_new = sys.get_int_max_str_digits(), self.next_number
        sys.set_int_max_str_digits(MAX_DIGITS)
        self.nodes = [[number, None] for number in self.before if self.has_changed(number)]
        try:
            try:
                text = self.text(values)
            except ValueError:  # there is a long int in a flat list
                self.is_careful = True
                text = self.text(values)
            written = [number for number, node in self.nodes if node is None]
            text = f"[{text},{ENCODE(self.idle())}]"
            for number in written:
                if number in self.objects:
                    self.before[number] = state(self.objects[number])
            return text.encode("utf-8", "surrogatepass")
        except BaseException:
            for number in range(first_new, self.next_number, 2):  # the other side will not hear of them
                del self.numbers[id(self.objects.pop(number))]
            raise
        finally:
            sys.set_int_max_str_digits(digits)
            self.nodes, self.is_careful = [], False

    def text(self, values):
        """[cells, nodes] as JSON. Raises ValueError for an int of more than MAX_DIGITS, unless is_careful."""
        cells, nodes = self.cells(values), []
        for number, node in self.nodes:  # which grows in the meantime
            nodes.append([number, *(node or self.contents(number))])
        return ENCODE([cells, nodes])

    def has_changed(self, number):
        """Whether a container holds other objects than when it last crossed."""
        now, before = state(self.objects[number]), self.before[number]
        return len(now) != len(before) or not all(map(operator.is_, now, before))

    def idle(self):
        """Drop the containers to which nothing but the table refers; returns their numbers. The judge keeps all of
        its own until the candidate has dropped them."""
        return []

    def cells(self, items, depth=0):
        """The cells of a list of items; all at once where they are scalars."""
        if not self.is_careful and set(map(type, items)) <= SCALARS:
            return list(items)
        return [self.cell(item, depth) for item in items]

    def cell(self, value, depth=0):
        """The cell of a value."""
        kind = type(value)
        if kind in SCALARS:
            if kind is int and self.is_careful and value.bit_length() > 3 * MAX_DIGITS:
                return ["int", hex(value)]
            return value
        number = self.numbers.get(id(value))
        if number is not None:
            return [number]
        if kind in KINDS:
            number = self.new_number(value)
            self.nodes.append([number, None])
            return [number]
        if depth > MAX_DEPTH:
            raise ValueError(f"tuples are nested more than {MAX_DEPTH} deep")
        if kind.__name__ in FROZEN and kind is FROZEN[kind.__name__]:
            return [kind.__name__, *self.cells(value, depth + 1)]
        if kind.__module__ == "numpy" and hasattr(value, "item") and not value.shape:  # a number of numpy's
            return self.cell(value.item(), depth + 1)
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind.__name__ in VALUES and kind is known_class(kind.__name__):
            return [kind.__name__, *self.cells(VALUES[kind.__name__][1](value), depth + 1)]
        if kind in VIEWS:
            name, items, _ = VIEWS[kind]
            return [name, *self.cells(list(items(value)), depth + 1)]
        if value is Ellipsis or value is NotImplemented:
            return ["constant", repr(value)]
        if name := self.named(value):
            return ["name", *name]
        # Describing an object may number others, such as its class.
        node = None if self.is_container(value) else self.describe(value)
        number = self.new_number(value)
        self.nodes.append([number, node])
        return [number]

    def contents(self, number):
        """The node of a container, without the number."""
        thing = self.objects[number]
        kind, extra = type(thing), None
        if kind is list:
            return ["list", None, self.cells(thing)]
        if kind not in KINDS:
            what = ["derived", self.cell(kind)] if base_of(kind) else ["record", kind.__name__]
            return [*what, self.cells(state(thing))]
        if kind is bytearray:
            return ["bytearray", None, thing.decode("latin-1")]
        if kind is collections.deque:
            extra = thing.maxlen
        elif kind is collections.defaultdict:
            extra = self.cell(thing.default_factory)
        return [kind.__name__, extra, self.cells(state(thing))]

    # -- reading

    def decode(self, data):
        """The values of a message. Raises Malformed."""
        try:
            (cells, nodes), dropped = DECODE(data.decode("utf-8", "surrogatepass"))
            self.incoming = {node[0]: node for node in nodes}
            containers = [node[0] for node in nodes if node[1] in COPIED]
            if any(number in self.objects and number not in self.before for number in containers):
                raise Malformed("the contents of an object that is no container")
            for number in self.incoming:
                self.lookup(number)
            # Sets and dicts last: what they hash is complete by then.
            for hashes in (False, True):
                for number in containers:
                    _, kind, _, items = self.incoming[number]
                    if hashes == (kind not in UNHASHED):
                        items = items.encode("latin-1") if kind == "bytearray" else self.values(items)
                        fill(self.objects[number], items)
            for number in containers:
                self.before[number] = state(self.objects[number])
            for number in dropped:
                self.drop(number)
            return self.values(cells)
        except Exception as error:
            raise Malformed(f"{type(error).__name__}: {error}") from None
        finally:
            self.incoming = {}

    def is_container(self, thing):
        """Whether the objects of this kind are copied and kept alike."""
        return base_of(type(thing)) is not None

    def lookup(self, number):
        """The object with a number, which this message may bring: a container is empty at first."""
        if number not in self.objects:
            _, kind, *parts = self.incoming[number]
            if kind not in CONTAINERS:
                self.enter(number, self.build(kind, parts))
            elif kind == "deque":
                self.enter(number, collections.deque(maxlen=parts[0]))
            elif kind == "defaultdict":
                self.enter(number, collections.defaultdict(self.value(parts[0])))
            else:
                self.enter(number, CONTAINERS[kind]())
        return self.objects[number]

    def values(self, cells):
        """The values of a list of cells."""
        if set(map(type, cells)) <= SCALARS:
            return cells
        return [self.value(cell) for cell in cells]

    def value(self, cell):
        """The value of a cell."""
        if type(cell) is not list:
            return cell
        kind, *parts = cell
        if type(kind) is int:
            return self.lookup(kind)
        if kind in FROZEN:
            return FROZEN[kind](self.values(parts))
        if kind == "int":
            return int(parts[0], 16)
        if kind == "bytes":
            return parts[0].encode("latin-1")
        if kind in VALUES:
            module, _ = VALUES[kind]
            return getattr(__import__(module), kind)(*self.values(parts))
        if kind in VIEW_OF:
            return VIEW_OF[kind](self.values(parts))
        if kind == "constant":
            return CONSTANTS[parts[0]]
        if kind == "name":
            return self.by_name(*parts)
        raise Malformed(f"a cell of kind {kind}")
