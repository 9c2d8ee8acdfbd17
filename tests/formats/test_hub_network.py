"""A hub that cannot be reached: one try, one line, and the cache is used."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.features.backbones import load_backbone
from vaeworks.features.weights import HEADS, find
from vaeworks.files.hub_network import one_try, unreachable
from vaeworks.formats.hub import fetch

REASON = "huggingface.co cannot be reached: no network today"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The connections that are tried; none comes about."""
    places: list[tuple[str, int]] = []

    def refused(place: tuple[str, int], *_: object, **__: object) -> None:
        places.append(place)
        raise OSError(113, "no network today")

    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("a library waits, and would try again"))
    return places


@pytest.mark.parametrize(
    "use",
    [
        lambda: vw.load("hf:owner/name"),
        lambda: vw.inspect("hf:owner/name/vae.safetensors"),
        lambda: vw.evaluate(vw.build("taesd"), "hf:owner/name"),
        lambda: load_backbone("hf:owner/name", None, 8),
    ],
    ids=["model", "file", "data", "network"],
)
def test_one_try_and_one_line(use: Callable[[], object], tries: list[tuple[str, int]]) -> None:
    """Models, data and networks of the hub: the reason is the connection's, and a path is the remedy."""
    with pytest.raises(vw.VaeworksError, match=REASON) as error:
        use()
    assert tries == [("huggingface.co", 443)]
    assert "is not in the hub's cache" in str(error.value) and str(error.value).endswith("instead")


def test_the_command_line_says_no_more(tries: list[tuple[str, int]], capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of the libraries' attempts is shown."""
    assert main(["inspect", "hf:owner/name"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and REASON in err


def test_what_is_in_the_cache_is_used(
    tries: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network as with one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    home = tmp_path / "models--owner--name"
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        (home / "snapshots" / "abc" / "vae").mkdir(parents=True, exist_ok=True)
        (home / "snapshots" / "abc" / "vae" / file).write_bytes(b"{}")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert fetch("hf:owner/name") == home / "snapshots" / "abc" / "vae"
    assert constants.HF_HUB_OFFLINE is False


def test_a_proxy_and_another_hub(tries: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that is tried is the libraries' own; with HF_HUB_OFFLINE none is."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example:8443")
    assert "hub.example cannot be reached: no network" in unreachable()
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "hub.example cannot be reached through the proxy proxy.example: no network" in unreachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with one_try() as reason:
        assert reason == ""
    assert tries == [("hub.example", 8443), ("proxy.example", 3128)]


def test_missing_weights_name_the_options(
    tries: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is given by an option, which the sentence names; the reason is a reason, not an object."""
    for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HOME", "VAEWORKS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(vw.FormatError, match=r"train: --loss.perceptual-path.*eval: --lpips") as error:
        find(next(iter(HEADS.values())))
    assert "could not be fetched: no network today" in str(error.value) and "<" not in str(error.value)


def test_a_published_name_is_no_file() -> None:
    """`load("sd1")` says how to build one."""
    with pytest.raises(vw.FormatError, match=r"`vaeworks.build\('sd1'\)` is that model with random weights"):
        vw.load("sd1")
