"""Mutated folders of runs, latents, pipelines, arenas and the doctor, and what reads them.

Each input is a sound folder with one or a few of its files altered: as JSON, with values that no writer leaves, or as
bytes.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzzing import Target
from sound_runs import (
    CONFIG,
    arena,
    checkpoints,
    finding,
    finished_run,
    latents,
    new_trained,
    pipeline,
    run_folder,
    stream,
    study,
)

from vaeworks.arena.probe_run import read_result
from vaeworks.arena.study.autoencoders import read_arm
from vaeworks.arena.study.claims_page import write_claims
from vaeworks.arena.study.record import read_studies
from vaeworks.config import check_asked, differences
from vaeworks.data.square_images import open_pictures
from vaeworks.data.streamed_crops import Bookmarks
from vaeworks.data.trained_on import trained_on
from vaeworks.doctor.serialization import read_finding
from vaeworks.errors import VaeworksError
from vaeworks.features.nets import FEATURE_NETS
from vaeworks.files.atomic import read_json
from vaeworks.formats.foreign_code import check_index, check_pipeline_folder
from vaeworks.formats.sources import find_source
from vaeworks.latents import LatentSet
from vaeworks.latents.index import read_plan
from vaeworks.training.gan.supervisor import Supervisor
from vaeworks.training.monitor.alarms import Alarms
from vaeworks.training.monitor.card import card
from vaeworks.training.monitor.log_lines import keep_log, last_look, read_log
from vaeworks.training.monitor.page import RunPage, Status
from vaeworks.training.monitor.terminal import train_view
from vaeworks.training.run.checkpoint import METADATA_KEY, good_checkpoint, load_checkpoint, newest_checkpoint
from vaeworks.training.run.folder import check_folder, read_run
from vaeworks.training.run.init import initial_model

Alteration = Callable[[Path, random.Random], None]

NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    10**18,
    2**70,
    10**400,
    -(10**30),
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "evil:go",
    "os:getcwd",
    "hf:owner/name",
    "stream:hf:owner/name",
    "../../../etc/passwd",
    "/dev/zero",
    "/etc/passwd",
    "\x1b[31m",
    "\ud800",
    "procedural:1000000000000",
    "file:///etc/passwd",
    "wandb",
    "vgg16",
    [],
    {},
    [[]],
    [None],
    [1] * 300,
    {"a": 1},
    [["evil", "Go"]],
    ["evil", "Go"],
    ["os", "system"],
    {"__class__": "x"},
)
"""Values that no writer leaves."""


# ---------------------------------------------------------------- mutations


def places(value: Any) -> list[tuple[Any, ...]]:
    """Where values are in a JSON value of any depth."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        found.append(path)
        inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        waiting += [((*path, key), below) for key, below in inner if len(path) < 20]
    return found


def altered(value: Any, rng: random.Random) -> Any:
    """A JSON value in which one to three places are other than they were."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(places(value))
        if not path:
            if rng.random() < 0.1:
                value = copy.deepcopy(rng.choice(NASTY))
            continue
        holder = functools.reduce(lambda v, key: v[key], path[:-1], value)
        kind = rng.random()
        if kind < 0.15:
            del holder[path[-1]]
        elif kind < 0.2 and isinstance(holder, dict):
            holder[rng.choice(("path", "version", "x" * 100, "network", "auto_map"))] = copy.deepcopy(rng.choice(NASTY))
        elif kind < 0.25:
            holder[path[-1]] = functools.reduce(lambda v, _: [v], range(rng.choice((3, 50, 900))), 0)
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(NASTY))
    return value


def alter_json(path: Path, rng: random.Random) -> None:
    """A JSON file altered as a value, or as bytes."""
    if rng.random() < 0.2:
        alter_bytes(path, rng)
        return
    text = json.dumps(altered(json.loads(path.read_text()), rng))
    path.write_text("[" * 20_000 + "]" * 20_000 if rng.random() < 0.01 else text)


def alter_lines(path: Path, rng: random.Random) -> None:
    """A file of JSON lines, one of which is altered."""
    lines = path.read_text().splitlines()
    for _ in range(rng.choice((1, 2, 5))):
        number = rng.randrange(len(lines))
        try:
            lines[number] = json.dumps(altered(json.loads(lines[number]), rng))
        except ValueError:
            lines[number] = "{"
    path.write_text("\n".join(lines) + "\n")


def alter_bytes(path: Path, rng: random.Random) -> None:
    """Bytes that are other, missing or repeated."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 4, 16))):
        place = rng.randrange(max(1, len(content)))
        kind = rng.random()
        if kind < 0.5 and content:
            content[place] = rng.randrange(256)
        elif kind < 0.7:
            del content[place : place + rng.randrange(64)]
        elif kind < 0.9:
            content[place:place] = content[place : place + rng.randrange(64)]
        else:
            del content[place:]
    path.write_bytes(bytes(content))


def alter_metadata(path: Path, key: str, rng: random.Random) -> None:
    """A safetensors file with an altered JSON value in its metadata; its tensors stay."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"][key] = json.dumps(altered(json.loads(header["__metadata__"][key]), rng))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


# ---------------------------------------------------------------- targets


_FOLDERS = tempfile.TemporaryDirectory(prefix="vaeworks-sound-")
"""Sound folders, made once; those that are processes' own go with them."""


