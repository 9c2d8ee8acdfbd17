"""Fetch VAEs from the Hugging Face hub: only the VAE's files, never the pipeline around it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import FormatError, MissingExtraError
from ..files.hub_network import one_try

HUB_PREFIX = "hf:"
"""Prefix of a hub id, which tells it from a path."""

FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def fetch(name: str) -> Path:
    """The local copy of hf:OWNER/NAME (its vae/ folder, or the repository itself), hf:OWNER/NAME/FOLDER or
    hf:OWNER/NAME/FILE.

    Files in the hub's cache are not downloaded again; HF_HUB_OFFLINE=1, or a hub that cannot be reached, uses only the
    cache.
    Errors: MissingExtraError without huggingface_hub; FormatError for a file that cannot be fetched.
    """
    owner, _, rest = name.removeprefix(HUB_PREFIX).partition("/")
    repository, _, inside = rest.partition("/")
    if not owner or not repository or ".." in name.split("/"):
        raise FormatError(f"{name} is not a hub id; write {HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME/FILE")
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", "diffusers", "the hub")
    with one_try() as unreachable:
        try:
            return _fetched(f"{owner}/{repository}", inside)
        except FormatError:
            if not unreachable:
                raise
            raise FormatError(f"{name} is not in the hub's cache, and {unreachable}; pass a path instead") from None


def _fetched(repository: str, inside: str) -> Path:
    """The file, or the folder of the files. Errors: FormatError."""
    if Path(inside).suffix:
        return _file(repository, inside)
    reasons = []
    for folder in [inside] if inside else ["vae", ""]:
        prefix = f"{folder}/" if folder else ""
        try:
            config, _ = (_file(repository, prefix + file) for file in FILES)
            return config.parent
        except FormatError as error:
            reasons.append(str(error))
    raise FormatError(
        reasons[0] if len(reasons) == 1 else f"{reasons[0]}; the repository's own folder holds no VAE either"
    )


def _file(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{HUB_PREFIX}{repository} could not be fetched ({file}): {reason[:200]}; check the name, the network "
            "(HF_HUB_OFFLINE) and, for a private repository, 'hf auth login'"
        ) from None
