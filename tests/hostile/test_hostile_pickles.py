"""Pickles that would run something, in every container: refused, named, and not run."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from crafted import (
    CONTAINERS,
    contained,
    items,
    name,
    number,
    program,
    stack_name,
    storage,
    table,
    tensor,
    text,
    torch_stream,
    torch_zip,
    written,
)

from vaeworks.errors import FormatError
from vaeworks.formats.archive import open_archive

NAMES = """
os.system posix.system nt.system os.popen os.execv os.remove os.fork sys.exit sys.setrecursionlimit subprocess.Popen
subprocess.run subprocess.check_output builtins.eval builtins.exec builtins.getattr builtins.setattr
builtins.__import__ builtins.open builtins.compile builtins.globals builtins.vars builtins.map builtins.type
builtins.print builtins.input builtins.breakpoint builtins.apply __builtin__.eval __builtin__.execfile
__builtin__.file __builtin__.getattr importlib.import_module importlib._bootstrap._load runpy.run_path
runpy.run_module pip.main pip._internal.main code.interact webbrowser.open ctypes.CDLL ctypes.cdll.LoadLibrary
shutil.rmtree pty.spawn timeit.timeit cProfile.run profile.run pdb.run bdb.Bdb asyncio.run socket.socket
urllib.request.urlopen http.server.test functools.partial functools.reduce operator.attrgetter operator.methodcaller
operator.itemgetter types.FunctionType types.CodeType collections.namedtuple _io.FileIO io.open io.open_code
pickle.loads pickle.load _pickle.loads cPickle.loads marshal.loads shelve.open dill.loads joblib.load
cloudpickle.loads torch.load torch.hub.load torch.hub._load_local torch.jit.load torch.ops.load_library
torch.storage._load_from_bytes torch.save torch.utils.cpp_extension.load_inline torch.utils.collect_env.run
torch.utils._config_module.ConfigModule.load_config torch.serialization.load torch._dynamo.guards.GuardBuilder.get
torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression torch.cuda.FloatTensor
torch._utils.classproperty torch._utils._get_device_attr torch._utils.ExceptionWrapper torch.from_file
torch.distributed.rpc.rpc_async torch.package.PackageImporter torch.nn.functional.relu torch.nn.Module numpy.load
numpy.loads numpy.save numpy.fromfile numpy.memmap numpy.testing.runstring numpy.testing._private.utils.runstring
numpy.f2py.crackfortran.myeval numpy.distutils.exec_command numpy.core.multiarray.fromfile numpy.core._internal._eval
collections.abc.Callable codecs.open _codecs.decode copyreg.__newobj__ copyreg.pickle copyreg.add_extension
pathlib.Path.write_text datetime.datetime.now argparse.ArgumentParser argparse.FileType typing.get_type_hints
typing._eval_type omegaconf_evil.run pytorch_lightningx.run lightningx.run torch.optimizer.run torchmetricsx.run
__main__.Model mymodule.Config models.VAE lib2to3.pgen2.grammar.Grammar logging.config.listen uuid._popen site.main
smtplib.SMTP requests.get idlelib.run.main
""".split()


def refusal(path: Path) -> str:
    """The error, which must be one line and all that happens."""
    with pytest.raises(FormatError) as caught:
        open_archive(path)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and len(message) < 500
    assert str(path) in message
    return message


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def payloads(canary: Path) -> dict[str, Reduced]:
    touch = f"touch {canary}"
    return {
        "system": Reduced(os.system, touch),
        "eval": Reduced(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Reduced(exec, f"open({str(canary)!r}, 'w')"),
        "open": Reduced(open, str(canary), "w"),
        "Popen": Reduced(subprocess.Popen, ["touch", str(canary)]),
        "__import__": Reduced(__import__, "antigravity"),
        "loads": Reduced(pickle.loads, pickle.dumps(Reduced(os.system, touch))),
        "write_text": Reduced(Path.write_text, canary, "x"),
    }


def test_the_canary_appears_where_pickles_are_unpickled(tmp_path: Path) -> None:
    """Else the other tests would show nothing."""
    canary = tmp_path / "elsewhere"
    for payload in ("system", "write_text"):
        pickle.loads(pickle.dumps(payloads(canary)[payload]))
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("payload", payloads(Path()))
def test_calls(tmp_path: Path, watched: list[str], payload: str, container: str) -> None:
    hidden = {"state_dict": {"a": [payloads(tmp_path / "canary")[payload]]}}
    for protocol in range(6):
        path = written(tmp_path, contained(pickle.dumps(hidden, protocol), container))
        watched.clear()
        message = refusal(path)
        assert watched == []
        assert "nothing was run" in message
        assert f".{payload}," in message or (
            payload == "write_text" and protocol < 4
        )  # where a method was a call of getattr


@pytest.mark.parametrize("make", [name, stack_name], ids=["GLOBAL", "STACK_GLOBAL"])
def test_names_are_refused_even_if_not_called(tmp_path: Path, watched: list[str], make: Callable) -> None:
    for refused in NAMES:
        path = written(tmp_path, torch_zip(program(table({"x": tensor(), "y": make(*refused.rsplit(".", 1))}))))
        watched.clear()
        assert f"a call of {refused}, which would run" in refusal(path)
        assert watched == []


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "path.join"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("torch", "serialization.load"),
        ("torch.nn.parameter", "Parameter.__class__"),
        ("builtins", "set.__class__.__mro__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("pytorch_lightning", "utilities.os.system"),
        ("pytorch_lightning.utilities", "os.system"),
        ("torch.optim.", "os"),
        ("lightning..os", "system"),
        ("", "eval"),
        ("builtins", ""),
        ("builtins ", "set"),
        ("builtins", "set "),
        ("builtins\0", "set"),
        ("collections\u200b", "OrderedDict"),
        ("ｂuiltins", "set"),
        ("torch.nn.modules.module", "os.system"),
        ("diffusers.utils", "import_module"),
    ],
)
def test_names_that_only_look_harmless(tmp_path: Path, module: str, attribute: str) -> None:
    assert "a call of " in refusal(written(tmp_path, program(stack_name(module, attribute) + b")R")))


def test_names_with_blanks_are_not_split_anew(tmp_path: Path) -> None:
    """pickletools writes "module name" in one string, in which a blank would move the border."""
    assert "a call of collections OrderedDict.x" in refusal(
        written(tmp_path, program(b"ccollections OrderedDict\nx\n"))
    )


SYSTEM = name("os", "system")
TOUCH = text("touch canary")

WAYS = {
    "REDUCE": SYSTEM + items(TOUCH) + b"R",
    "NEWOBJ": SYSTEM + items(TOUCH) + b"\x81",
    "NEWOBJ_EX": SYSTEM + items(TOUCH) + b"}\x92",
    "OBJ": b"(" + SYSTEM + TOUCH + b"o",
    "INST": b"(" + TOUCH + b"ios\nsystem\n",
    "BUILD": name("pytorch_lightning", "Trainer") + b")\x81" + table({"__setstate__": SYSTEM}) + b"b",
    "memo": text("os") + b"q\x01" + b"0" + text("system") + b"q\x02" + b"0" + b"h\x01h\x02\x93" + items(TOUCH) + b"R",
    "MEMOIZE": text("os") + b"\x94" + text("system") + b"\x94" + b"00" + b"h\x00h\x01\x93" + items(TOUCH) + b"R",
    "DUP": text("os") + b"2\x93",
    "name in bytes": b"U\x02osU\x06system\x93" + items(TOUCH) + b"R",
    "after the tensors": table({"x": tensor()}) + b"0" + SYSTEM + items(TOUCH) + b"R",
    "in a persistent id": items(text("storage"), SYSTEM + items(TOUCH) + b"R", text("0"), text("cpu"), number(4))
    + b"Q",
    "storage class": items(text("storage"), SYSTEM, text("0"), text("cpu"), number(4)) + b"Q",
    "as a dtype": name("torch._utils", "_rebuild_tensor_v3")
    + items(storage(), number(0), items(number(1)), items(number(1)), b"\x89", b"N", SYSTEM)
    + b"R",
    "as a type": name("torch._tensor", "_rebuild_from_type_v2") + items(SYSTEM, SYSTEM, items(TOUCH), b"N") + b"R",
    "as a factory": name("collections", "defaultdict") + items(SYSTEM) + b"R",
    "as a reconstructor": name("copyreg", "_reconstructor") + items(SYSTEM, SYSTEM, b"N") + b"R",
    "in a chain": name("builtins", "getattr")
    + items(name("builtins", "__import__") + items(text("os")) + b"R", text("system"))
    + b"R",
    "as a key": b"}" + SYSTEM + b"Ns",
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_call(tmp_path: Path, watched: list[str], way: str, container: str) -> None:
    body = WAYS[way]
    path = written(tmp_path, contained(program(body), container))
    watched.clear()
    message = refusal(path)
    expected = "os.os" if way == "DUP" else "builtins.getattr" if way == "in a chain" else "os.system"
    assert f"a call of {expected}," in message
    assert watched == []


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"P0\n", b"P\\q\n", b"\x97", b"N\x98"], ids=repr
)
def test_opcodes_that_pytorch_never_writes(tmp_path: Path, opcode: bytes, container: str) -> None:
    """The extension registry, persistent ids in text, buffers beside the file."""
    assert "uses what PyTorch never writes" in refusal(written(tmp_path, contained(program(opcode), container)))


@pytest.mark.parametrize(
    "body",
    [
        name("collections", "OrderedDict") + table({"__init__": b"N"}) + b"b",
        text("os.system") + b")R",
        number(3) + b")R",
        name("collections", "OrderedDict") + b")R)R",
        name("collections", "OrderedDict") + b"]R",
        name("torch", "FloatStorage") + b"(Nu",
        text("abc") + b"Na",
        b")Na",
        b"(o",
        name("torch._utils", "_rebuild_tensor_v2") + b")R",
        name("torch._utils", "_rebuild_tensor_v2") + items(b"N", b"N", b"N", b"N") + b"R",
        name("torch._utils", "_rebuild_tensor_v2") + items(storage(), text("0"), b")", b")") + b"R",
        name("torch._utils", "_rebuild_parameter") + items(b"N", b"N", b"N") + b"R",
        name("torch._tensor", "_rebuild_from_type_v2")
        + items(name("torch", "Tensor"), name("torch", "Tensor"), b")", b"N")
        + b"R",
        text("storage") + b"Q",
        items(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4)) + b"Q",
        items(text("storage"), text("torch.FloatStorage"), text("0"), text("cpu"), number(4)) + b"Q",
        items(text("storage"), name("torch", "FloatStorage"), number(0), text("cpu"), number(4)) + b"Q",
        storage(view=items(text("v"), number(2), number(9))),
        storage(view=items(text("v"), number(-2), number(3))),
        storage(view=items(text("v"), number(3), number(-1))),
        b"h\x07",
        b"g-1\n",
        b"p-1\n",
        b"Np18446744073709551616\n",
        b"t",
        b"0",
        b"(((",
        b"(N}u",
        b"}(Nu",
        b"}(NNNu",
        b"I1x\n",
        b"I" + b"9" * 5000 + b"\n",
        b"L" + b"9" * 5000 + b"L\n",
        b"Fabc\n",
        b"S'abc\n",
        b"S\n",
        b"V\\u12\n",
        b"X\x02\x00\x00\x00\xff\xfe",
        b"c\xff\xfe\nx\n",
        b"\x80\x09N",
        b"\xff",
    ],
    ids=repr,
)
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_nonsense(tmp_path: Path, body: bytes, container: str) -> None:
    assert "is torn or altered: its pickle" in refusal(written(tmp_path, contained(program(body), container)))


def test_wrong_escapes_bring_no_warnings(tmp_path: Path) -> None:
    assert "single" not in refusal(written(tmp_path, torch_zip(program(rb"S'\q\x0'" + b"\n"))))


def test_every_beginning_of_a_pickle(tmp_path: Path) -> None:
    whole = program(table({"x": tensor(), "y": text("abc")}))
    for end in range(len(whole)):
        refusal(written(tmp_path, contained(whole[:end], "zip" if end % 2 else "stream")))


@pytest.mark.parametrize(
    "named", ["torch.nn.modules.conv.Conv2d", "ldm.models.autoencoder.AutoencoderKL", "diffusers.models.vae.VAE"]
)
def test_pickled_models(tmp_path: Path, named: str) -> None:
    message = refusal(written(tmp_path, torch_zip(program(name(*named.rsplit(".", 1)) + b")\x81}b"))))
    assert f"a pickled model of class {named}" in message and "state_dict()" in message


def test_plain_pickles(tmp_path: Path) -> None:
    for value, said in (({"a": 1}, "a dict"), ([1], "a list"), (2, "a number"), ("x", "text"), (None, "nothing")):
        for protocol in range(2, 6):
            assert f"a plain pickle that holds {said}" in refusal(written(tmp_path, pickle.dumps(value, protocol)))


def test_a_second_pickle_behind_the_first_is_not_run(tmp_path: Path) -> None:
    harmless, other = program(b"N"), program(SYSTEM + items(text("touch canary")) + b"R")
    assert "a plain pickle that holds nothing" in refusal(written(tmp_path, harmless + other))
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    assert "os.system" in refusal(written(tmp_path, magic + other))
    assert "os.system" in refusal(written(tmp_path, magic + pickle.dumps(1001, 2) + other))
    assert "follow its last tensor" in refusal(written(tmp_path, torch_stream(program(table({"x": tensor()}))) + other))
