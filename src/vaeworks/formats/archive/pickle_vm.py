"""An interpreter for pickles that builds plain values and lazy tensors: it imports nothing, calls nothing, executes
nothing.

Python's unpickler calls whatever a file names. Here a name is only a `Global`, and `pickled` knows which of them are
harmless.
Source: pickletools in Python's standard library, whose readers of arguments are used.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any, cast

from ...errors import FormatError
from .mapped import MappedFile
from .pickle_types import MAKERS, BrokenPickleError, Global, Opaque, Storage, Table, Value, storage

MAX_BYTES = 64 * 2**20
"""Longest pickle that is read; that of a 7 GB checkpoint is shorter than 1 MB."""

MAX_STEPS = 1_000_000
"""Most opcodes of a model; a 7 GB checkpoint has 50 000, one with an optimizer's states a few times as many."""

MAX_GLOBALS = 1000
"""Most names that a file refers to; checkpoints have ten, with a trainer's settings 100."""

MAX_GLOBAL = 500
"""Characters of a name that a pickle refers to."""


def all_steps() -> Iterator[int]:
    """The steps that a model has, to be used up."""
    return iter(range(MAX_STEPS))


LARGEST = 2**256
"""Integers beyond it, or beyond its negative, are taken for it: out of every range as well, and quick to compute with.
The longest in checkpoints are the 128 bits of random number generators."""


class TornPickleError(FormatError):
    """A pickle ends too early or makes no sense."""


def shown(text: str, limit: int = 80) -> str:
    """Text from a file as it may stand in a message: short, printable, in one line."""
    escaped = text[: limit + 1].encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


WINDOW = 2**16
"""Bytes that are copied from the mapped file at a time."""


class Stream:
    """Pickles within a mapped file, one behind another, read like a file: they end before byte `end`, and after
    MAX_BYTES at most."""

    def __init__(self, file: MappedFile, start: int, end: int):
        self.file, self.position = file, start
        self.end = min(end, start + MAX_BYTES)
        self.begin, self.window = start, b""

    def read(self, count: int) -> bytes:
        start, stop = self.position, min(self.position + count, self.end)
        if stop > self.begin + len(self.window):
            self.file.check()
            self.begin, self.window = start, self.file[start : max(stop, min(start + WINDOW, self.end))]
        self.position = stop
        return self.window[start - self.begin : stop - self.begin]

    def readline(self) -> bytes:
        length = self.window.find(b"\n", self.position - self.begin) + 1 + self.begin - self.position
        if length <= 0:
            self.file.check()
            newline = self.file.find(b"\n", self.position, self.end)
            length = (newline + 1 if newline >= 0 else self.end) - self.position
        return self.read(length)


