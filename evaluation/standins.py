"""Objects that stay in the process that made them, and the classes whose instances stand for them in the other one.

For a class of the program the judge makes a class of the same name and bases, and an instance of it for each instance
that is sent: isinstance, except, callable and len find what they would find in one process. A stand-in has no
attributes of its own. Special methods whose results the program must know are asked for in the other process, and so
are attributes, where the test names the class, as in problems that ask for one. What a program's class says about
equality, order, hash, truth or arithmetic is not asked for: there the test ends, since plain data alone decides a test.
And the candidate asks nothing: a test that hands functions or objects of its own to the program is not judged sealed.
"""

import _thread
import collections
import sys
import types

from evaluation.transport import CONTAINERS, KINDS, NO_OTHERS, VALUES, Border, Malformed, base_of, references

TEST = "__test__"  # the module of the test and its helpers

# Those that the judge asks for. Not arithmetic, with which "abs(f() - x) < 1e-6" would be the program's to decide, nor
# __contains__, which with "x in f()" would be; what Python would ask instead, __iter__, is in Side.contains().
SPECIAL = "call iter next len getitem setitem delitem missing enter exit reversed length_hint format str repr "
SPECIAL = {f"__{name}__" for name in (SPECIAL + "await aiter anext aenter aexit").split()}
UNDECIDED = "failed: the program returned an object that is not plain data"
TEXTS = {"__str__", "__repr__", "__format__"}
# "__len__" decides the truth of an object whose class has no __bool__.
DECIDING = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__"}

# Of Python's functions, those that come to the judge as the judge's own; others are called where they are.
PURE = set(
    """abs all any ascii bin callable chr divmod format hash hex id isinstance issubclass iter len max min next oct ord
    pow repr round sorted sum""".split()
)
# Classes of Python that isinstance finds in a stand-in.
NATIVE = [types.FunctionType, types.MethodType, types.BuiltinMethodType, types.GeneratorType, types.CoroutineType]
NATIVE = {kind.__name__: kind for kind in (*NATIVE, map, filter, zip, enumerate, reversed)}
RECORDS = (types.SimpleNamespace, collections.UserDict, collections.UserList, collections.UserString)
RECORDS = {kind.__name__: kind for kind in (*RECORDS, collections.ChainMap)}  # Python's classes that copy as records do
VALUE_BASES = (int, float, str, bytes, tuple, frozenset)  # a derived class is sent with the base's value
NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)


class Ended(BaseException):
    """The program has ended, or may not decide what the test asks. No test can catch this for good: see Side.end."""


