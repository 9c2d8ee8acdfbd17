"""Six claims: planted distances give the verdict that they must, what is missing or doubtful gives none, and the page
holds it all."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vaeworks.arena.study.claims import CLAIMS, Claim, judge
from vaeworks.arena.study.claims_page import PAGE, command, page, plots, seconds, write_claims
from vaeworks.arena.study.record import Studies, StudyRecord, read_studies
from vaeworks.cli.main import main
from vaeworks.config import ArenaConfig, dumps
from vaeworks.errors import FormatError
from vaeworks.recipes.studies import BASELINE, STUDIES, StudyScale

WEAK, FREE, OLD, WITHOUT, MUCH, SMUGGLING = range(6)

CHECKED = {"again": 1.0, "scrambled": 3.0, "patches": 4.0, "pixels": 4.0}
"""Rows of every arena, and times the baseline's distance."""

JITTER = (1.0, 1.02)
"""From seed to seed."""


def record(
    name: str,
    *,
    real: dict[str, float] | None = None,
    recon: dict[str, float] | None = None,
    psnr: dict[str, float] | None = None,
    doctor: dict[str, dict[str, float]] | None = None,
    arms: list[str] | None = None,
    seeds: int = 2,
    vae_seeds: int = 2,
    jitter: tuple[float, ...] = JITTER,
    probes: tuple[str, ...] = ("xs", "s"),
    failures: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A study's record. real, recon: distances over the baseline's (10 and 5), of rows that differ; psnr: dB, by
    default 30."""
    names = [BASELINE, *(arms if arms is not None else [n for n in STUDIES[name].arms(StudyScale()) if n != BASELINE])]
    config = asdict(ArenaConfig(probes=probes, seeds=tuple(range(seeds))))

    def trials(row: str, probe: str) -> list[dict[str, Any]]:
        score = {
            key: base * (given or {}).get(row, CHECKED.get(row, 1.0))
            for key, base, given in (("fd_real", 10.0, real), ("fd_recon", 5.0, recon))
        }
        return [
            {
                "trial": {"space": f"{row}{s}", "probe": probe, "shift": "none", "seed": s},
                "seconds": 60.0,
                "looks": [{"images": 1, "score": {k: v * jitter[s % len(jitter)] for k, v in score.items()}}],
            }
            for s in range(seeds)
        ]

    rows = []
    for row in (*names, *CHECKED):
        by = {p: trials(row, p) for p in probes}
        last = {d: by[probes[-1]][0]["looks"][0]["score"][d] for d in ("fd_real", "fd_recon")}
        figures = {d: {p: {"value": v, "low": v * 0.9, "high": v * 1.1} for p in probes} for d, v in last.items()}
        rows.append(
            {
                "name": row,
                "check": row if row in CHECKED else None,
                "latents": [3, 32, 32] if row == "pixels" else [4, 8, 8],
                "floor": 3.0,
                "figures": figures,
                "trials": by,
                "recognized": dict.fromkeys(probes, 0.13),
            }
        )
    sound = {
        "scale.largest": 9.0,
        "smuggling.norm_outlier": 2.5,
        "smuggling.far_worst": 0.5,
        "smuggling.far_median": 0.3,
        "smuggling.nonlocal_worst": 0.05,
    }
    ranks = {"spectrum.high": 0.9, "noise.loss": -0.5, "scale.kurtosis": 0.3 if name == "kl" else -0.3}
    return {
        "study": name,
        "question": STUDIES[name].question,
        "scale": asdict(StudyScale()),
        "seconds": 1.0,
        "arms": {
            row: [
                {
                    "name": row,
                    "seed": s,
                    "path": f"arms/{row}/seed-{s}",
                    "psnr": (psnr or {}).get(row, 30.0) + 0.1 * s,
                    "bits": 7.0,
                    "std": 0.9,
                    "doctor": sound | (doctor or {}).get(row, {}),
                    "seconds": 600.0,
                }
                for s in range(vae_seeds)
            ]
            for row in names
        },
        "arena": {
            "config": config,
            "protocol": "p",
            "protocol_version": 1,
            "features": "a classifier",
            "conclusive": not failures,
            "data": {"source": "procedural:4096:32", "images": 4096, "size": 32, "classes": 8},
            "failures": list(failures),
            "rows": rows,
        },
        "correlations": [{"figure": k, "rank": v, "rank_real": v, "p": 0.1, "arms": 6} for k, v in ranks.items()],
    }


def studies(*records: dict[str, Any]) -> Studies:
    """As they are read from files."""
    return {r["study"]: StudyRecord(r["study"], json.loads(dumps(r))) for r in records}


def found(number: int, *records: dict[str, Any]) -> Claim:
    """One claim, judged."""
    return CLAIMS[number](studies(*records))


MORE = {"f4c8": 31.0, "f4c16": 32.0, "f4c32": 33.0}
DISTINCT = {"patchgan": 29.0, "modern-gan": 29.1, "r3gan": 29.2, "decoder-gan": 29.3}
STRONGER = ("kl-0.0001", "kl-0.001", "kl-0.01", "kl-0.1")

PLANTED: dict[str, tuple[int, list[dict[str, Any]], str]] = {
    "one KL weight is better": (WEAK, [record("kl", real={"kl-0.01": 0.7})], "supported"),
    "no KL weight is better": (WEAK, [record("kl", real={"kl-0.1": 2.0})], "not supported"),
    "no KL at all is better": (WEAK, [record("kl", real={"no-kl": 0.7})], "not supported"),
    "not all KL weights were run": (WEAK, [record("kl", arms=["kl-0.01"])], "undecided"),
    "one of them was, and is better": (WEAK, [record("kl", arms=["kl-0.01"], real={"kl-0.01": 0.7})], "supported"),
    "no stronger KL weight was run": (WEAK, [record("kl", arms=["no-kl"])], "not run"),
    "channels cost nothing": (FREE, [record("channels", psnr=MORE)], "supported"),
    "channels cost less than the factor": (
        FREE,
        [record("channels", psnr=MORE, real={"f4c32": 1.1}, jitter=(1.0, 1.001))],
        "supported",
    ),
    "channels bring nothing": (FREE, [record("channels")], "undecided"),
    "the most channels cost": (FREE, [record("channels", psnr=MORE, real={"f4c32": 1.8})], "not supported"),
    "channels are learned worse only": (FREE, [record("channels", psnr=MORE, recon={"f4c32": 1.8})], "undecided"),
    "fewer channels cost": (FREE, [record("channels", psnr=MORE, real={"f4c2": 1.8})], "supported"),
    "channels at another factor cost": (FREE, [record("channels", psnr=MORE, real={"f8c64": 1.8})], "supported"),
    "few channels were run": (FREE, [record("channels", psnr=MORE, arms=["f4c8"])], "undecided"),
    "a discriminator is better": (OLD, [record("discriminator", psnr=DISTINCT, real={"r3gan": 0.6})], "supported"),
    "all discriminators are alike": (OLD, [record("discriminator", psnr=DISTINCT)], "not supported"),
    "all beat none, as PatchGAN does": (
        OLD,
        [record("discriminator", psnr=DISTINCT, real={BASELINE: 3.0, "perceptual": 3.0})],
        "not supported",
    ),
    "only the stage differs": (
        OLD,
        [record("discriminator", psnr=DISTINCT, real={"decoder-gan": 0.6})],
        "not supported",
    ),
    "discriminators never acted": (OLD, [record("discriminator")], "undecided"),
    "PatchGAN was left out": (OLD, [record("discriminator", psnr=DISTINCT, arms=["r3gan"])], "not run"),
    "clamped-ae is better": (WITHOUT, [record("bottleneck", real={"clamped-ae": 0.6})], "supported"),
    "clamped-ae is as good": (WITHOUT, [record("bottleneck")], "not supported"),
    "clamped-ae is worse": (WITHOUT, [record("bottleneck", real={"clamped-ae": 2.0})], "not supported"),
    "another is better": (WITHOUT, [record("bottleneck", real={"tanh": 0.6})], "not supported"),
    "a KL weight is better still": (
        WITHOUT,
        [record("bottleneck", real={"clamped-ae": 0.6}), record("kl", real={"kl-0.01": 0.4})],
        "not supported",
    ),
    "clamped-ae was left out": (WITHOUT, [record("bottleneck", arms=["tanh"])], "not run"),
    "both extremes hurt": (
        MUCH,
        [
            record("kl", recon={"kl-0.1": 2.0}, real={"kl-0.1": 2.0}),
            record("channels", recon={"f4c32": 2.0}, real={"f4c32": 1.4}),
        ],
        "supported",
    ),
    "one does not": (MUCH, [record("kl"), record("channels", recon={"f4c32": 2.0})], "not supported"),
    "the autoencoder is to blame": (
        MUCH,
        [
            record("kl", recon={"kl-0.1": 0.5}, real={"kl-0.1": 2.0}),
            record("channels", recon={"f4c32": 2.0}, real={"f4c32": 2.0}),
        ],
        "undecided",
    ),
    "learned worse, and better in the end": (
        MUCH,
        [
            record("kl", recon={"kl-0.1": 2.0}, real={"kl-0.1": 2.0}),
            record("channels", recon={"f4c32": 2.0}, real={"f4c32": 0.5}),
        ],
        "undecided",
    ),
    "learned worse, and as good in the end": (
        MUCH,
        [record("kl", recon={"kl-0.1": 2.0}, real={"kl-0.1": 2.0}), record("channels", recon={"f4c32": 2.0})],
        "undecided",
    ),
    "the strongest was not run": (
        MUCH,
        [record("kl", arms=["kl-0.01"]), record("channels", arms=["f4c8"])],
        "undecided",
    ),
    "a middle one hurts": (
        MUCH,
        [record("kl", recon={"kl-0.01": 2.0}), record("channels", recon={"f4c8": 2.0})],
        "not supported",
    ),
    "nothing acts far": (SMUGGLING, [record("kl")], "not testable here"),
}


def test_generators_narrower_than_a_token_are_named() -> None:
    """Where a token has more numbers than a generator is wide, its verdict on channels says so; where it has as many,
    it does not."""
    given = record("channels", psnr=MORE, real={"f4c32": 1.8})
    assert "wide" not in found(FREE, given).why
    for row in given["arena"]["rows"]:
        row["latents"] = {"f4c16": [16, 8, 8], "f4c32": [32, 8, 8]}.get(row["name"], row["latents"])
    for number, others in ((FREE, []), (MUCH, [record("kl")])):
        why = found(number, given, *others).why
        assert "xs is 64 wide, and a token of f4c32 has 128 numbers:" in why
        assert "f4c16 has" not in why
        assert "s is 128 wide" not in why


@pytest.mark.parametrize("case", PLANTED)
def test_planted_distances(case: str) -> None:
    """Each rule says what was planted, and no other row than those the claim is about can change it."""
    number, records, standing = PLANTED[case]
    claim = found(number, *records)
    assert claim.standing == standing, claim.why


DECIDED = [case for case, (_, _, standing) in PLANTED.items() if standing in ("supported", "not supported")]


def blurred(values: dict[str, Any]) -> None:
    """Seeds that differ by a factor of 3."""
    for row in values["arena"]["rows"]:
        for by in row["trials"].values():
            by[1]["looks"][-1]["score"] = {k: 3 * v for k, v in by[1]["looks"][-1]["score"].items()}


def alone_in_one(values: dict[str, Any]) -> None:
    """The smaller generator sees no difference at all, and has noise."""
    for row in values["arena"]["rows"]:
        for seed, trial in enumerate(row["trials"]["xs"]):
            trial["looks"][-1]["score"] = dict.fromkeys(("fd_real", "fd_recon"), 10.0 * (1 + seed))


def failed(values: dict[str, Any]) -> None:
    values["arena"] |= {"conclusive": False, "failures": ["scrambled must come out worse and is tie"]}


def one_seed(values: dict[str, Any]) -> None:
    values["arena"]["config"]["seeds"] = [0]
    for row in values["arena"]["rows"]:
        row["trials"] = {p: by[:1] for p, by in row["trials"].items()}


def one_autoencoder(values: dict[str, Any]) -> None:
    values["arms"] = {name: arms[:1] for name, arms in values["arms"].items()}


def one_generator(values: dict[str, Any]) -> None:
    values["arena"]["config"]["probes"] = ["s"]


def diverged(values: dict[str, Any]) -> None:
    """One seed of every trained row has no distance."""
    for row in values["arena"]["rows"]:
        if row["name"] in values["arms"] and row["name"] != BASELINE:
            row["trials"]["s"][0]["looks"][-1]["score"] = {"fd_real": math.nan, "fd_recon": math.nan}


SPOILS: list[Callable[[dict[str, Any]], None]] = [
    blurred,
    alone_in_one,
    failed,
    one_seed,
    one_autoencoder,
    one_generator,
    diverged,
]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", [case for case in DECIDED if PLANTED[case][0] != SMUGGLING])
def test_doubt_decides_nothing(case: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    """What is decided with two seeds, autoencoders and generators and checks that hold, is undecided without any of
    them."""
    number, records, _ = PLANTED[case]
    records = copy.deepcopy(records)
    for values in records:
        spoil(values)
    claim = found(number, *records)
    assert claim.standing == "undecided"
    page(studies(*records))


def test_one_failed_study_of_two() -> None:
    """A claim that rests on two studies is undecided where the checks of either have failed."""
    for which in ("kl", "bottleneck"):
        records = [record("bottleneck", real={"clamped-ae": 0.3}), record("kl")]
        failed(next(r for r in records if r["study"] == which))
        assert found(WITHOUT, *records).standing == "undecided"


def test_unlike_studies_are_not_joined() -> None:
    """KL weights that were run on other images do not count against clamped-ae."""
    other = record("kl", real={"kl-0.01": 0.4})
    other["arena"]["data"]["images"] = 100
    claim = found(WITHOUT, record("bottleneck", real={"clamped-ae": 0.6}), other)
    assert claim.standing == "supported"
    assert "kl-0.01" not in claim.why


SPOT = {
    "smuggling.norm_outlier": 6.0,
    "smuggling.far_worst": 12.0,
    "smuggling.far_median": 0.5,
    "smuggling.nonlocal_worst": 0.4,
}


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, "supported"),
        ({"smuggling.norm_outlier": 3.0}, "undecided"),
        ({"smuggling.far_median": 10.0}, "not testable here"),
        ({"smuggling.far_worst": 1.5}, "not testable here"),
        ({"smuggling.nonlocal_worst": 0.05}, "not testable here"),
        ({"smuggling.norm_outlier": math.nan}, "not run"),
        ({"smuggling.far_worst": math.nan}, "undecided"),
    ],
)
def test_smuggling_needs_all_of_it(changes: dict[str, float], standing: str) -> None:
    """Large, far, a share of its own, and more than any cell: SD's kind of autoencoder, whatever the others do."""
    assert found(SMUGGLING, record("kl", doctor={BASELINE: SPOT | changes})).standing == standing
    assert found(SMUGGLING, record("kl", doctor={"kl-0.1": SPOT | changes})).standing == "not testable here"


def test_smuggling_by_one_seed_alone() -> None:
    """Two seeds that disagree decide nothing, nor does one."""
    values = record("kl", doctor={BASELINE: SPOT})
    values["arms"][BASELINE][1]["doctor"]["smuggling.far_worst"] = 0.1
    assert found(SMUGGLING, values).standing == "undecided"
    assert found(SMUGGLING, record("kl", vae_seeds=1)).standing == "undecided"


def test_missing_studies_are_not_run() -> None:
    """Each study alone gives its own claims and no other."""
    expected = {
        "kl": {WEAK},
        "channels": {FREE},
        "discriminator": {OLD},
        "bottleneck": {WITHOUT},
        "equivariance": set(),
    }
    for name, own in expected.items():
        standings = [claim.standing for claim in judge(studies(record(name, psnr=MORE | DISTINCT)))]
        assert {i for i in range(5) if standings[i] != "not run"} == own


class TestPage:
    """Markdown and plots."""

    def everything(self) -> Studies:
        """All studies; one failed, one with figures that are no numbers."""
        blind = record("channels", psnr=MORE, doctor={"f8c16": dict.fromkeys(SPOT, math.nan)})
        blind["arena"]["rows"][2]["figures"]["fd_real"]["s"] = {"value": 12.0, "low": math.nan, "high": math.nan}
        bad = record("equivariance", failures=("pixels must come out worse and is tie (x)",))
        return studies(
            record("kl", real={"kl-0.01": 0.7}),
            blind,
            record("bottleneck"),
            bad,
            record("discriminator", psnr=DISTINCT),
        )

    def test_everything_is_there(self, tmp_path: Path) -> None:
        """The verdicts first; then every claim with a table, every plot that is linked; no figure that is no number."""
        made = self.everything()
        text = write_claims(tmp_path, made).read_text(encoding="utf-8")
        claims = judge(made)
        top = text.index("## ")
        for number, claim in enumerate(claims, 1):
            assert text.index(f"| {number} | {claim.said} | **{claim.verdict}** |") < top
            section = text[text.index(f"## {number}. {claim.said}") :].split("\n## ")[0]
            assert "| --- | ---: |" in section, claim.said
            assert claim.tested in " ".join(section.split())
        assert not re.findall(r"\bnan\b|\binf\b|\bNone\b", text, re.IGNORECASE)
        plain = " ".join(text.split())
        assert "nothing here proves" in plain and "see the positive control" in plain
        assert (
            plain.count("Positive control passed: pixels come out worse than every autoencoder, by at least 4.00") > 5
        )
        assert "xs is 64 wide, and a token of pixels has 192 numbers" in plain.lower()
        assert "**supported at 256 steps**" in text
        assert "13 % and 13 % (by chance 12.5 %)" in text
        assert "xs 0.70, 0.6" in plain
        assert "Study equivariance concludes nothing: pixels must" in plain
        linked = re.findall(r"\]\((images/[^)]*)\)", text)
        assert len(linked) == len(set(linked)) == 10
        assert {f"images/{p.name}" for p in (tmp_path / "images").iterdir()} == set(linked)

    def test_a_positive_control_that_fails(self) -> None:
        """An autoencoder that is as bad as pixels is named with its interval: such an effect would have been missed."""
        text = " ".join(page(studies(record("kl", real={"kl-0.1": 4.0}))).split())
        assert "*kl, latents.* Positive control passed" in text
        assert "*kl, pictures.* Positive control failed: pixels do not come out worse than kl-0.1 (xs 1.00, 0.9" in text
        assert "This arena could not have seen an effect of that size" in text

    def test_tables_are_whole(self) -> None:
        """Every line of a table has as many cells as its head."""
        for block in re.findall(r"(?:^\|.*\n)+", page(self.everything()), re.MULTILINE):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1, block

    def test_plots_stand_alone(self) -> None:
        """Well-formed SVG of a size of its own, with colours for light and dark, and every colour that it names."""
        for text in plots(self.everything()).values():
            root = ElementTree.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert root.get("width")
            assert "prefers-color-scheme: dark" in text
            assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= set(re.findall(r"(--[\w-]+):", text))

    def test_correlations_that_agree(self) -> None:
        """Figures whose signs differ between studies are left out, as are studies whose checks have failed."""
        text = page(self.everything())
        assert "`spectrum.high`" in text
        assert "`scale.kurtosis`" not in text
        assert "Of 3 figures, 2 have the same sign in all 4 studies" in " ".join(text.split())

    def test_cost_is_counted_once(self) -> None:
        """Autoencoders and trials that two studies share."""
        kl, bottleneck = record("kl"), record("bottleneck")
        one, both = (seconds(list(studies(*r).values())) for r in ([kl], [kl, bottleneck]))
        assert one == 6 * 2 * 600 + 10 * 4 * 60
        assert both - one == 7 * 2 * 600 + 7 * 4 * 60

    def test_chance_grows_with_arms(self) -> None:
        """The page says how many comparisons could have decided."""
        assert found(WEAK, record("kl")).picked == len(STRONGER)
        assert "4 comparisons could have decided this" in page(studies(record("kl")))

    def test_commands_make_the_same_study(self) -> None:
        """Settings that are not the command's own are in it, those that are are not; quoted where needed."""
        values = record("kl", arms=["kl-0.1"], seeds=3, vae_seeds=3)
        values["arena"]["config"]["tokens"] = 64
        values["arena"]["data"]["source"] = "my photos"
        words = command(studies(values)["kl"])
        assert "--data 'my photos'" in words
        for part in (
            "--tokens 64",
            "--arms kl-0.1",
            "--vae-seeds 3",
            "--seeds 3",
            "--images 40000",
            f"--budget {ArenaConfig().images}",
        ):
            assert part in words
        assert "--samples" not in words
        assert "--probes" not in words


class TestCommand:
    """vaeworks arena report."""

    def test_end_to_end(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Records in, page and verdicts out; a second call writes the same."""
        for values in (record("kl", real={"kl-0.01": 0.7}), record("channels", psnr=MORE)):
            (tmp_path / "in" / values["study"]).mkdir(parents=True)
            (tmp_path / "in" / values["study"] / "study.json").write_text(dumps(values))
        words = ["arena", "report", str(tmp_path / "in"), "--out", str(tmp_path / "docs"), "--json"]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert [v["verdict"] for v in said.values()] == [
            "supported at 256 steps",
            "supported at 256 steps",
            "not run",
            "not run",
            "not supported at 256 steps",
            "not testable here",
        ]
        first = (tmp_path / "docs" / PAGE).read_bytes()
        assert main(words) == 0
        assert (tmp_path / "docs" / PAGE).read_bytes() == first

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "holds no finished study"),
            ("{", "is not JSON"),
            ("{}", "is not whole"),
            ("[]", "must hold a JSON object"),
        ],
    )
    def test_bad_folders_are_one_line(
        self, text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing there, or nothing whole; no page is written."""
        if text is not None:
            (tmp_path / "kl").mkdir()
            (tmp_path / "kl" / "study.json").write_text(text)
        assert main(["arena", "report", str(tmp_path), "--out", str(tmp_path / "docs")]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert error[0].startswith("vaeworks: ")
        assert said in error[0]
        assert not (tmp_path / "docs" / PAGE).exists()

    def test_records_that_lack_something(self) -> None:
        """A row of an autoencoder, a scale that is none."""
        for spoil in (
            lambda r: r["arena"]["rows"].pop(1),
            lambda r: r["scale"].update(size=33),
            lambda r: r.pop("arms"),
        ):
            values = record("kl")
            spoil(values)
            with pytest.raises(FormatError, match="run the study again"):
                studies(values)

    def test_only_what_is_there_is_read(self, tmp_path: Path) -> None:
        """Other folders beside the studies are no studies."""
        for name in ("kl", "arms"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "study.json").write_text(dumps(record("kl")))
        assert list(read_studies(tmp_path)) == ["kl"]
