"""The doctor's frame: what is examined, what is kept, what is said, and what the command does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from html_pages import checked
from patients import files, linear, photos_patient
from PIL import Image

import vaeworks as vw
from vaeworks.cli.main import main
from vaeworks.config.plain import differences
from vaeworks.data import ImageFile, photos
from vaeworks.data.labels import find_labels, find_masks
from vaeworks.doctor import examination as examining
from vaeworks.doctor import examine
from vaeworks.doctor.examination import Examination, check_panels, doctor_cache, failing
from vaeworks.doctor.finding import VERDICTS, Curves, Figure, Finding, NotExamined, Picture, number
from vaeworks.doctor.image_sample import QUICK_IMAGES, DoctorProtocol, choose
from vaeworks.doctor.page import check_alike, comparison, write_comparison, write_report
from vaeworks.doctor.panels import TITLES, panel
from vaeworks.doctor.serialization import from_dict, read_finding, to_dict, write_finding
from vaeworks.doctor.subject import Subject, encode_subject
from vaeworks.errors import ConfigError, DataError
from vaeworks.intervals import Interval, bootstrap, intervals
from vaeworks.models.digest import model_digest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path / "cache"))


def finding(verdict: str = "watch", value: float = 0.5, **more: object) -> Finding:
    return Finding(verdict, f"it is {value}", {"share": Figure("a share", value, 0.4, 0.6)}, **more)


def examination(**findings: Finding) -> Examination:
    facts = {
        "name": "f8c4",
        "digest": "a" * 64,
        "parameters": 10,
        "dtype": "float32",
        "normalization": "scalar",
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "scaling_known": True,
    }
    return Examination("model", facts, DoctorProtocol("0" * 64, 4, 64), findings, dict.fromkeys(findings, 1.0))


# --- what is examined


def test_a_patient_is_what_the_model_makes_of_the_images() -> None:
    vae = linear()
    seen = encode_subject(vae, files()[:3], size=64)
    assert seen.pixels.shape == (3, 3, 64, 64) and seen.mean.shape == seen.logvar.shape == (3, 4, 8, 8)
    posterior = vae.encode(seen.images([1]))
    torch.testing.assert_close(seen.mean[1:2], posterior.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.logvar[1:2], posterior.logvar, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat(list(seen.parts(seen.mean, 2))), seen.mean)
    with pytest.raises(NotExamined, match="at least 10 images"):
        seen.need(10)


def test_latents_are_on_disk_and_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = photos_patient(count=2)
    assert {p.name for folder in tmp_path.glob(".vaeworks-*/*.tmp") for p in folder.iterdir()} == {
        "pixels",
        "whole-0",
        "whole-1",
        "mean",
        "logvar",
    }
    del seen
    assert not list(tmp_path.glob(".vaeworks-*"))
    with pytest.raises(ConfigError, match="multiple of 8"):
        photos_patient(size=60)
    (tmp_path / "gone.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        encode_subject(linear(), [ImageFile(tmp_path / "gone.png", "0" * 64, 8, 8)], size=64)
    assert not list(tmp_path.glob(".vaeworks-*"))


@pytest.mark.parametrize(
    ("count", "limit", "quick", "taken"),
    [
        (500, None, False, 500),
        (500, None, True, QUICK_IMAGES),
        (500, 10, True, 10),
        (3, 10, False, 3),
        (3, None, True, 3),
    ],
)
def test_images_are_chosen_evenly(count: int, limit: int | None, quick: bool, taken: int) -> None:
    chosen = choose(files()[:1] * count, limit, quick)
    assert len(chosen) == len(set(chosen)) == taken
    assert np.ptp(np.diff(chosen)) <= 1 if taken > 1 else True


def test_no_image_is_told() -> None:
    with pytest.raises(DataError, match="at least one"):
        choose([], None, False)
    with pytest.raises(DataError, match="at least one"):
        choose(files(), 0, False)


def test_alpha_becomes_white_and_gray_models_see_gray(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "a.png")
    image = files([tmp_path / "a.png"])
    seen = encode_subject(linear(), image, size=64)
    assert (seen.pixels == 255).all() and (seen.protocol.flattened, seen.protocol.channels) == (1, 3)
    gray = encode_subject(linear("small-f8c4", in_channels=1, out_channels=1), image, size=64)
    assert gray.pixels.shape == (1, 1, 64, 64)
    assert set(differences(seen.protocol, gray.protocol)) == {"channels"}  # so the two are not compared
    with pytest.raises(ConfigError, match="2 channels"):
        encode_subject(vw.build("small-f8c4", in_channels=2), image, size=64)


def test_a_models_digest_is_of_what_it_computes() -> None:
    vae = linear()
    before = model_digest(vae)
    assert before == model_digest(linear())
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] += 1e-3
    assert model_digest(vae) != before


# --- figures and intervals


def test_a_bootstraps_interval_covers_the_mean_as_often_as_it_says() -> None:
    """95 % of the intervals, within what 200 repetitions can tell."""
    random = np.random.default_rng(0)
    hits = sum(0.0 in bootstrap(random.normal(size=40), draws=200, seed=i) for i in range(200))
    assert 0.88 <= hits / 200 <= 0.99


def test_a_bootstrap_is_reproducible_and_takes_any_statistic() -> None:
    sample = np.random.default_rng(1).normal(size=(30, 2))
    assert bootstrap(sample, lambda s: s[:, 0].std()) == bootstrap(sample, lambda s: s[:, 0].std())
    values, low, high = intervals(sample)
    assert values.shape == (2,) and (low <= values).all() and (values <= high).all()
    np.testing.assert_allclose(values, sample.mean(0))
    one = bootstrap([3.0])
    assert one.value == 3 and math.isnan(one.low) and math.isnan(one.high)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (1e-5, "1.00e-5"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_as_people_read_them(value: float, text: str) -> None:
    assert number(value) == text


def test_a_figure_with_its_interval() -> None:
    assert Figure.of("noise", Interval(1.5, 1.25, 1.75), "dB").text() == "1.50 dB (1.25 to 1.75)"
    assert Figure("noise", 12.0, unit="%").text() == "12%"


def test_no_verdict_without_a_figure() -> None:
    with pytest.raises(AssertionError, match="without a figure"):
        Finding("ill", "it is so", {})
    assert Finding.absent(NotExamined("needs labels; give some")).verdict == "not examined"


# --- what is kept


def test_a_finding_survives_its_file(tmp_path: Path) -> None:
    picture = Picture("a map", Image.new("RGB", (4, 3), "red"), pixelated=True)
    found = finding(
        value=math.inf,
        pictures=(picture,),
        curves=(Curves("c", {"a": [(0.0, 1.0), (1.0, None)]}, "x", levels={"l": 2.0}),),
        tables={"t": {"layer": ["a"], "value": [1.0]}},
        images=3,
    )
    write_finding(tmp_path / "f", found, 1.5)
    kept = read_finding(tmp_path / "f")
    assert kept is not None
    again, seconds = kept
    assert (to_dict(again), seconds) == (to_dict(found), 1.5)
    assert again.pictures[0].image.getpixel((0, 0)) == (255, 0, 0) and again.pictures[0].pixelated
    assert from_dict(to_dict(found)).curves == found.curves
    (tmp_path / "f" / "0.png").write_bytes(b"torn")
    assert read_finding(tmp_path / "f") is None


def test_findings_are_kept_by_model_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is computed; another model, size, seed or image is another examination; and --no-cache
    keeps nothing."""
    calls: list[str] = []

    def fake(name: str):
        def examine(patient: Subject) -> Finding:
            calls.append(name)
            return finding(images=patient.count)

        return examine

    monkeypatch.setattr(examining, "panel", fake)
    vae, options = linear(), {"size": 64, "quick": True}
    first = examine(vae, files()[:3], panels=["noise", "scale"], **options)
    again = examine(vae, files()[:3], panels=["scale", "noise", "fog"], **options)
    assert calls == ["scale", "noise", "fog"]
    assert to_dict(again.findings["noise"]) == to_dict(first.findings["noise"]) and again.findings["scale"].images == 3
    for model, images, other in (
        (linear("small-f8c4", norm_eps=1e-5), 3, {}),
        (vae, 2, {}),
        (vae, 3, {"seed": 1}),
        (vae, 3, {"quick": False}),
        (vae, 3, {"size": 72}),
        (vae, 3, {"labels": ["a", "b", "c"]}),
        (vae, 3, {"known": False}),
        (vae, 3, {"reference": linear()}),
    ):
        calls.clear()
        examine(model, files()[:images], panels=["scale"], **{**options, **other})
        assert calls == ["scale"], other
    calls.clear()
    examine(vae, files()[:3], panels=["scale"], keep=False, **options)
    assert calls == ["scale"]
    for path in doctor_cache().rglob("finding.json"):
        path.write_text("{")
    calls.clear()
    examine(vae, files()[:3], panels=["scale"], **options)
    assert calls == ["scale"]  # torn ones are made again, and whole
    assert examine(vae, files()[:3], panels=["scale"], **options).findings["scale"].verdict == "watch"
    assert calls == ["scale"]