@functools.cache
def _sound(write: Callable[[Path], None]) -> Path:
    folder = Path(_FOLDERS.name) / write.__name__
    folder.mkdir()
    write(folder)
    return folder


def _altered_copy(sound: Path, alter: Mapping[str, Alteration], rng: random.Random, folder: Path) -> Path:
    """A copy of a sound folder, with one of some files altered. alter: by pattern."""
    made = folder / "input"
    shutil.copytree(sound, made)
    pattern = rng.choice(list(alter))
    alter[pattern](rng.choice(sorted(made.rglob(pattern))), rng)
    return made


def _made(sound: Callable[[Path], None], alter: Mapping[str, Alteration]) -> Callable[[random.Random, Path], Path]:
    return functools.partial(_altered_copy, _sound(sound), alter)


def _allowed(*uses: Callable[[Path], object]) -> Callable[[Path | str], None]:
    """All uses of a folder, each of which may refuse it; the first refusal is told."""

    def use(path: Path | str) -> None:
        refusals = []
        for one in uses:
            try:
                one(Path(path))
            except VaeworksError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    return use


def _resume(run: Path) -> None:
    record = read_run(run)
    check_folder(run, dataclasses.replace(record, config=CONFIG), resume=True)
    check_folder(run, record, resume=True)
    check_asked(record.config, FEATURE_NETS)


def _gated(run: Path) -> None:
    """What may be resumed names no code, no network and no tracker that another does not know."""
    config = read_run(run).config
    try:
        check_asked(config, FEATURE_NETS)
    except VaeworksError:
        return
    for name in (config.regularizers.alignment_network, config.adversarial.network):
        assert name is None or name in FEATURE_NETS
    assert not any(
        "hf:" in (value or "")[:10] for value in (config.finetune.path, config.finetune.teacher, config.data.val)
    )


def _builds(run: Path) -> None:
    """A network of an altered record: refused, or built. How much memory there is, is no question here."""
    config = read_run(run).config
    changed = differences(CONFIG.model, config.model)
    if not changed or any(type(value) is int and value > 64 for _, value in changed.values()):
        initial_model(config, blank=True)


def _log(run: Path) -> None:
    lines = read_log(run)
    Alarms(CONFIG, lines)
    view = train_view(CONFIG)
    for line in lines:
        view.take(line)
    view.line()
    last_look(run, 10**9)
    keep_log(run, 1500)


def _page(run: Path) -> None:
    RunPage(run, CONFIG).write(Status("stopped", 0.5))


def _bookmarks(path: Path) -> None:
    Bookmarks(path / "stream.jsonl", ["x"]).before(100)


def _continues(folder: Path) -> None:
    newest = newest_checkpoint(folder)
    good_checkpoint(folder, 150)
    if newest is not None:
        trained = new_trained()
        Supervisor(trained, load_checkpoint(newest, trained).balance)


def _latent_set(folder: Path) -> None:
    read_plan(folder).digest  # noqa: B018
    found = LatentSet(folder)
    found.statistics()
    for index in {0, len(found) // 2, max(0, len(found) - 1)}:
        if len(found):
            found[index], found.image(index), found.latents(index)


def _index(folder: Path) -> None:
    values = read_json(folder / "model_index.json")
    check_index(values, str(folder))
    check_pipeline_folder(folder, values)
    for part, entry in values.items():
        if not part.startswith("_") and isinstance(entry, list) and any(isinstance(word, str) for word in entry):
            assert entry[0] in ("diffusers", "transformers", "stable_diffusion")


def _study_page(folder: Path) -> None:
    write_claims(folder, read_studies(folder))


def _checkpoint_file(path: Path, rng: random.Random) -> None:
    alter_bytes(path, rng) if rng.random() < 0.4 else alter_metadata(path, METADATA_KEY, rng)


TARGETS: tuple[Target, ...] = (
    Target(
        "run.json", _made(run_folder, {"run.json": alter_json}), _allowed(_resume, _gated, _builds, find_source, _page)
    ),
    Target(
        "data.json", _made(run_folder, {"data.json": alter_json}), _allowed(lambda run: "a" in trained_on(run), _page)
    ),
    Target("log.jsonl", _made(run_folder, {"log.jsonl": alter_lines}), _allowed(_log, _page)),
    Target(
        "finished run",
        _made(finished_run, dict.fromkeys(("result.json", "run.json", "data.json"), alter_json)),
        _allowed(card, _page),
    ),
    Target("stream.jsonl", _made(stream, {"stream.jsonl": alter_lines}), _allowed(_bookmarks)),
    Target("checkpoints", _made(checkpoints, {"*.safetensors": _checkpoint_file}), _allowed(_continues)),
    Target(
        "latents",
        _made(
            latents,
            {"index.json": alter_json, "*shard*.json": alter_json, "*.safetensors": alter_bytes, "*.sft": alter_bytes},
        ),
        _allowed(_latent_set),
    ),
    Target("pipeline", _made(pipeline, {"model_index.json": alter_json, "config.json": alter_json}), _allowed(_index)),
    Target(
        "arena",
        _made(arena, {"*.json": alter_json, "*.npy": alter_bytes}),
        _allowed(lambda f: read_result(f / "trial"), read_arm, lambda f: open_pictures(f / "pictures")),
    ),
    Target("study", _made(study, {"study.json": alter_json}), _allowed(_study_page)),
    Target("finding", _made(finding, {"*.json": alter_json}), _allowed(lambda f: read_finding(f / "finding"))),
)