def find(module, name):
    """What an imported module has under a dotted name; raises AttributeError."""
    thing = sys.modules.get(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def library_name(thing):
    """(module, dotted name) of a class or function of Python and its library; None for other things."""
    if not isinstance(thing, NAMED):
        return None
    home = getattr(thing, "__objclass__", thing)
    module, name = home.__module__, thing.__qualname__
    if type(module) is not str or module.split(".")[0] not in sys.stdlib_module_names or module == "__main__":
        return None
    try:
        return (module, name) if find(module, name) is thing else None
    except AttributeError:
        return None


def judge_takes(module, name):
    """Whether the judge takes a thing of this name from the candidate: the classes of plain data, and PURE."""
    if module == "builtins":
        return name in PURE or "." not in name and isinstance(find(module, name), type)
    kind = CONTAINERS.get(name)
    return module == kind.__module__ if kind else name in VALUES and VALUES[name][0] == module


class Side(Border):
    """One side of the border: asks the other one and answers it.

    connection: an object with send(bytes) and receive() -> bytes. is_judge: whether this is the side of the test."""

    def __init__(self, connection, is_judge):
        super().__init__(first_number=0 if is_judge else 1)
        self.connection, self.is_judge = connection, is_judge
        self.records = RECORDS  # classes that both sides define, by name: their instances are copied
        self.known = set()  # the program's classes that the test names: their objects have attributes
        self.ending = None  # why the program or the test has ended
        self.lock = _thread.RLock()  # threads of a test or a program ask in turn
        # What the judge asks the candidate for.
        self.operations = {"call": call, "special": special, "get": getattr, "set": setattr, "delete": delattr}
        self.operations["raise"] = raise_error
        self.Class = class_of_classes(self)

    # -- asking and answering

    def ask(self, operation, *arguments):
        """What the other side answers; an exception that it raised is raised here."""
        with self.lock:
            self.send(operation, *arguments)
            return self.answer(operation)

    def ask_about(self, operation, thing, *arguments):
        """Get, set or delete an attribute."""
        self.must_be_known(thing)
        return self.ask(operation, thing, *arguments)

    def must_be_known(self, thing):
        """End the test if it does not name the thing's class. What has an attribute that the test does not expect would
        decide the test itself: an object whose "startswith" says yes to everything is not a text."""
        kind = thing if isinstance(thing, self.Class) else type(thing)
        if not self.known.intersection(kind.__mro__):
            self.end(UNDECIDED)

    def contains(self, thing, item):
        """Whether an item is among those of a thing. One that comes to every number would hold whatever a test asks."""
        self.must_be_known(thing)
        return any(one is item or one == item for one in thing)

    def answer(self, operation):
        """The next answer, to a question of this kind."""
        kind, content = self.receive()
        if kind == "error":  # a StopIteration of a call would end a map() of the test, without a failure
            is_end = operation == "call" and isinstance(content, StopIteration)
            raise RuntimeError("a call raised StopIteration") if is_end else content
        return content

    def serve(self):
        """Answer questions until the other side has gone."""
        while True:
            try:
                question = self.receive()
            except Malformed as error:
                question = ["raise", TypeError(f"the test passes what cannot cross: {error}")]
            self.reply(question)

    def reply(self, question):
        """Answer a question, [operation, argument, ...], with a value or an exception."""
        try:
            operation, *arguments = question
            question.clear()  # which would keep the arguments referenced
            result = "value", self.operations[operation](*arguments)
        except Ended:
            raise
        except BaseException as error:  # sys.exit is no way out either
            result = "error", error
        arguments = None
        try:
            self.send(*result)
        except Exception as error:  # such as a ValueError of encode
            self.send("error", error)

    def send(self, *message):
        """Send a message, unless the end has come."""
        if self.ending:
            raise Ended(self.ending)
        try:
            with self.connection.unhurried():
                self.connection.send(self.encode(*message))
        except EOFError as error:
            self.end(str(error))

    def receive(self):
        """The next message."""
        try:
            data = self.connection.receive()
            with self.connection.unhurried():
                return self.decode(data)
        except EOFError as error:
            self.end(str(error))
        except Malformed as error:
            if not self.is_judge:
                raise
            self.end(f"failed: an answer that is not plain data: {error}")

    def end(self, reason):
        """Note that the end has come, whatever the test catches, and raise it."""
        self.ending = self.ending or reason
        raise Ended(self.ending)

    # -- what the table of the border asks for

    def named(self, thing):
        """See Border: ("module", its name), or the names of a thing."""
        if type(thing) is types.ModuleType:
            return ("module", thing.__name__) if thing.__name__.split(".")[0] in sys.stdlib_module_names else None
        name = library_name(thing)
        return name if name and (self.is_judge or judge_takes(*name)) else None

    def by_name(self, module, name):
        """See Border."""
        if self.is_judge and (module == "module" or not judge_takes(module, name)):
            raise ValueError(f"{module}.{name} in an answer")
        if module == "module":
            __import__(name)
            return sys.modules[name]
        __import__(module)
        return find(module, name)

    def is_container(self, thing):
        """See Border: also an object of a class that both sides define."""
        return super().is_container(thing) or self.records.get(type(thing).__name__) is type(thing)

    def idle(self):
        """See Border: the candidate drops what neither the program nor a container that stays refers to."""
        if self.is_judge:
            return []
        dropped = []
        for number in sorted(self.before):
            if references(self.objects, number) == NO_OTHERS:
                self.drop(number)
                dropped.append(number)
        return dropped

    def describe(self, thing):
        """The node of an object that stays here. Raises TypeError for one of the test's."""
        kind = type(thing)
        if self.is_judge:
            raise TypeError(f"the test passes a {kind.__name__}, which cannot cross into the program's process")
        if isinstance(thing, type):
            return self.describe_class(thing)
        if isinstance(thing, BaseException):
            thing.__traceback__ = None  # which refers to all that the program's functions held
            return ["exception", self.cell(kind), self.cells(thing.__reduce__()[1]), self.cell(thing.__cause__)]
        for base in VALUE_BASES:
            if issubclass(kind, base):
                value = base.__getnewargs__(thing)[0] if hasattr(base, "__getnewargs__") else base(thing)
                return ["value", self.class_cell(kind), self.cell(value)]
        return ["object", self.class_cell(kind)]

    def describe_class(self, kind):
        """The node of a class: its names, its bases, and which special methods and others it has."""
        bases, names = [], set()
        for base in kind.__bases__:
            if base is not object:
                is_real = base in VALUE_BASES or base in KINDS or issubclass(base, BaseException)
                bases.append(self.cell(base) if is_real else self.class_cell(base))
        for parent in set(kind.__mro__[:-1]).difference(VALUE_BASES, KINDS):
            is_programs = parent.__module__ != "builtins"
            names |= {name for name in vars(parent) if name in SPECIAL | DECIDING or is_programs and name[:2] != "__"}
        return ["class", kind.__name__, kind.__module__, bases, sorted(names)]

    def class_cell(self, kind):
        """The cell of the class of an object that stays here: never a name, as the class of what stands for the object
        is another one."""
        if id(kind) not in self.numbers:
            node = self.describe_class(kind)
            self.nodes.append([self.new_number(kind), node])
        return [self.numbers[id(kind)]]

    def build(self, kind, parts):
        """What stands here for an object of the other side, or its copy."""
        if kind == "class":
            return self.build_class(*parts)
        if kind == "record":
            cls = self.records[parts[0]]
            return (cls if cls is types.SimpleNamespace else object).__new__(cls)
        cls = self.value(parts[0])
        if kind == "exception":
            return self.build_exception(cls, *parts[1:])
        if type(cls) is not self.Class:
            raise ValueError("an instance of a class that does not stand for one")
        if kind == "value":
            value = self.value(parts[1])
            return type(value).__new__(cls, value)
        return (base_of(cls) or object).__new__(cls)

    def build_exception(self, cls, arguments, cause):
        """An exception; of a class of Python's, a whole one, else one that stands for the other side's."""
        if not issubclass(cls, BaseException):
            raise ValueError("an exception that is none")
        arguments = self.values(arguments)
        if any(map(callable, arguments)):
            raise ValueError("an exception that holds a function")
        try:
            error = cls.__new__(cls, *arguments) if type(cls) is self.Class else cls(*arguments)
        except TypeError:  # __init__ takes other arguments than those that are kept
            error = cls.__new__(cls, *arguments)
        if cause is not None:
            error.__cause__ = self.value(cause)
        return error

    def build_class(self, name, module, bases, names):
        """A class that stands for one of the other side. An exception of the library is the judge's own, if the test
        has imported it."""
        try:
            real = find(module, name) if module.split(".")[0] in sys.stdlib_module_names else None
            is_exception = isinstance(real, type) and issubclass(real, BaseException)
            if is_exception and "." not in name and not name.startswith("_"):  # as unittest's own signals are called
                return real
        except AttributeError:
            pass
        bases, names = tuple(self.values(bases)), set(names)
        own = [parent for base in bases for parent in base.__mro__[:-1] if type(parent) is not self.Class]
        is_data = any(parent in VALUE_BASES or base_of(parent) for parent in own)
        members = {"__slots__": (), "__module__": module, "__setattr__": attribute_setter(self)}
        members |= {"__reduce_ex__": refuse_copy, "__doc__": property(lambda thing: self.ask("get", thing, "__doc__"))}
        members["__getattr__"] = lambda thing, name: self.ask_about("get", thing, name)
        members["__delattr__"] = lambda thing, name: self.ask_about("delete", thing, name)
        # The special methods of plain data are Python's own, whatever the program makes of them.
        for special in names & SPECIAL | TEXTS:
            if special in TEXTS or not (is_data and any(hasattr(parent, special) for parent in own)):
                members[special] = self.forward(special)
        members |= self.deciding(names)
        if names & {"__iter__", "__getitem__"} and not any(hasattr(parent, "__contains__") for parent in own):
            members["__contains__"] = lambda thing, item: self.contains(thing, item)
        for method in names - SPECIAL - DECIDING:
            if not method.startswith("__") and any(hasattr(parent, method) for parent in own):
                members[method] = property(lambda thing, name=method: self.ask_about("get", thing, name))
        if name in NATIVE and module == "builtins":
            members["__class__"] = property(lambda thing: NATIVE[name])
        return self.Class.make(name, bases, members)

    def forward(self, name):
        """A special method that the other side carries out."""
        if name == "__call__":
            return lambda *arguments, **keywords: self.ask("call", *arguments[:1], list(arguments[1:]), keywords)
        return lambda *arguments: self.ask("special", name, *arguments)

    def deciding(self, names):
        """What a class says about equality, order, hash and truth, {name: method}: no object of the program decides a
        test."""
        names = names & DECIDING | ({"__bool__"} if "__len__" in names else set())
        if "__eq__" in names:
            names |= {"__ne__", "__hash__"}
        elif "__hash__" in names:
            names.remove("__hash__")
        return dict.fromkeys(names, lambda *_: self.end(UNDECIDED))


def call(function, arguments, keywords):
    """Call a function."""
    return function(*arguments, **keywords)


def special(name, thing, *arguments):
    """Call a special method, which is looked up in the class as Python does."""
    return getattr(type(thing), name)(thing, *arguments)


def raise_error(error):
    """Raise an exception."""
    raise error


def refuse_copy(thing, _):
    """__reduce_ex__ of stand-ins, on which copies and pickles rest."""
    raise TypeError(f"a {type(thing).__name__} of another process cannot be copied")


def attribute_setter(side):
    """__setattr__ of stand-ins: what Python itself notes in an exception stays here."""

    def set_attribute(thing, name, value):
        """thing.name = value"""
        if name.startswith("__"):
            return object.__setattr__(thing, name, value)
        side.ask_about("set", thing, name, value)

    return set_attribute


def class_of_classes(side):
    """The class of the classes that stand for the other side's."""

    class Class(type):
        """Asks the other side for what is done with a class."""

        def __new__(cls, name, bases, members):
            raise TypeError(f"{name} is derived from a class of another process")

        @classmethod
        def make(cls, name, bases, members):
            """A new class that stands for one of the other side."""
            return type.__new__(cls, name, bases, members)

        def __call__(self, *arguments, **keywords):
            return side.ask("call", self, list(arguments), keywords)

        def __getattr__(self, name):
            return side.ask_about("get", self, name)

        def __setattr__(self, name, value):
            side.ask_about("set", self, name, value)

        def __iter__(self):
            return side.ask("special", "__iter__", self)

        def __len__(self):
            return side.ask("special", "__len__", self)

        def __getitem__(self, key):
            return side.ask("special", "__getitem__", self, key)

        def __contains__(self, item):
            return side.contains(self, item)

        def __bool__(self):
            return True

    return Class
