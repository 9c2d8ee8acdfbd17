"""Disks that are full, processes that are killed, and two writers at once: what was there stays, and nothing is half
there."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.config import DataConfig, TinyConfig
from vaeworks.data import batches, scan, training_crops
from vaeworks.errors import ConfigError, DataError, VaeworksError, shortage
from vaeworks.files import atomic as files
from vaeworks.files import scratch
from vaeworks.files.atomic import atomic, map_file, write_picture, write_text
from vaeworks.files.locks import LOCK, alone_in
from vaeworks.latents import LatentSet, Settings, encode_dataset
from vaeworks.latents import encode as encode_module
from vaeworks.latents import index as index_module
from vaeworks.models import Autoencoder


@pytest.fixture(scope="module")
def tiny() -> Autoencoder:
    return Autoencoder(TinyConfig()).eval()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(6):
        Image.new("RGB", (32, 32), (40 * n, 90, 10)).save(folder / f"{n}.png")
    return folder


def left(folder: Path) -> list[str]:
    """All that is in a folder, at any depth."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(code: str, *words: object) -> int:
    """Run Python code in a process of its own; its return code."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=False, capture_output=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


# Names that are taken meanwhile


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_came_meanwhile_is_replaced_only_by_force(tmp_path: Path, overwrite: bool) -> None:
    """At the last moment, too: between the check and the name."""
    path = tmp_path / "a.txt"

    def write() -> None:
        with atomic(path, overwrite) as temporary:
            temporary.write_text("mine")
            path.write_text("theirs")

    if overwrite:
        write()
    else:
        with pytest.raises(ConfigError, match="exists; choose another name"):
            write()
    assert path.read_text() == ("mine" if overwrite else "theirs")
    assert left(tmp_path) == ["a.txt"]


def test_a_folder_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(ConfigError, match="exists"), atomic(path) as temporary:  # noqa: PT012
        temporary.mkdir()
        (temporary / "x").write_text("mine")
        path.mkdir()
        (path / "x").write_text("theirs")
    assert (path / "x").read_text() == "theirs" and left(tmp_path) == ["a", "a/x"]


def test_without_links_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems such as FAT have none."""

    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_text(tmp_path / "a", "first", overwrite=False)
    with pytest.raises(ConfigError, match="exists"), atomic(tmp_path / "b") as temporary:  # noqa: PT012
        temporary.write_text("mine")
        (tmp_path / "b").write_text("theirs")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["first", "theirs"]
    assert left(tmp_path) == ["a", "b"]


def test_of_many_threads_one_writes(tmp_path: Path) -> None:
    """Each has a temporary name of its own."""
    ready, told = threading.Barrier(8), []

    def write(n: int) -> None:
        try:
            with atomic(tmp_path / "a") as temporary:
                temporary.write_text(str(n))
                ready.wait()
            told.append(n)
        except ConfigError:
            pass

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1 and (tmp_path / "a").read_text() == str(told[0])
    assert left(tmp_path) == ["a"]


