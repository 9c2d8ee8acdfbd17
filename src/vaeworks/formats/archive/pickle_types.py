"""What names in a pickle mean to us: tensors and plain values, something inert, or a reason to refuse the file.

Source: the rebuild functions in torch/_utils.py and torch/_tensor.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .entries import MAX_DIMENSIONS

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
    "complex128": "complex128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "quint8": "quint8",
    "qint8": "qint8",
    "qint32": "qint32",
    "quint4x2": "quint4x2",
    "quint2x4": "quint2x4",
}
"""PyTorch's dtypes, in the names of `entries`."""

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "U8",
    "QUInt8Storage": "quint8",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
"""Dtypes of PyTorch's storage classes."""

STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")

TRAINER_MODULES = (
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "torchmetrics.",
    "torch.optim.",
)
"""Packages whose classes trainers leave in checkpoints."""

MODEL_MODULES = (
    "torch.nn.modules.",
    "torch.nn.parallel.",
    "torch.nn.quantized.",
    "torch.ao.nn.",
    "torch.fx.",
    "torch.jit.",
    "__torch__.",
    "torchvision.models.",
    "diffusers.",
    "transformers.",
    "timm.",
    "ldm.",
    "sgm.",
    "taming.",
    "open_clip.",
)
"""Packages whose classes say that somebody pickled a whole model."""

PLAIN_TENSORS = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_ARRAYS = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
_TYPES = (
    "int",
    "long",
    "float",
    "complex",
    "bool",
    "str",
    "unicode",
    "bytes",
    "bytearray",
    "object",
    "slice",
    "range",
    "xrange",
)

INERT = {
    "collections.Counter",
    "_codecs.encode",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "argparse.Namespace",
    "typing.Any",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    *(f"{module}.{name}" for module in ("numpy.core", "numpy._core") for name in _ARRAYS),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _TYPES),
    *("datetime." + name for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"{module}.{name}" for module in STORAGE_MODULES for name in STORAGES),
    *("torch." + name for name in ("per_tensor_affine", "per_channel_affine", *DTYPES)),
    *PLAIN_TENSORS,
}
"""Other harmless names."""

Value = Any
"""None, bool, int, float, str, bytes, tuple, list, or one of the classes below."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle refers to; nothing is imported for it."""

    module: str
    attribute: str

    @property
    def name(self) -> str:
        return f"{self.module}.{self.attribute}"

    @property
    def is_name(self) -> bool:
        """Whether it is looked up in one step: "path.join" of "os" would be two."""
        return all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", part) for part in (*self.module.split("."), self.attribute))

    @property
    def of_trainer(self) -> bool:
        return self.is_name and f"{self.module}.".startswith(TRAINER_MODULES)

    @property
    def of_model(self) -> bool:
        return self.is_name and f"{self.module}.".startswith(MODEL_MODULES) and self.attribute[0].isupper()

    @property
    def harmless(self) -> bool:
        return self.of_trainer or (self.is_name and (self.name in INERT or self.name in MAKERS))


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """What a call of a harmless name would have returned; nothing was called."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A dict of any kind, as its pairs: keys are never hashed or compared here, which a hostile file could make
    slow."""

    pairs: list = field(default_factory=list)

    def items(self) -> list[tuple[Value, Value]]:
        return [(pair[0], pair[1]) for pair in self.pairs if type(pair) in (tuple, list) and len(pair) == 2]

    def named(self) -> dict[str, Value]:
        """The values whose keys are text; the last of equal keys wins."""
        return {key: value for key, value in self.items() if type(key) is str}


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A part of a file that tensors share: `numel` elements, from element `offset` of the record called `key`."""

    key: str
    dtype: str
    numel: int
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor as its pickle describes it, to be checked; sizes, strides and offset count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Unreadable:
    """A tensor of a kind that is not supported."""

    kind: str


class BrokenPickleError(ValueError):
    """What is wrong with a pickle, in half a sentence."""


def storage(identifier: Value) -> Storage:
    """The storage that a persistent id of PyTorch's means: ("storage", class, key, location, numel), in old files and a
    view."""
    match identifier:
        case ("storage", Global(module, attribute), str(key), _, int(numel), *view) if (
            module in STORAGE_MODULES and attribute in STORAGES
        ):
            whole = Storage(key, STORAGES[attribute], numel)
        case _:
            raise BrokenPickleError("has a persistent id that is not PyTorch's")
    match view:
        case [] | [None]:
            return whole
        case [(_, int(offset), int(part))] if 0 <= offset <= offset + part <= numel:
            return Storage(key, whole.dtype, part, offset)
    raise BrokenPickleError("has an impossible view of a storage")


def _tensor(args: tuple) -> StoredTensor | Unreadable:
    """_rebuild_tensor(storage, offset, size, stride), v2 with (requires_grad, hooks, metadata)."""
    match args:
        case (Storage() as stored, int(offset), size, stride, *more):
            if len(more) == 3 and type(more[2]) is Table and more[2].pairs:
                return Unreadable("a conjugate or negative view")
            return StoredTensor(stored, stored.dtype, offset, _sizes(size), _sizes(stride))
    raise BrokenPickleError("rebuilds a tensor from something else")


def _tensor_of_dtype(args: tuple) -> StoredTensor | Unreadable:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata)."""
    match args:
        case (Storage() as stored, int(offset), size, stride, _, _, Global("torch", dtype), *more) if dtype in DTYPES:
            if more and type(more[0]) is Table and more[0].pairs:
                return Unreadable("a conjugate or negative view")
            return StoredTensor(stored, DTYPES[dtype], offset, _sizes(size), _sizes(stride))
    raise BrokenPickleError("rebuilds a tensor from something else")


