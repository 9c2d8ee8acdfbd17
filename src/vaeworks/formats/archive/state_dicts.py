"""Where in an unpickled checkpoint the tensors are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...errors import FormatError
from .limits import MAX_TENSORS
from .pickle_types import Global, Opaque, StoredTensor, Table, Unreadable, Value
from .pickle_vm import shown

STATE_DICT = "state_dict"
"""Lightning's key of the model's tensors. Every program looks under it, so it is no part of their names."""

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

HALVES = ("encoder", "decoder", "taesd_encoder", "taesd_decoder")
"""Keys that are parts of a VAE's names."""

MAX_DEPTH = 4
"""Dicts within dicts in which tensors are looked for."""

MAX_DROPPED = 100
"""Things besides tensors that are named one by one."""


@dataclass
class _Search:
    """The tensors of a dict, and of the dicts within it, by the keys on the way to them."""

    tensors: dict[str, StoredTensor | Unreadable] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    """name -> the keys before it"""
    dropped: list[str] = field(default_factory=list)
    """what else there is"""
    seen: set[int] = field(default_factory=set)
    """dicts that were looked through, by the identity of their pairs: many may share them"""

    def look(self, table: Table, prefix: str = "", depth: int = 0) -> bool:
        """Whether there are tensors in a dict or below."""
        if id(table.pairs) in self.seen or depth > MAX_DEPTH or len(self.tensors) > MAX_TENSORS:
            return False
        self.seen.add(id(table.pairs))
        named = table.named()
        inner = named.get(STATE_DICT)
        found = isinstance(inner, Table) and self.look(inner, prefix, depth + 1)
        for key, value in named.items():
            name = prefix + key
            if isinstance(value, StoredTensor | Unreadable):
                if name not in self.tensors:
                    self.tensors[name], self.origin[name] = value, prefix
                found = True
            elif value is not inner or not isinstance(value, Table):
                so_far = len(self.dropped)
                within = isinstance(value, Table) and self.look(value, f"{name}.", depth + 1)
                if not within:
                    self.dropped[so_far:] = [shown(name)]
                found |= within
        self.dropped += [_unnamed(key) for key, _ in table.items() if type(key) is not str]
        return found

    def drop_strangers(self) -> None:
        """Drop what lies beside STATE_DICT and shares no name with what lies in it."""
        own = {name for name, origin in self.origin.items() if not origin}
        akin = {key for name, key in self.origin.items() if name.removeprefix(key) in own}
        for name, origin in list(self.origin.items()):
            if own and origin not in akin:
                self.dropped.append(shown(origin.split(".")[0]))
                del self.tensors[name], self.origin[name]


@dataclass(frozen=True)
class FoundTensors:
    """The tensors of a checkpoint."""

    tensors: dict[str, StoredTensor | Unreadable]
    wrapper: str
    """the keys before all of the names, such as `model_state_dict.`, which are no part of them; "" if there are none"""
    dropped: list[str]
    """in words, what else the checkpoint holds"""


def state_dict(value: Value, where: str) -> FoundTensors:
    """A checkpoint's tensors by name.

    Tensors in several dicts have the dicts' keys before their names, `ema.encoder.conv_in.weight`, but for STATE_DICT.
    Beside STATE_DICT, a dict counts only if it has some of the same names, as an average of the weights has. Tensors
    that cannot be read count only in the dict that holds most.
    Errors: FormatError for a checkpoint without tensors.
    """
    if not isinstance(value, Table):
        raise FormatError(
            f"{where} holds {kind(value)}, not a dict of tensors; save the model's state_dict() as a .safetensors file"
        )
    search = _Search()
    what = next((words for key, words in OTHERS.items() if key in value.named()), "")
    if what or not search.look(value):
        keys = ", ".join(shown(key, 40) for key in list(value.named())[:5])
        raise FormatError(
            f"{where} holds a dict without tensors (keys: {keys or 'none'}); it is {what or 'no model file'}"
        )
    (main, _), *_ = Counter(search.origin.values()).most_common(1)
    if isinstance(value.named().get(STATE_DICT), Table):
        search.drop_strangers()
    found = {}
    for name, item in search.tensors.items():
        if isinstance(item, Unreadable) and search.origin[name] != main:
            search.dropped.append(shown(name))
        else:
            found[name] = item
    wrapper = _common({search.origin[name] for name in found})
    return FoundTensors(
        {name.removeprefix(wrapper): item for name, item in found.items()},
        wrapper,
        list(dict.fromkeys(search.dropped)),
    )


def _common(origins: set[str]) -> str:
    """The keys that all of these begin with, up to a part of a VAE."""
    common = ""
    shortest = min(origins, key=len)
    for key in shortest.split(".")[:-1]:
        longer = f"{common}{key}."
        if key in HALVES or not all(origin.startswith(longer) for origin in origins):
            break
        common = longer
    return common


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