def test_a_panel_that_cannot_measure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(patient: Subject) -> Finding:
        raise NotExamined("needs 100 images, not 2; give more")

    monkeypatch.setattr(examining, "panel", lambda name: refuses if name == "scale" else lambda p: finding("ill"))
    found = examine(linear(), files()[:2], panels=["scale", "noise"], size=64, keep=False)
    assert list(found.findings) == ["noise", "scale"]  # worst first
    assert found.findings["scale"].sentence == "needs 100 images, not 2; give more"
    assert found.counts == {"ill": 1, "watch": 0, "healthy": 0, "not examined": 1}


# --- what is judged


def test_rules_of_fail_on() -> None:
    seen = examination(
        fog=finding("ill"),
        noise=finding("watch"),
        scale=finding("healthy"),
        semantics=Finding.absent(NotExamined("no")),
    )
    assert [s.split()[0] for s in failing(seen, ["ill"])] == ["fog"]
    assert [s.split()[0] for s in failing(seen, ["watch"])] == ["fog", "noise"]
    assert failing(seen, ["noise", "scale:watch", "semantics:watch"]) == []
    assert failing(seen, ["noise:watch"]) == ["noise is watch: it is 0.5"]
    for wrong in ("bad", "noise:healthy", "ill:noise"):
        with pytest.raises(ConfigError, match="is no rule"):
            failing(seen, [wrong])
    with pytest.raises(ConfigError, match="not asked for"):
        failing(seen, ["tiling"])