def _sizes(value: Value) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or len(value) > MAX_DIMENSIONS or any(type(n) is not int for n in value):
        raise BrokenPickleError("gives a tensor an impossible shape")
    return tuple(value)


def _parameter(args: tuple) -> StoredTensor | Unreadable:
    """_rebuild_parameter(data, requires_grad, hooks), with or without a state."""
    if not args or not isinstance(args[0], StoredTensor | Unreadable):
        raise BrokenPickleError("rebuilds a parameter from something else")
    return args[0]


def _of_type(args: tuple) -> StoredTensor | Unreadable:
    """_rebuild_from_type_v2(function, type, arguments, state)."""
    match args:
        case (Global() as function, Global() as kind, tuple(inner), _) if function.name in TENSORS:
            return TENSORS[function.name](inner) if kind.name in PLAIN_TENSORS else Unreadable(f"a {kind.name}")
    raise BrokenPickleError("rebuilds a tensor from something else")


def _unreadable(kind: str) -> Callable[[tuple], Unreadable]:
    return lambda args: Unreadable(kind)


def _table(args: tuple) -> Table:
    """dict(), OrderedDict(pairs), and defaultdict(factory), whose contents follow later."""
    match args:
        case (Table() as table,):
            return table
        case (list(pairs),):
            return Table(pairs)  # the same list, not a copy: copies of copies would fill the memory
    return Table()


def _sequence(args: tuple) -> Value:
    return args[0] if args and type(args[0]) in (tuple, list) else []


TENSORS: dict[str, Callable[[tuple], StoredTensor | Unreadable]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _unreadable("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unreadable("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unreadable("a nested tensor"),
    "torch._utils._rebuild_qtensor": _unreadable("a quantized tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("a meta tensor, without values"),
    "torch._utils._rebuild_wrapper_subclass": _unreadable("a tensor subclass"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _unreadable("a tensor of a special device"),
    "torch._utils._rebuild_device_tensor_from_numpy": _unreadable("a tensor of a special device"),
    "torch._utils._rebuild_xla_tensor": _unreadable("a tensor of a special device"),
}
"""What PyTorch rebuilds tensors with."""

MAKERS: dict[str, Callable[[tuple], Value]] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch.tensor._rebuild_from_type_v2": _of_type,
    "torch.tensor._rebuild_from_type": _of_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _sequence,
    "collections.OrderedDict": _table,
    "collections.defaultdict": _table,
    **{f"{module}.dict": _table for module in ("builtins", "__builtin__")},
    **{
        f"{module}.{name}": _sequence
        for module in ("builtins", "__builtin__")
        for name in ("list", "tuple", "set", "frozenset")
    },
}
"""What calls of known names are taken for, given their arguments."""
