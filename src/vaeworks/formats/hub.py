"""VAEs on the Hugging Face hub: only the VAE's files are fetched, never the pipeline around it."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError, MissingExtraError

HUB_PREFIX = "hf:"
"""What a hub id begins with where a path could stand."""

FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def fetch(name: str) -> Path:
    """The local copy of hf:OWNER/NAME (its vae/ folder, or the repository itself), hf:OWNER/NAME/FOLDER or
    hf:OWNER/NAME/FILE.

    Files come from the hub's cache where they are in it; HF_HUB_OFFLINE=1 asks nothing else.
    Errors: MissingExtraError without huggingface_hub; FormatError for what the hub does not give.
    """
    owner, _, rest = name.removeprefix(HUB_PREFIX).partition("/")
    repository, _, inside = rest.partition("/")
    if not owner or not repository or ".." in name.split("/"):
        raise FormatError(f"{name} is no hub id; write {HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME/FILE")
    repository = f"{owner}/{repository}"
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
        reasons[0] if len(reasons) == 1 else f"{reasons[0]}; nor is there a VAE in the repository's own folder"
    )


def _file(repository: str, file: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "diffusers", "the hub") from None
    try:
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{HUB_PREFIX}{repository} did not give {file}: {reason[:200]}; check the name, the network "
            "(HF_HUB_OFFLINE) and, for a private repository, 'hf auth login'"
        ) from None