def test_panels_are_known() -> None:
    assert check_panels(None) == list(TITLES) and check_panels(["noise", "fog"]) == ["fog", "noise"]
    for wrong in (["nose"], []):
        with pytest.raises(ConfigError, match="choose from fidelity, fog"):
            check_panels(wrong)
    assert all(callable(panel(name)) for name in TITLES)


# --- labels and masks


def labelled(tmp_path: Path, names: list[str]) -> list[ImageFile]:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return files([tmp_path / name for name in names])


def test_labels_come_from_folders_names_or_a_table(tmp_path: Path) -> None:
    images = labelled(tmp_path, ["cat/1.png", "cat/2.png", "dog/a_1.png", "dog/a_2.png"])
    assert find_labels(images) == find_labels(images, "folders") == ("cat", "cat", "dog", "dog")
    assert find_labels(images[:2]) is None and find_labels(images, "none") is None
    assert find_labels(images, "names") == ("1", "2", "a", "a")
    (tmp_path / "t.csv").write_text("file,label\n1.png,x\n2,y\na_1.png,x\na_2.png,y\n")
    assert find_labels(images, str(tmp_path / "t.csv")) == ("x", "y", "x", "y")
    (tmp_path / "t.csv").write_text("1.png,x\n")
    with pytest.raises(DataError, match=r"no row for 2\.png"):
        find_labels(images, str(tmp_path / "t.csv"))
    with pytest.raises(DataError, match="give folders, names, none or a CSV"):
        find_labels(images, "folder")


