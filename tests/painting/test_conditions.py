"""What a denoiser is conditioned on: in training exactly what the stock pipeline passes when it paints."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from latent_spaces import random_vae
from torch import Tensor

import vaeworks as vw
from vaeworks.config import DenoiserConfig
from vaeworks.images import from_model_range
from vaeworks.painting.conditions import (
    T5_TOKENS,
    OneForAll,
    compact,
    compact_,
    denoiser_of,
    encoded,
    expand_,
    wording_of,
)
from vaeworks.painting.sheet import paint_prompts
from vaeworks.pipelines.blank import blank_pipeline, silent_t5, trained_tokenizer
from vaeworks.pipelines.stable_diffusion import load_pipeline
from vaeworks.random_streams import PAINT_SHEET, random_seed

pytestmark = pytest.mark.filterwarnings(  # Euler schedulers call np.array on tensors
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CPU = torch.device("cpu")
SIZE = 32
"""Side of pictures here, half of what tiny pipelines paint by themselves."""


def tiny(kind: str) -> Any:
    pipe = load_pipeline(kind.removesuffix(" without t5"), random_vae(4), "cpu", torch.float32)
    if kind.endswith(" without t5"):
        pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Spy:
    """Keeps what a module was called with and what it returned."""

    def __init__(self, module: torch.nn.Module):
        self.calls: list[tuple[dict[str, Any], Tensor]] = []
        self._handle = module.register_forward_hook(self._take, with_kwargs=True)

    def _take(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        names = ("sample", "timestep", "encoder_hidden_states")
        self.calls.append((dict(zip(names, args, strict=False)) | kwargs, result[0]))

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


@pytest.mark.parametrize("kind", ["tiny", "tiny-sdxl", "tiny-sd3", "tiny-sd3 without t5", "tiny-flux"])
def test_predictions_are_those_of_the_stock_pipelines_own_call(kind: str) -> None:
    """In the first step of a sampling of another size than the pipeline's own, for two prompts of unlike length."""
    pipe, prompts = tiny(kind), ["a red circle", "a very small green cross on a blue ground"]
    longest = {"max_sequence_length": T5_TOKENS} if kind in ("tiny-sd3", "tiny-flux") else {}
    with Spy(denoiser_of(pipe)) as spy:
        pipe(
            prompt=prompts,
            num_inference_steps=1,
            guidance_scale=1.0,
            height=SIZE,
            width=SIZE,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
            **longest,
        )
        (given, theirs), *_ = spy.calls
        x = given.get("sample", given.get("hidden_states"))
        if kind == "tiny-flux":
            x, theirs = (pipe._unpack_latents(part, SIZE, SIZE, pipe.vae_scale_factor) for part in (x, theirs))
            steps = 1000 * given["timestep"]
        else:
            steps = given["timestep"].expand(2)
        conditions = encoded(pipe, prompts, CPU, SIZE)
        with torch.no_grad():
            compact_(pipe)
            ours = wording_of(pipe).predict(denoiser_of(pipe), x, steps.float(), conditions)
        (passed, _) = spy.calls[-1]
    assert (ours - theirs).abs().max() < 1e-5
    flat, expected = _tensors(passed), _tensors(given)
    if "without" in kind:
        (length,) = {value.shape[1] - 255 for name, value in expected.items() if name == "encoder_hidden_states"}
        expected["encoder_hidden_states"] = expected["encoder_hidden_states"][:, :length]
    assert flat.keys() == expected.keys() - {"sample", "hidden_states", "timestep"}
    for name, value in flat.items():
        assert value.shape == expected[name].shape, name
        torch.testing.assert_close(value.float(), expected[name].float(), rtol=0, atol=1e-6, msg=name)


