"""Pipelines whose VAE is computed by the codec: the same pictures, the same object, and back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.config import AutoencoderConfig
from vaeworks.errors import ConfigError
from vaeworks.formats.diffusers import to_diffusers
from vaeworks.formats.shared_weights import from_diffusers
from vaeworks.pipelines import acceleration as module
from vaeworks.pipelines.acceleration import accelerate, decelerate
from vaeworks.pipelines.tiny import TINY

ACCURACY = 1e-4


def random_vae(kind: str = "", **options: Any) -> vw.Autoencoder:
    c = 16 if kind in ("tiny-flux", "tiny-sd3") else 4
    small = {"channels": 16, "channel_mult": (1, 1, 2, 2), "num_res_blocks": 1, "norm_groups": 8, "latent_channels": c}
    config = AutoencoderConfig(**(small | options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return vw.build(config).requires_grad_(False).eval()


def pipeline(kind: str) -> diffusers.DiffusionPipeline:
    pipe = TINY[kind](random_vae(kind, **(ARCHITECTURES["Flux.2"] if kind == "tiny-flux2" else {})))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def painted(pipe: diffusers.DiffusionPipeline) -> np.ndarray:
    """A picture n h w 3 in [0,1]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers'
        return pipe(
            prompt="a dog",
            num_inference_steps=2,
            height=64,
            width=48,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images


def latents(vae: AutoencoderKL, h: int = 12, w: int = 9) -> Tensor:
    return torch.randn(2, vae.config.latent_channels, h, w, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def both(vae: AutoencoderKL, z: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    moments = vae.encode(images, return_dict=False)[0]
    return vae.decode(z).sample, moments.mean, moments.std


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the codec was asked for."""
    from vaeworks.runtime.codec import Codec

    found: list[str] = []

    def counted(name: str, method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            found.append(name)
            return method(*args, **options)

        return call

    monkeypatch.setattr(Codec, "decode", counted("decode", Codec.decode))
    monkeypatch.setattr(Codec, "encode", counted("encode", Codec.encode))
    return found


def decoded(vae: AutoencoderKL, z: Tensor) -> Tensor:
    with torch.no_grad():
        return vae.decode(z).sample


# ---------------------------------------------------------------- our network around their weights


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no 1x1 convolutions": {"quant_conv": False, "post_quant_conv": False},
    "attention at levels, none in the middle": {"attention_factors": (4,), "mid_attention": False},
    "circular": {"padding_mode": "circular"},
    "scaled for float16": {"encoder_scale": 0.25, "decoder_scale": 2.0**-8},
    "another epsilon": {"norm_eps": 1e-5},
    "Flux.2": {"normalization": "batchnorm", "latents_patch": 2, "decoder_channels": 32},
}


@pytest.mark.filterwarnings("ignore:diffusers cannot save")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shares_every_parameter(name: str) -> None:
    """Parameters are the same objects, configurations agree, and so do results; what only modules know is taken
    over."""
    config = random_vae(**ARCHITECTURES[name]).config
    vae = to_diffusers(random_vae(**ARCHITECTURES[name]))
    ours = from_diffusers(vae)
    assert {id(p) for p in ours.parameters()} == {id(p) for p in vae.parameters()}
    assert {id(b) for b in ours.buffers()} == {id(b) for b in vae.buffers()}
    assert ours.config == config and not ours.training
    z, images = latents(vae), torch.rand(2, 3, 48, 32) * 2 - 1
    with torch.no_grad():
        image, mean, _ = both(vae, z, images)
        torch.testing.assert_close(ours.decode(z), image)
        torch.testing.assert_close(ours.encode(images).mean, mean)


def test_sees_changes() -> None:
    """Weights that are changed in place, or moved to another type, are changed on both sides."""
    vae = to_diffusers(random_vae())
    ours = from_diffusers(vae)
    vae.decoder.conv_out.weight.data += 1
    assert ours.decoder.conv_out.weight.equal(vae.decoder.conv_out.weight)
    vae.to(torch.bfloat16)
    assert ours.dtype == torch.bfloat16 and ours.decoder.conv_out.weight is vae.decoder.conv_out.weight


def test_taesd_too() -> None:
    """diffusers' AutoencoderTiny is a TAESD of ours."""
    vae = (
        diffusers.AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
        .requires_grad_(False)
        .eval()
    )
    ours = from_diffusers(vae)
    z = latents(vae)
    torch.testing.assert_close(ours.decode(z), vae.decode(z).sample)


def test_what_is_not_taken() -> None:
    """Another class, and a VAE that does not compute what its configuration says, in one line each."""
    with pytest.raises(ConfigError, match="a Linear cannot be taken over"):
        from_diffusers(nn.Linear(1, 1))  # type: ignore[arg-type]
    vae = to_diffusers(random_vae())
    vae.decoder.conv_in = nn.Sequential(vae.decoder.conv_in)
    with pytest.raises(ConfigError, match=r"weights of this AutoencoderKL are not those"):
        from_diffusers(vae)
    vae = to_diffusers(random_vae())
    vae.fuse_qkv_projections()
    with pytest.raises(ConfigError, match="processor of its own"):
        from_diffusers(vae)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_vae_is_named(half: str) -> None:
    """A pipeline that dropped a half to save memory gets a sentence, and stays as it was."""
    pipe = pipeline("tiny")
    setattr(pipe.vae, half, None)
    with pytest.raises(ConfigError, match=f"this AutoencoderKL has no {half}"):
        accelerate(pipe)
    assert not {"_decode", "_encode"} & vars(pipe.vae).keys()


def test_a_vae_of_diffusers_stands_for_ours(tmp_path: Path) -> None:
    """Functions that take a model take diffusers' as well, with the same result as for ours around it."""
    theirs = to_diffusers(random_vae())
    ours = from_diffusers(theirs)
    for name, vae in (("theirs", theirs), ("ours", ours)):
        vw.save(vae, tmp_path / f"{name}.safetensors")
        vw.save(vae, tmp_path / f"{name}-folder", "diffusers")
    assert (tmp_path / "theirs.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    images = Image.new("RGB", (16, 16), (200, 100, 50))
    images.save(tmp_path / "a.png")
    results = [vw.reconstruct(vae, tmp_path / "a.png").images[0].psnr for vae in (theirs, ours)]
    assert results[0] == results[1]
    assert torch.equal(to_diffusers(theirs).decoder.conv_in.weight, theirs.decoder.conv_in.weight)
    assert vw.fold(theirs, scaling_factor=0.5).autoencoder.config.scaling_factor == 0.5
    assert accelerate(theirs) is theirs and "_decode" in vars(theirs)
    assert decelerate(theirs) is theirs and "_decode" not in vars(theirs)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pipe, path: vw.save(pipe, path), r"not StableDiffusion\w*; give its \.vae"),
        (lambda pipe, path: vw.save(pipe.vae.state_dict(), path), "not OrderedDict"),
        (lambda pipe, path: vw.save(AutoencoderKL, path), "the class AutoencoderKL; give an object"),
        (lambda pipe, path: vw.save(AutoencoderConfig(), path), "`vaeworks.build` makes"),
        (lambda pipe, path: vw.save("vae.safetensors", path), "vaeworks.convert"),
        (lambda pipe, path: vw.sample(nn.Linear(1, 1)), "not Linear"),
        (lambda pipe, path: vw.fold(None, scaling_factor=1.0), "not NoneType"),
        (lambda pipe, path: vw.repair(nn.Linear(1, 1)), "not Linear"),
        (lambda pipe, path: vw.Codec(nn.Linear(1, 1)), "not Linear"),
        (lambda pipe, path: vw.export_onnx(nn.Linear(1, 1), path), "not Linear"),
        (lambda pipe, path: vw.generate("tiny", "dog", vae=nn.Linear(1, 1)), "not Linear"),
        (lambda pipe, path: to_diffusers("vae.safetensors"), "vaeworks.load"),
        (lambda pipe, path: vw.load(pipe.vae), "by its path, not as AutoencoderKL"),
        (lambda pipe, path: vw.inspect(pipe.vae), "by its path, not as AutoencoderKL"),
        (lambda pipe, path: vw.convert(pipe.vae, path, "ldm"), "by its path, not as AutoencoderKL"),
        (lambda pipe, path: vw.run_arena(pipe.vae, "photos", path), "not AutoencoderKL; `vaeworks.save`"),
        (lambda pipe, path: vw.match(pipe.vae), "by its path, not as AutoencoderKL"),
        (lambda pipe, path: vw.install(pipe.vae, "comfyui", path.parent), "comfyui|holds no|AutoencoderKL"),
        (lambda pipe, path: vw.extract(pipe.vae, path), "by its path, not as AutoencoderKL"),
        (lambda pipe, path: accelerate(from_diffusers(pipe.vae)), "vaeworks.Codec"),
    ],
)
def test_other_objects_get_a_sentence(call: Callable[[Any, Path], object], words: str, tmp_path: Path) -> None:
    """What is no model, or none that is meant: the sentence names what was given and what to give."""
    with pytest.raises(vw.VaeworksError, match=words):
        call(pipeline("tiny"), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- pipelines


@pytest.mark.parametrize("kind", sorted(TINY))
def test_same_picture(kind: str, calls: list[str]) -> None:
    """SD, SDXL, SD3, Flux and Flux.2 paint the same, to rounding, by the codec; undone, to the bit."""
    pipe = pipeline(kind)
    before, vae, weights = painted(pipe), pipe.vae, {id(p) for p in pipe.vae.parameters()}
    assert accelerate(pipe) is pipe and not calls
    after = painted(pipe)
    assert calls == ["decode"]
    assert np.abs(after - before).max() <= ACCURACY
    assert np.abs(np.rint(after * 255) - np.rint(before * 255)).max() <= 1 and before.std() > 0.01
    assert pipe.vae is vae and {id(p) for p in pipe.vae.parameters()} == weights
    assert decelerate(pipe) is pipe and np.array_equal(painted(pipe), before) and len(calls) == 1


def test_encoding_too(calls: list[str]) -> None:
    """Latents of images, in the distribution that pipelines expect; by slices, too."""
    pipe = pipeline("tiny")
    z, images = latents(pipe.vae), torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = both(pipe.vae, z, images)
    accelerate(pipe)
    for actual, wanted in zip(both(pipe.vae, z, images), before, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=ACCURACY)
    assert calls == ["encode", "decode"]
    pipe.vae.enable_slicing()
    for actual, wanted in zip(both(pipe.vae, z, images), before, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=ACCURACY)
    assert len(calls) == 6


@pytest.mark.parametrize("level", [-1.0, 1 / 255, 1.0])
def test_flat_pictures_too(level: float, calls: list[str]) -> None:
    """Encoded within a pipeline by the codec, by hand, where gradients are on, as diffusers does: the same latents."""
    vae = accelerate(pipeline("tiny")).vae.requires_grad_(True)
    images = torch.full((1, 3, 64, 64), level)
    by_hand = vae.encode(images).latent_dist.mean.detach()
    assert not calls
    with torch.no_grad():
        found = vae.encode(images).latent_dist.mean
    assert calls == ["encode"]
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny", "tiny-sdxl"])
def test_tiling_has_no_seams(kind: str) -> None:
    """`enable_tiling` before or after: the whole picture's result, where diffusers' own has seams."""
    pipe = pipeline(kind)
    z = latents(pipe.vae, 24, 20)
    whole = decoded(pipe.vae, z)
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = 8, 64
    assert (decoded(pipe.vae, z) - whole).abs().max() > 10 * ACCURACY
    accelerate(pipe)
    torch.testing.assert_close(decoded(pipe.vae, z), whole, rtol=0, atol=ACCURACY)
    pipe.vae.disable_tiling()
    pipe.vae.enable_tiling()
    torch.testing.assert_close(decoded(pipe.vae, z), whole, rtol=0, atol=ACCURACY)


def test_changed_weights_are_seen(calls: list[str]) -> None:
    """Fused LoRAs change `.data` in place, which leaves no trace in version counters; whole weights may be loaded or
    replaced."""
    pipe, reference = accelerate(pipeline("tiny")), pipeline("tiny")
    z = latents(pipe.vae)
    before = decoded(pipe.vae, z)
    for vae in (pipe.vae, reference.vae):
        vae.decoder.mid_block.resnets[0].conv1.weight.data += 0.05
    torch.testing.assert_close(decoded(pipe.vae, z), decoded(reference.vae, z), rtol=0, atol=ACCURACY)
    assert (decoded(pipe.vae, z) - before).abs().max() > 1e-3
    for vae in (pipe.vae, reference.vae):
        vae.decoder.conv_in.weight = nn.Parameter(vae.decoder.conv_in.weight * 1.5, requires_grad=False)
        vae.decoder.conv_norm_out.eps = 1e-2
        vae.decoder.mid_block.resnets[1].conv1.weight.data.neg_()  # of the same norm
    torch.testing.assert_close(decoded(pipe.vae, z), decoded(reference.vae, z), rtol=0, atol=ACCURACY)
    assert len(calls) == 4


def test_other_types_and_upcasting(calls: list[str]) -> None:
    """`.to()`, SDXL's upcasting of a float16 VAE around its decoding, and a type of the codec's own."""
    pipe = accelerate(pipeline("tiny-sdxl"))
    pipe.to(dtype=torch.float16, silence_dtype_warnings=True)
    pipe.unet.to(torch.float32)  # float16 is slow on CPUs
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        encoder.to(torch.float32)
    assert np.isfinite(painted(pipe)).all() and calls == ["decode"]
    assert pipe.vae.dtype == torch.float16
    pipe.vae.to(torch.float32)
    z = latents(pipe.vae)
    whole = decoded(decelerate(pipe).vae, z)
    rough = decoded(accelerate(pipe, dtype=torch.bfloat16).vae, z)
    assert rough.dtype == torch.float32 and pipe.vae.dtype == torch.float32
    assert 0 < (rough - whole).abs().max() < 0.1


def test_saves_as_before(tmp_path: Path) -> None:
    """The folder that is saved is diffusers' own, and loads without us."""
    pipe = pipeline("tiny")
    z = latents(pipe.vae)
    whole = decoded(pipe.vae, z)
    accelerate(pipe).save_pretrained(tmp_path)
    again = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert again.config == {**again.config, **{k: v for k, v in pipe.vae.config.items() if not k.startswith("_")}}
    torch.testing.assert_close(decoded(again.requires_grad_(False), z), whole, rtol=0, atol=1e-5)


def test_copies_have_their_own_codec(calls: list[str]) -> None:
    """A deep copy of an accelerated VAE computes with its own weights."""
    vae = accelerate(pipeline("tiny")).vae
    z = latents(vae)
    other = copy.deepcopy(vae)
    other.decoder.conv_out.weight.data *= 2
    other.decoder.conv_out.bias.data *= 2
    torch.testing.assert_close(decoded(other, z), 2 * decoded(vae, z))
    assert len(calls) == 2


def test_results_can_be_trained_on_and_changed() -> None:
    """They are no tensors of inference mode, except in inference mode."""
    vae = accelerate(pipeline("tiny")).vae
    with torch.no_grad():
        code = vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.sample()
    weight = torch.ones(1, requires_grad=True)
    (code * weight).sum().backward()
    assert weight.grad is not None
    decoded(vae, code).add_(1)


def test_gradients_are_the_vaes_own(calls: list[str]) -> None:
    """Guidance through the VAE, or training it, goes on."""
    vae = accelerate(pipeline("tiny")).vae
    z = latents(vae).requires_grad_()
    vae.decode(z).sample.sum().backward()
    assert z.grad is not None and not calls


def test_model_offloading(calls: list[str]) -> None:
    """A hook of the whole VAE runs before its decoding, as `enable_model_cpu_offload` wants it."""
    from accelerate import cpu_offload_with_hook

    pipe = accelerate(pipeline("tiny"))
    z = latents(pipe.vae)
    whole = decoded(pipe.vae, z)
    _, hook = cpu_offload_with_hook(pipe.vae, execution_device="cpu")
    ran = []
    real = pipe.vae._hf_hook.pre_forward
    pipe.vae._hf_hook.pre_forward = lambda *args, **options: ran.append(1) or real(*args, **options)
    assert decoded(pipe.vae, z).equal(whole) and ran and len(calls) == 2
    hook.remove()


def test_offloading_by_layers(calls: list[str]) -> None:
    """Sequential offloading keeps its own way, said once; when it ends, the codec is back."""
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    pipe = accelerate(pipeline("tiny"))
    z = latents(pipe.vae)
    whole = decoded(pipe.vae, z)
    cpu_offload(pipe.vae, execution_device=torch.device("cpu"))
    with pytest.warns(UserWarning, match="not accelerated.*hooked to"):
        torch.testing.assert_close(decoded(pipe.vae, z), whole, rtol=0, atol=ACCURACY)
    decoded(pipe.vae, z)
    assert len(calls) == 1
    remove_hook_from_submodules(pipe.vae)
    torch.testing.assert_close(decoded(pipe.vae, z), whole, rtol=0, atol=ACCURACY)
    assert len(calls) == 2


def test_patched_padding_is_followed(calls: list[str]) -> None:
    """Seamless textures: padding that is set on modules later, before or behind the codec's back."""
    pipe, reference = accelerate(pipeline("tiny")), pipeline("tiny")
    for vae in (pipe.vae, reference.vae):
        for conv in vae.modules():
            if isinstance(conv, nn.Conv2d) and conv.padding == (1, 1):
                conv.padding_mode = "circular"
    z = latents(pipe.vae)
    torch.testing.assert_close(decoded(pipe.vae, z), decoded(reference.vae, z), rtol=0, atol=ACCURACY)
    assert calls == ["decode"]


def test_again_with_other_settings(calls: list[str]) -> None:
    """The last settings hold; one undoing is enough, and one too many does nothing."""
    pipe = accelerate(accelerate(pipeline("tiny"), tile=8), tile=16, memory="2GiB")
    assert pipe.vae._decode.__self__.options == {"tile": 16, "memory": "2GiB"}
    decelerate(decelerate(pipe))
    decoded(pipe.vae, latents(pipe.vae))
    assert not calls and not set(module.METHODS) & pipe.vae.__dict__.keys()


def test_refusals_leave_the_pipeline() -> None:
    """Another kind of VAE, none, settings that break a rule: one line, and nothing has changed."""
    pipe = pipeline("tiny")
    for settings in ({"tile": 0}, {"memory": "plenty"}):
        with pytest.raises(ConfigError):
            accelerate(pipe, **settings)
    assert not set(module.METHODS) & pipe.vae.__dict__.keys()
    pipe.vae = diffusers.AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    with pytest.raises(ConfigError, match="VAE is of class AutoencoderTiny; accelerate takes"):
        accelerate(pipe)
    with pytest.raises(ConfigError, match="has no VAE"):
        accelerate(nn.Linear(1, 1))  # type: ignore[type-var]


def test_public_names_stay_functions() -> None:
    """Python puts a submodule over a name of its package: none may be called like what it gives."""
    import vaeworks.formats as formats

    assert not [name for name, home in formats._HOME.items() if name == home]
    for _ in range(2):
        assert all(
            callable(getattr(vw, name)) for name in ("accelerate", "decelerate", "from_diffusers", "export_onnx")
        )