def test_masks_go_by_name(tmp_path: Path) -> None:
    images = labelled(tmp_path, ["a.png", "b.png"])
    masks = tmp_path / "masks"
    masks.mkdir()
    with pytest.raises(DataError, match="no image has a mask"):
        find_masks(images, masks)
    with pytest.raises(DataError, match="is no folder"):
        find_masks(images, tmp_path / "none")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(mask).save(masks / "b_mask.png")
    found = find_masks(images, masks)
    assert found == (None, masks / "b_mask.png") and find_masks(images, None) is None
    again = labelled(tmp_path, ["x/b.png", "y/b.png"])
    for folder in ("masks/x", "masks/y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(mask).save(tmp_path / folder / "b.png")
    assert find_masks(again, masks) == (masks / "x" / "b.png", masks / "y" / "b.png")
    with pytest.raises(DataError, match="3 masks"):  # none of them is in a folder that is called as the image's
        find_masks(images, masks)
    seen = encode_subject(linear(), images, size=64, masks=found)
    assert seen.masks is not None and not seen.masks[0].any()
    assert seen.masks[1, :, 32:].all() and not seen.masks[1, :, :32].any()


# --- what is shown


SCHEMA = {"schema", "vaeworks", "model", "protocol", "verdicts", "findings", "seconds"}
FINDING_SCHEMA = {
    "title",
    "verdict",
    "sentence",
    "figures",
    "meaning",
    "remedy",
    "dispute",
    "uncertainty",
    "curves",
    "tables",
    "images",
    "seconds",
}


def test_report_and_record(tmp_path: Path) -> None:
    """One page with everything inside it, and the same figures as JSON with keys that stay."""
    seen = examination(
        fog=finding("ill", math.nan, pictures=(Picture("a picture", Image.new("RGB", (8, 8))),), remedy="Mend <it>."),
        noise=finding(
            "watch",
            curves=(Curves("a curve", {"line": [(0.0, 1.0), (1.0, 2.0)]}, "sigma"),),
            tables={"t": {"n": [1.0]}},
        ),
        semantics=Finding.absent(NotExamined("needs labels")),
    )
    write_report(tmp_path, seen)
    record = json.loads((tmp_path / "report.json").read_text())
    assert set(record) == SCHEMA and record["schema"] == 1
    assert all(set(f) == FINDING_SCHEMA for f in record["findings"].values()) and list(record["findings"]) == [
        "fog",
        "noise",
        "semantics",
    ]
    assert record["findings"]["fog"]["figures"]["share"] == {
        "label": "a share",
        "value": None,
        "low": 0.4,
        "high": 0.6,
        "unit": "",
        "limit": "",
    }
    page = (tmp_path / "report.html").read_text()
    assert page.index('id="fog"') < page.index('id="noise"') < page.index('id="semantics"')
    assert (
        "data:image/png;base64" in page
        and "<polyline" in page
        and "Mend &lt;it&gt;." in page
        and "Needs labels" in page
    )
    assert "http://" not in page and "https://" not in page and 'src="/' not in page


def test_models_side_by_side(tmp_path: Path) -> None:
    """Every figure of both; and examinations that are not alike are refused, naming what differs."""
    a, b = examination(fog=finding("ill"), noise=finding()), examination(fog=finding("healthy", 0.25))
    write_comparison(tmp_path, [a, b], ["one", "two"])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("")
    page = checked(tmp_path / "compare.html")
    assert {"one/report.html", "two/report.html", "two/report.html#fog"} <= {v["href"] for v in page.all("a")}
    assert "0.250" in page.said and "0.4" in page.said
    assert "one ill watch two healthy Figures" in page.said  # the matrix comes first; there are no pictures
    assert set(json.loads((tmp_path / "compare.json").read_text())["models"]) == {"one", "two"}
    assert [p["name"] for p in comparison([a, b])] == ["fog", "noise"]
    other = Examination("b", b.facts, DoctorProtocol("1" * 64, 4, 128), b.findings, {})
    with pytest.raises(ConfigError, match=r"images \(00000000 and 11111111\), size \(64 and 128\) differ"):
        check_alike([a, other])


def test_pictures_of_all_models_stand_side_by_side(tmp_path: Path) -> None:
    """The first of each panel, named by its model; that of a panel that shows what one sees is open."""
    seen = []
    for name, colour in (("one", "red"), ("two", "blue")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("")
        shown = (Picture(f"all {colour}", Image.new("RGB", (8, 8), colour)),)
        seen.append(examination(fog=finding(pictures=shown), noise=finding(pictures=shown)))
    write_comparison(tmp_path, seen, ["one", "two"])
    page = checked(tmp_path / "compare.html")
    assert [picture.getpixel((0, 0)) for picture in page.pictures()] == [(255, 0, 0), (0, 0, 255)] * 2
    assert [values["alt"] for values in page.all("img")] == ["one: all red", "two: all blue"] * 2
    assert page.text.index("<img") < page.text.index("<details"), "fog is open, noise is folded"


@pytest.mark.parametrize(
    ("ends", "limit", "standings"),
    [
        ([(0.1, 0.2), (0.3, 0.4)], "ill above 0.5", ["best", "worse"]),
        ([(0.1, 0.2), (0.3, 0.4)], "watch below 0.5", ["worse", "best"]),
        ([(0.1, 0.2), (0.3, 0.4), (0.15, 0.25)], "0 ideal; ill above 1", ["level", "worse", "level"]),
        ([(0.1, 0.3), (0.2, 0.4)], "ill above 0.5", ["level", "level"]),
        ([(0.1, 0.2), (0.3, 0.4)], "ceiling of white noise 0.48", ["", ""]),
        ([(None, None), (0.3, 0.4)], "ill above 0.5", ["", ""]),
        ([None, (0.1, 0.2), (0.3, 0.4)], "ill above 0.5", ["", "best", "worse"]),
    ],
)
def test_marks_stand_where_intervals_exclude_each_other(ends: list, limit: str, standings: list[str]) -> None:
    """And where the figure says which side is better; a model without the panel has none."""
    seen = []
    for pair in ends:
        figure = None if pair is None else Figure("it", 0.5 if pair[0] is None else sum(pair) / 2, *pair, "", limit)
        seen.append(examination(noise=finding()) if figure is None else examination(fog=finding()))
        if figure is not None:
            seen[-1].findings["fog"].figures["share"] = figure
    row = comparison(seen)[0]["figures"][0]
    assert [cell["standing"] if cell else "" for cell in row["cells"]] == standings


# --- the command


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "vae.safetensors"
    vw.save(linear(), path, layout="native")
    return str(path)


def test_the_command_examines_and_judges(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for source in photos()[:3]:
        with Image.open(source) as image:
            image.convert("RGB").resize((64, 64)).save(data / f"{source.stem}.png")
    words = [
        "doctor",
        model,
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--panels",
        "precision,spectrum",
        "--quick",
        "--size",
        "64",
    ]
    assert main([*words, "--json", "--fail-on", "precision"]) == 0
    out, said = capsys.readouterr()
    assert set(json.loads(out)) == SCHEMA and "Half precision" in said
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(out)
    assert (tmp_path / "out" / "report.html").exists()
    assert main(words) == 2 and "exists; choose another --out" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--fail-on", "tiling"]) == 2 and "add it to --panels" in capsys.readouterr().err
    assert main([*words[:-2], "--size", "63", "--overwrite"]) == 2 and "multiple of 8" in capsys.readouterr().err
    (tmp_path / "out2").mkdir()
    broken = linear()
    with torch.no_grad():
        broken.decoder.conv_out.weight.mul_(1e5)
    vw.save(broken, tmp_path / "broken.safetensors", layout="native")
    second = [
        "doctor",
        model,
        str(tmp_path / "broken.safetensors"),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out2"),
    ]
    code = main([*second, "--panels", "precision", "--size", "64", "--json", "--fail-on", "ill"])
    out, said = capsys.readouterr()
    assert code == 1 and "broken.safetensors: precision is ill" in said
    assert [m["model"]["path"] for m in json.loads(out)["models"]] == [model, str(tmp_path / "broken.safetensors")]
    assert (tmp_path / "out2" / "compare.html").exists() and (tmp_path / "out2" / "broken" / "report.html").exists()


def test_bad_input_is_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "o")]
    for words, expected in (
        ([model, "--data", str(tmp_path / "none"), *out], "does not exist"),
        ([str(tmp_path / "no.safetensors"), "--data", "photos", *out], "does not exist"),
        ([model, "--data", "photos", "--panels", "nose", *out], "panel 'nose' is not known"),
        ([model, "--data", "photos", "--labels", "names.txt", *out], "give folders, names, none or a CSV"),
        ([model, "--data", "photos", "--images", "0", *out], "at least 1"),
        (["--data", "photos", *out], "no MODEL"),
    ):
        assert main(["doctor", *words]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("vaeworks: ") and expected in said
    assert not (tmp_path / "o").exists()


def test_a_reference_of_other_latents_is_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vw.save(linear("small-f8c16"), tmp_path / "c16.safetensors", layout="native")
    words = ["doctor", model, "--data", "photos", "--out", str(tmp_path / "o"), "--panels", "fog", "--images", "2"]
    assert main([*words, "--reference", str(tmp_path / "c16.safetensors")]) == 2
    assert "the reference's latents are f8c16, this VAE's f8c4" in capsys.readouterr().err


def test_every_verdict_has_a_colour() -> None:
    from vaeworks.cli.doctor import STYLES

    assert tuple(STYLES) == VERDICTS