def _tensors(call: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of a call by name, but for the latents and the time."""
    found: dict[str, Tensor] = {}
    for name, value in call.items():
        if isinstance(value, dict):
            found |= _tensors(value)
        elif isinstance(value, Tensor) and name not in ("sample", "hidden_states", "timestep"):
            found[name] = value
    return found


def test_other_words_and_another_size_are_other_predictions() -> None:
    """What the comparison above would miss if a denoiser looked at neither."""
    pipe = tiny("tiny-sdxl")
    x, steps = drawn(1, 4, 4, 4), torch.tensor([500.0])
    found = []
    for prompt, side in (("a red circle", 32), ("a blue cross", 32), ("a red circle", 64)):
        with torch.no_grad():
            found.append(wording_of(pipe).predict(pipe.unet, x, steps, encoded(pipe, [prompt], CPU, side)))
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert (found[0] - found[2]).abs().max() > 1e-4


def test_each_caption_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny("tiny")
    asked: list[list[str]] = []
    encode = type(pipe).encode_prompt

    def counted(self: Any, prompt: list[str], *args: Any, **options: Any) -> Any:
        asked.append(list(prompt))
        return encode(self, prompt, *args, **options)

    monkeypatch.setattr(type(pipe), "encode_prompt", counted)
    words = encoded(pipe, ["b", "a", "b", ""], CPU, SIZE)["encoder_hidden_states"]
    assert asked == [["b", "a", ""]]
    assert torch.equal(words[0], words[2]) and not torch.equal(words[0], words[1])


# One token for all


TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd3": {},
    "normalized queries and keys": {"qk_norm": "rms_norm"},
    "sd3.5 medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0,)},
}


def sd3(*, t5: bool, **options: Any) -> Any:
    """A pipeline whose transformer has random weights in all places, in double precision."""
    pipe = tiny("tiny-sd3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
            num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=64,
            **options,
        )  # fmt: skip
    parts = silent_t5(64) if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe.register_modules(transformer=transformer.double().requires_grad_(False).eval(), **parts)
    return pipe


@pytest.mark.parametrize("t5", [False, True], ids=["no T5", "silent T5"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_one_token_of_zeros_stands_for_all(name: str, t5: bool) -> None:
    """To 1e-10 in double precision; then the transformer's own attention and the T5 are back."""
    pipe = sd3(t5=t5, **TRANSFORMERS[name])
    before, encoder = dict(pipe.transformer.attn_processors), pipe.text_encoder_3
    x, pooled, clip = drawn(2, 4, 8, 8).double(), drawn(2, 64).double(), drawn(2, 9, 64).double()

    def predicted(zeros: int) -> Tensor:
        words = torch.cat([clip, torch.zeros(2, zeros, 64, dtype=torch.float64)], 1)
        times = torch.tensor([900.0, 20.0], dtype=torch.float64)
        return pipe.transformer(x, words, pooled, times, return_dict=False)[0]

    expected = predicted(256)
    assert (predicted(1) - expected).abs().max() > 1e-4  # without the weight of all
    compact_(pipe)
    assert pipe.text_encoder_3 is None
    assert (predicted(1) - expected).abs().max() < 1e-10
    expand_(pipe)
    assert pipe.text_encoder_3 is encoder
    assert dict(pipe.transformer.attn_processors) == before
    assert torch.equal(predicted(256), expected)


def test_a_t5_that_says_something_stays() -> None:
    pipe = tiny("tiny-sd3")
    assert not compact(pipe)
    compact_(pipe)
    assert pipe.text_encoder_3 is not None
    assert not any(isinstance(p, OneForAll) for p in pipe.transformer.attn_processors.values())
    assert not compact(tiny("tiny")) and not compact(tiny("tiny-flux"))


def test_the_sheet_shows_what_the_stock_pipeline_paints() -> None:
    """`paint_prompts` of a compacted pipeline, and the stock call with its default number of text tokens."""
    tokenizer = trained_tokenizer(["a red circle on a blue ground"], DenoiserConfig())
    small = DenoiserConfig(width=32, depth=2, head_dim=16, text_width=32)
    pipe = blank_pipeline(random_vae(4), small, tokenizer, 32, "flow", 0)
    with torch.no_grad():
        for i, p in enumerate(pipe.transformer.parameters()):
            p += 0.1 * drawn(*p.shape, seed=i)  # the last layer is zero at first
    pipe.set_progress_bar_config(disable=True)
    prompts, options = ["a red circle", "on a blue ground"], {"guidance_scale": 3.0, "num_inference_steps": 3}
    theirs = [
        pipe(
            prompt,
            generator=torch.Generator().manual_seed(random_seed(5, PAINT_SHEET, i)),
            output_type="pt",
            height=32,
            width=32,
            **options,
        ).images
        for i, prompt in enumerate(prompts)
    ]
    compact_(pipe)
    ours = paint_prompts(pipe, prompts, size=32, guidance=3.0, steps=3, seed=5)
    expected = from_model_range(torch.cat(theirs) * 2 - 1)
    assert (ours.int() - expected.int()).abs().max() <= 1
    assert (ours[0].int() - ours[1].int()).abs().max() > 16


def test_refused() -> None:
    with pytest.raises(vw.ConfigError, match="Flux2KleinPipeline cannot be trained here; take one of St") as caught:
        wording_of(tiny("tiny-flux2"))
    assert "\n" not in str(caught.value)
    with pytest.raises(vw.ConfigError, match="neither a unet nor a transformer"):
        denoiser_of(object())
