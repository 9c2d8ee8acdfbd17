"""Where in an unpickled checkpoint the tensors are."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import FormatError
from .pickle_types import Global, Opaque, StoredTensor, Table, Unreadable, Value
from .pickle_vm import shown

WRAPPERS = ("state_dict", "model", "module", "ema", "params", "params_ema", "weights", "vae")
"""Keys under which trainers keep a model's tensors; Lightning's "state_dict" before all others."""

KINDS: dict[type, str] = {
    Table: "a dict",
    tuple: "a list",
    int: "a number",
    float: "a number",
    str: "text",
    type(None): "nothing",
}

OTHERS = {
    "string_to_param": "a textual inversion embedding, not a VAE",
    "sd_checkpoint_name": "a hypernetwork, not a VAE",
}
"""Dicts that keep their tensors elsewhere, by a key of theirs."""

MAX_DEPTH = 3
"""Dicts within dicts in which tensors are looked for."""

MAX_DROPPED = 100
"""Things besides tensors that are named one by one."""


@dataclass
class _Search:
    """What each dict holds under names, and how many tensors, by the identity of its pairs: many dicts may share
    them."""

    seen: dict[int, tuple[dict[str, Value], int]] = field(default_factory=dict)

    def look(self, table: Table) -> tuple[dict[str, Value], int]:
        if id(table.pairs) not in self.seen:
            named = table.named()
            self.seen[id(table.pairs)] = (
                named,
                sum(isinstance(value, StoredTensor | Unreadable) for value in named.values()),
            )
        return self.seen[id(table.pairs)]

    def best(self, table: Table, depth: int = MAX_DEPTH) -> tuple[int, list[Table]]:
        """Most tensors that a dict within this one holds, and the way there."""
        named, count = self.look(table)
        found = (count, [table])
        for key in WRAPPERS if depth else ():
            if isinstance(inner := named.get(key), Table):
                count, way = self.best(inner, depth - 1)
                if count and key == WRAPPERS[0]:
                    return count, [table, *way]
                if count > found[0]:
                    found = (count, [table, *way])
        return found


def state_dict(value: Value, where: str) -> tuple[dict[str, StoredTensor | Unreadable], list[str]]:
    """A checkpoint's tensors by name, and in words what else it holds.

    Errors: FormatError for one without tensors.
    """
    if not isinstance(value, Table):
        raise FormatError(
            f"{where} holds {kind(value)}, not a dict of tensors; save the model's state_dict() as a .safetensors file"
        )
    count, way = _Search().best(value)
    if not count:
        keys = ", ".join(shown(key, 40) for key in list(value.named())[:5])
        what = next((words for key, words in OTHERS.items() if key in value.named()), "no model file")
        raise FormatError(f"{where} holds a dict without tensors (keys: {keys or 'none'}); it is {what}")
    tensors = {name: item for name, item in way[-1].named().items() if isinstance(item, StoredTensor | Unreadable)}
    dropped = {
        described: None
        for table, inner in zip(way, [*way[1:], None], strict=True)
        for described in _others(table, inner)
    }
    return tensors, list(dropped)


def _others(table: Table, inner: Table | None) -> list[str]:
    """What a dict on the way to the tensors holds besides them, or besides the next dict on the way."""
    named = [
        shown(key)
        for key, value in table.named().items()
        if (value is not inner if inner is not None else not isinstance(value, StoredTensor | Unreadable))
    ]
    return named + [_unnamed(key) for key, _ in table.items() if type(key) is not str]


def _unnamed(key: Value) -> str:
    if isinstance(key, Global | Opaque):
        return f"class {shown(key.name)}"
    if type(key) is int and abs(key) < 2**63:
        return f"key {key}"
    return f"a key that is {kind(key)}"


def kind(value: Value) -> str:
    """What a value is, in words."""
    if isinstance(value, Opaque | Global):
        return f"a {shown(value.name)}"
    if isinstance(value, StoredTensor | Unreadable):
        return "a single tensor"
    return KINDS.get(type(value), f"a {type(value).__name__}")