@contextmanager
def meeting(monkeypatch: pytest.MonkeyPatch, theirs: Callable[[Path], None]) -> Iterator[None]:
    """Another process is quicker: whatever gets its name without force is there already at that moment."""
    publish = files._publish

    def slower(new: Path, path: Path, overwrite: bool) -> None:
        if not overwrite:
            theirs(path)
        publish(new, path, overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_publish", slower)
        yield


COMMANDS = {
    "convert": ["convert", "{model}", "{out}/a.safetensors", "--layout", "native"],
    "convert to a folder": ["convert", "{model}", "{out}/a", "--layout", "diffusers"],
    "encode": ["encode", "{model}", "{pictures}", "--out", "{out}", "--into", "files"],
    "reconstruct": ["reconstruct", "{model}", "{pictures}", "--out", "{out}"],
    "interpolate": ["interpolate", "{model}", "{pictures}/0.png", "{pictures}/1.png", "--out", "{out}", "--steps", "2"],
    "vary": ["vary", "{model}", "{pictures}/0.png", "--out", "{out}", "--count", "2"],
    "install": ["install", "{model}", "--into", "comfyui", "{app}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_replaces_what_came_meanwhile(
    name: str, tiny: Autoencoder, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    model, out, app = tmp_path / "taesd.safetensors", tmp_path / "out", tmp_path / "app"
    vw.save(tiny, model)
    (app / "models" / "checkpoints").mkdir(parents=True)
    theirs: list[Path] = []

    def another(path: Path) -> None:
        if path.suffix:
            path.write_text("theirs")
            theirs.append(path)
        else:
            path.mkdir()
            (path / "x").write_text("theirs")
            theirs.append(path / "x")

    words = [word.format(model=model, out=out, pictures=pictures, app=app) for word in COMMANDS[name]]
    with meeting(monkeypatch, another):
        assert main(words) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert theirs and all(path.read_text() == "theirs" for path in theirs)


# Processes that are killed


KILLED_WHILE_WRITING = """
import os, signal, sys
from vaeworks.files.atomic import atomic
with atomic(sys.argv[1], overwrite=True) as temporary:
    temporary.write_text("half") if sys.argv[2] == "file" else (temporary.mkdir(), (temporary / "x").write_text("half"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_call_removes_what_a_killed_one_left(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_text("old")
    write_text(tmp_path / "b", "before")
    assert in_child(KILLED_WHILE_WRITING, tmp_path / "a", kind) == -signal.SIGKILL
    assert left(tmp_path) != ["a", "b"] and (tmp_path / "a").read_text() == "old"
    write_text(tmp_path / "b", "after")
    assert left(tmp_path) == ["a", "b"] and (tmp_path / "a").read_text() == "old"


def test_the_living_are_not_swept(tmp_path: Path) -> None:
    """Neither a call of this process nor one of another."""
    waiting = """
import sys
from vaeworks.files.atomic import atomic
with atomic(sys.argv[1]) as temporary:
    temporary.write_text("theirs")
    print("ready", flush=True)
    sys.stdin.read()
"""
    with (
        subprocess.Popen(
            [sys.executable, "-c", waiting, str(tmp_path / "b")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
        atomic(tmp_path / "a") as temporary,
    ):
        assert other.stdout and other.stdout.readline() == "ready\n"
        temporary.write_text("mine")
        write_text(tmp_path / "c", "between")
        other.communicate("", timeout=60)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["mine", "theirs", "between"]
    assert left(tmp_path) == ["a", "b", "c"]


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can exchange two names, there is no moment without a folder of that name."""
    if not sys.platform.startswith("linux"):
        pytest.skip("of Linux")
    seen: list[bool] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: (seen.append(True), rename(self, to))[1])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("old")
    with atomic(tmp_path / "a", overwrite=True) as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("new")
    assert (tmp_path / "a" / "x").read_text() == "new" and left(tmp_path) == ["a", "a/x"] and not seen


def test_an_old_folder_that_stepped_aside_comes_back(tmp_path: Path) -> None:
    """Elsewhere there is one; a process that is killed in it loses nothing."""
    code = """
import os, signal, sys
from pathlib import Path
from vaeworks.formats import files
files._exchange = lambda a, b: False
rename = Path.rename
Path.rename = lambda self, to: (rename(self, to), os.kill(os.getpid(), signal.SIGKILL))
with files.atomic(sys.argv[1], overwrite=True) as temporary:
    temporary.mkdir()
    (temporary / "x").write_text("new")
"""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("old")
    assert in_child(code, tmp_path / "a") == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    write_text(tmp_path / "b", "another")
    assert left(tmp_path) == ["a", "a/x", "b"] and (tmp_path / "a" / "x").read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_an_old_folder_stays_where_the_new_one_cannot_come(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("old")
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda self, to: full() if self.suffix == ".tmp" else rename(self, to))
    else:
        monkeypatch.setattr(files, "_exchange", full)
    target = tmp_path / "a"
    with pytest.raises(VaeworksError, match="No space left"), atomic(target, overwrite=True) as new:  # noqa: PT012
        new.mkdir()
        (new / "x").write_text("new")
    assert left(tmp_path) == ["a", "a/x"] and (tmp_path / "a" / "x").read_text() == "old"


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the name before the call ends."""
    order: list[str] = []
    sync, link = os.fsync, os.link

    def synced(file: int) -> None:
        order.append("folder" if os.path.isdir(f"/dev/fd/{file}") else "file")
        sync(file)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", lambda *a, **k: (order.append("name"), link(*a, **k)))
    write_text(tmp_path / "a", "x", overwrite=False)
    assert order == ["file", "name", "folder"]


# Full disks, and names


@pytest.mark.parametrize("when", ["os.fsync", "os.link"])
def test_a_full_disk_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A file system that allots late (NFS, btrfs) tells of it only then."""
    monkeypatch.setattr(when, full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(VaeworksError, match="a could not be written: No space left on device"):
        write_text(tmp_path / "a", "x", overwrite=False)
    monkeypatch.undo()
    assert left(tmp_path) == []


def test_a_tiny_vae_on_a_full_disk(tiny: Autoencoder, tmp_path: Path) -> None:
    """For A1111 it is a file that PyTorch writes, whose own writer tells of a full disk in its own way."""
    vw.save(tiny, tmp_path / "taesd.safetensors")
    (tmp_path / "app" / "models" / "Stable-diffusion").mkdir(parents=True)
    before = left(tmp_path)
    code = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from vaeworks.cli import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["install", tmp_path / "taesd.safetensors", "--into", "webui", tmp_path / "app"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "could not be written: File too large" in done.stderr
    assert left(tmp_path) == before


def test_a_map_is_made_only_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else writing to it would end the process, at some later moment."""
    made = map_file(tmp_path / "a", (1000, 10), "float32")
    made[:] = 1
    assert os.stat(tmp_path / "a").st_blocks * 512 >= 40_000
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(VaeworksError, match=r"cannot take 0\.0 MiB: No space left on device; make room"):
        map_file(tmp_path / "b", (1000, 10), "float32")


def test_long_names(tmp_path: Path, tiny: Autoencoder) -> None:
    """Of all lengths that the system takes; a sentence for longer ones, before any work."""
    for length in (200, 241, 255):
        path = tmp_path / ("x" * (length - 12) + ".safetensors")
        vw.save(tiny, path)
        vw.save(tiny, path, overwrite=True)
    with pytest.raises(ConfigError, match="has 256 bytes, and file systems take 255; choose a shorter one"):
        vw.save(tiny, tmp_path / ("ä" * 122 + ".safetensors"))
    for name in ("", ".."):
        with pytest.raises(ConfigError, match="is not the name of a file"):
            write_text(f"{name or '.'}", "x")


def test_images_whose_results_would_have_too_long_names(tiny: Autoencoder, tmp_path: Path, capsys) -> None:
    vw.save(tiny, tmp_path / "m.safetensors")
    Image.new("RGB", (16, 16)).save(tmp_path / ("p" * 250 + ".png"))
    assert (
        main(
            [
                "encode",
                str(tmp_path / "m.safetensors"),
                str(tmp_path / ("p" * 250 + ".png")),
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 2
    )
    assert "has 262 bytes" in capsys.readouterr().err and not (tmp_path / "o").exists()


# Folders of latents


def encoded(tiny: Autoencoder, pictures: Path, out: Path, **options: Any) -> Any:
    settings = Settings(size=options.pop("size", 16), shard_size=options.pop("shard_size", 2))
    return encode_dataset(tiny, scan(str(pictures), decode=False), out, settings, workers=0, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_old_latents_stay_until_the_new_ones_are_whole(
    tiny: Autoencoder, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "latents"
    encoded(tiny, pictures, out)
    before = contents(out)

    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(VaeworksError, match=r"free, and .* are needed"):
        encoded(tiny, pictures, out, size=24, overwrite=True)
    assert contents(out) == before and left(out) == sorted(before)
    monkeypatch.undo()

    write, count = encode_module.write_shard, 0

    def filling(*args: Any) -> None:
        nonlocal count
        count += 1
        write(*args) if count < 2 else _fail()

    def _fail() -> None:
        raise VaeworksError("the disk is full")

    monkeypatch.setattr(encode_module, "write_shard", filling)
    with pytest.raises(VaeworksError, match="the disk is full; 1 of 2 shards are whole and stay"):
        encoded(tiny, pictures, out, size=24, shard_size=3, overwrite=True)
    assert contents(out) == before
    assert len(LatentSet(out)) == 6 and LatentSet(out)[0][0].shape[-1] == 2
    monkeypatch.undo()

    done = encoded(tiny, pictures, out, size=24, shard_size=3, overwrite=True)
    assert (done.images, done.kept, done.complete) == (3, 3, True)
    fresh = tmp_path / "fresh"
    encoded(tiny, pictures, fresh, size=24, shard_size=3)
    assert contents(out) == contents(fresh) and left(out) == left(fresh)


@pytest.mark.parametrize("steps", range(0, 9, 2))
def test_a_replacement_that_is_stopped_is_completed(
    tiny: Autoencoder, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Wherever it is stopped, nobody reads a mixture, and the same call does the rest without encoding anything."""
    out, fresh = tmp_path / "latents", tmp_path / "fresh"
    encoded(tiny, pictures, out)
    encoded(tiny, pictures, fresh, size=24, shard_size=3)
    replace, moved = Path.replace, 0

    def stopping(self: Path, target: Path) -> Path:
        nonlocal moved
        if self.parent.name == index_module.NEXT:
            moved += 1
            if moved > steps:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopping)
    try:
        encoded(tiny, pictures, out, size=24, shard_size=3, overwrite=True)
    except KeyboardInterrupt:
        with pytest.raises(DataError, match="not complete"):
            LatentSet(out)
    monkeypatch.undo()
    done = encoded(tiny, pictures, out, size=24, shard_size=3)
    assert (done.images, done.complete) == (0, True)
    assert contents(out) == contents(fresh) and left(out) == left(fresh)


# One at a time


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    """Until it ends, in whatever way."""
    code = """
import os, signal, sys
from pathlib import Path
from vaeworks.files.locks import alone_in
with alone_in(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "x").write_text("")
    print("ready", flush=True)
    sys.stdin.read()
"""
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "ready\n"
        with (
            pytest.raises(ConfigError, match=r"another process is at work in .*run; wait until it has ended"),
            alone_in(run),
        ):
            pass
        other.kill()
    assert (run / LOCK).exists()
    with alone_in(run):
        pass
    assert left(run) == ["x"]


def test_a_folder_that_stays_empty_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(DataError), alone_in(tmp_path / "a" / "b"):
        raise DataError("nothing to do")
    assert left(tmp_path) == []


def test_a_run_is_trained_by_one(pictures: Path, tmp_path: Path) -> None:
    config = vw.recipe("digits-vae")
    with alone_in(tmp_path / "run"), pytest.raises(ConfigError, match="another process is at work"):
        vw.train(config, pictures, tmp_path / "run", show=False)
    assert left(tmp_path) == sorted(["pictures", *(f"pictures/{n}.png" for n in range(6))])


def test_latents_are_encoded_by_one(tiny: Autoencoder, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    with alone_in(out, f"{LOCK}-0"), pytest.raises(ConfigError, match="another process is at work"):
        encoded(tiny, pictures, out)


def test_a_forked_process_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("of Unix")
    code = """
import os, sys, time
from pathlib import Path
from vaeworks.files.locks import alone_in
with alone_in(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
    os.kill(os.getpid(), 9) if len(sys.argv) > 2 else None
"""
    assert (
        in_child(code.replace("time.sleep(60)", "time.sleep(2); os._exit(0)"), tmp_path / "run", "kill")
        == -signal.SIGKILL
    )
    with alone_in(tmp_path / "run"):
        pass


# Memory


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out"),
        (MemoryError("Unable to allocate 3.00 GiB for an array"), r"memory ran out \(Unable to allocate 3.00 GiB"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory ran out",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "memory ran out"),
        (RuntimeError("unable to mmap 80 bytes from file <a>: Cannot allocate memory (12)"), "memory ran out"),
        (RuntimeError("unable to write to file </torch_1>: No space left on device (28)"), "/dev/shm; make room there"),
        (RuntimeError("can't start new thread"), "no more threads"),
    ],
)
def test_what_runs_out_is_told_in_a_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("vaeworks.formats.identify.identify", fails)
    assert main(["inspect", "x.safetensors"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("vaeworks: ")
    assert re.search(said, told)


def test_other_errors_are_no_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours stays one."""
    assert shortage(RuntimeError("shapes do not match")) is None and shortage(ValueError("out of memory")) is None

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("vaeworks.formats.identify.identify", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["inspect", "x.safetensors"])


def crops(folder: Path, workers: int, told: list[str]) -> torch.Tensor:
    found = training_crops(scan(str(folder)), DataConfig(size=16), 0)
    return torch.cat([pixels.clone() for pixels, _ in batches(found, 0, 12, 2, workers, say=told.append)])


def test_full_shared_memory_costs_nothing_but_time(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images then come through a pipe."""
    expected = crops(pictures, 0, [])

    def no_room(self: torch.Tensor) -> None:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    monkeypatch.setattr("vaeworks.data.loader.cores", lambda: 2)
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    told: list[str] = []
    assert torch.equal(crops(pictures, 2, told), expected) and told == []


def test_without_room_for_locks_one_process_prepares_images(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = crops(pictures, 0, [])
    monkeypatch.setattr("vaeworks.data.loader.cores", lambda: 2)
    monkeypatch.setattr("vaeworks.data.loader.ProcessPoolExecutor", full)
    told: list[str] = []
    assert torch.equal(crops(pictures, 2, told), expected)
    assert told == [
        "no process that prepares images could be started (No space left on device); this one does it, which is slower"
    ]


def test_scratch_is_no_link(tmp_path: Path) -> None:
    """Somebody else's folder is not written into through a link of that name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / scratch.SCRATCH).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VaeworksError, match="could not be written"):
        write_picture(tmp_path / "a.png", Image.new("RGB", (1, 1)))
    assert left(tmp_path / "elsewhere") == []


def test_shards_of_images_whose_names_are_no_text(tiny: Autoencoder, tmp_path: Path) -> None:
    """Names of files are bytes; the list of a shard holds them so that they are found again."""
    source = tmp_path / "pictures"
    source.mkdir()
    name = os.fsdecode(b"a\xff.png")
    try:
        Image.new("RGB", (32, 32), (40, 90, 10)).save(source / name)
    except OSError:
        pytest.skip("this file system takes text only")
    path = tmp_path / "tiny.safetensors"
    vw.save(tiny, path)
    call = [
        "encode",
        str(path),
        str(source),
        "--out",
        str(tmp_path / "latents"),
        "--into",
        "shards",
        "--size",
        "32",
        "--workers",
        "0",
    ]
    assert main(call) == 0
    listed = (tmp_path / "latents" / "latents_rank00_shard000.json").read_text(encoding="utf-8")
    assert json.loads(listed)["images"][0][1] == name
    assert main(call) == 0