class Machine:
    """A stack and a memo, and what was met on the way: names, storages by their keys, and the trainer's classes.

    A file's pickles share one machine, and a model's files share the number of steps.
    """

    def __init__(self, where: str, steps: Iterator[int] | None = None):
        self.where = where
        self.stack: list[Value] = []
        self.below: list[list[Value]] = []  # stacks that MARK has put aside
        self.memo: dict[int, Value] = {}
        self.texts: dict[str, str] = {}
        self.steps = all_steps() if steps is None else steps
        self.names: dict[tuple[str, str], Global] = {}
        self.storages: dict[str, Storage] = {}
        self.classes: dict[str, None] = {}

    def interpret(self, stream: Stream) -> Value:
        """The value that the pickle at the stream's position describes.

        Errors: FormatError for a name that could run code, for a pickled model, and for a torn or altered pickle.
        """
        try:
            return self._follow(stream)
        except FormatError:
            raise
        except (ValueError, OverflowError) as error:  # ValueError: our own, Unicode's, and what pickletools raises
            reason = str(error) if isinstance(error, BrokenPickleError) else "ends too early or makes no sense"
            raise TornPickleError(
                f"{self.where} is torn or altered: its pickle {reason}, at byte {stream.position}; download it again"
            ) from None

    def _follow(self, stream: Stream) -> Value:
        self.stack, self.below, self.memo = [], [], {}
        for _ in self.steps:
            code = stream.read(1)
            if code not in OPCODES:
                raise BrokenPickleError("has an unknown opcode" if code else "ends too early")
            read, act = OPCODES[code]
            argument = read(stream) if read else None
            if code == b".":
                return self.pop()
            act(self, argument)
        raise BrokenPickleError(f"has more than {MAX_STEPS} steps")

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def push_text(self, value: str) -> None:
        """Equal texts are one object: they are compared at every look into a dict, which for copies of 20 MB takes a
        millisecond each."""
        self.push(self.texts.setdefault(value, value))

    def push_number(self, value: int) -> None:
        self.push(max(-LARGEST, min(value, LARGEST)))

    def pop(self) -> Value:
        self.top()
        return self.stack.pop()

    def top(self) -> Value:
        if not self.stack:
            raise BrokenPickleError("takes what is not there")
        return self.stack[-1]

    def pop_many(self, count: int) -> tuple[Value, ...]:
        return tuple([self.pop() for _ in range(count)][::-1])

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Value]:
        if not self.below:
            raise BrokenPickleError("takes what is not there")
        items, self.stack = self.stack, self.below.pop()
        return items

    def discard(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise BrokenPickleError("refers to what is not there")
        self.push(self.memo[index])

    def remember(self, index: int) -> None:
        if not 0 <= index < 2**32:
            raise BrokenPickleError("numbers its memo impossibly")
        self.memo[index] = self.top()

    def refer(self, module: Value, attribute: Value) -> None:
        """Push a global.

        Errors: FormatError for one that is not known to be harmless.
        """
        if type(module) is not str or type(attribute) is not str:
            raise BrokenPickleError("names something by what is no name")
        if (module, attribute) not in self.names:
            self.names[module, attribute] = self.harmless(module, attribute)
        self.push(self.names[module, attribute])

    def harmless(self, module: str, attribute: str) -> Global:
        """A global that does no harm.

        Errors: FormatError for one that is not known to be harmless.
        """
        if len(self.names) >= MAX_GLOBALS:
            raise BrokenPickleError(f"names more than {MAX_GLOBALS} things")
        if len(module) + len(attribute) > MAX_GLOBAL:
            raise BrokenPickleError(f"names {shown(module, 40)}, which is too long for a name")
        found = Global(module, attribute)
        if found.of_model:
            raise FormatError(
                f"{self.where} is a pickled model of class {shown(found.name)}, which only the program that made it "
                "can load; save its state_dict() there instead"
            )
        if not found.harmless:
            raise FormatError(
                f"{self.where} holds a call of {shown(found.name)}, which would run when unpickled; nothing was run. "
                "Ask for a .safetensors file"
            )
        if found.of_trainer:
            self.classes[found.name] = None
        return found

    def refer_by_text(self, argument: tuple[str, str]) -> None:
        self.refer(*argument)

    def refer_by_stack(self) -> None:
        self.refer(*self.pop_many(2))

    def call(self, function: Value, arguments: Value) -> None:
        """Push what a call would return, without a call."""
        if type(function) is not Global or type(arguments) is not tuple:
            raise BrokenPickleError("calls what is no function")
        make = MAKERS.get(function.name)
        self.push(make(arguments) if make else Opaque(function.name))

    def call_marked(self) -> None:
        function, *arguments = self.since_mark() or [None]
        self.call(function, tuple(arguments))

    def call_text(self, argument: tuple[str, str]) -> None:
        arguments = tuple(self.since_mark())
        self.refer(*argument)
        self.call(self.pop(), arguments)

    def call_with_keywords(self) -> None:
        function, arguments, _ = self.pop_many(3)
        self.call(function, arguments)

    def set_state(self) -> None:
        """Ignore a state, such as the `_metadata` of a state_dict."""
        self.pop()
        if type(self.top()) is Global:
            raise BrokenPickleError("changes a class")

    def store(self, identifier: Value) -> None:
        found = storage(identifier)
        self.storages.setdefault(found.key, Storage(found.key, found.dtype, identifier[4]))
        self.push(found)

    def extend(self, items: list[Value]) -> None:
        target = self.top()
        if type(target) is list:
            target.extend(items)
        elif type(target) is not Opaque:
            raise BrokenPickleError("appends to what is no list")

    def update(self, items: list[Value]) -> None:
        target = self.top()
        if type(target) is Table:
            target.pairs.extend(zip(items[::2], items[1::2], strict=True))
        elif type(target) is not Opaque:
            raise BrokenPickleError("sets items of what is no dict")

    def update_marked(self) -> None:
        self.update(self.since_mark())

    def make_table(self) -> None:
        items = self.since_mark()
        self.push(Table())
        self.update(items)

    def refuse_opcode(self) -> None:
        raise BrokenPickleError("uses what PyTorch never writes")


def _read_text(stream: Stream) -> str:
    """A quoted string of protocol 0, in which escapes stay as they are: undoing them warns about wrong ones."""
    line = _read_line(stream)
    if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
        raise BrokenPickleError("has text without quotes")
    return line[1:-1]


def _read_line(stream: Stream) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise BrokenPickleError("ends too early")
    return line[:-1].decode("utf-8")


def _read_name(stream: Stream) -> tuple[str, str]:
    return _read_line(stream), _read_line(stream)


def _read_protocol(stream: Stream) -> None:
    if stream.read(1) not in (b"\0", b"\1", b"\2", b"\3", b"\4", b"\5"):
        raise BrokenPickleError("has an unknown protocol")


Reader = Callable[[Stream], Any]
Act = Callable[[Machine, Any], object]

READERS: dict[str, Reader] = {
    "STRING": _read_text,
    "GLOBAL": _read_name,
    "INST": _read_name,
    "PROTO": _read_protocol,
}
"""Arguments that are read otherwise than by pickletools."""

ACTS: dict[str, Act] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, argument: None),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        Machine.push,
    ),
    **dict.fromkeys(
        ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        Machine.push_text,
    ),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), Machine.push_number),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.discard(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_many(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_many(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_many(3)),
    **dict.fromkeys(("TUPLE", "FROZENSET"), lambda machine, _: machine.push(tuple(machine.since_mark()))),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.push([])),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.since_mark())),
    "EMPTY_DICT": lambda machine, _: machine.push(Table()),
    "DICT": lambda machine, _: machine.make_table(),
    "SETITEM": lambda machine, _: machine.update(list(machine.pop_many(2))),
    "SETITEMS": lambda machine, _: machine.update_marked(),
    "GLOBAL": Machine.refer_by_text,
    "STACK_GLOBAL": lambda machine, _: machine.refer_by_stack(),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.call(*machine.pop_many(2))),
    "NEWOBJ_EX": lambda machine, _: machine.call_with_keywords(),
    "OBJ": lambda machine, _: machine.call_marked(),
    "INST": Machine.call_text,
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.store(machine.pop()),
}
"""What opcodes do; those that are not here (extension registry, buffers, textual persistent ids) never stand in
PyTorch's files."""

OPCODES: dict[bytes, tuple[Reader | None, Act]] = {
    opcode.code.encode("latin-1"): (
        READERS.get(opcode.name) or (cast(Reader, opcode.arg.reader) if opcode.arg else None),
        ACTS[opcode.name],
    )
    if opcode.name in ACTS
    else (None, lambda machine, _: machine.refuse_opcode())
    for opcode in pickletools.opcodes
}
