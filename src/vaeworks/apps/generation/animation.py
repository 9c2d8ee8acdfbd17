"""Animations: GIF by Pillow, MP4 by ffmpeg if it is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...errors import ConfigError, VaeworksError
from ...files.atomic import atomic
from ...images import to_pillow

FPS = 10


def there_and_back(frames: Sequence[Tensor]) -> list[Tensor]:
    """The frames forward and backward, each end once, so that a loop does not jump."""
    return [*frames, *frames[-2:0:-1]]


def write_gif(path: Path, frames: Sequence[Tensor], fps: int = FPS, overwrite: bool = True) -> None:
    """Write images uint8 c h w of one size as an endless loop, whole or not at all. overwrite: replace an existing
    file."""
    pictures = [to_pillow(frame).convert("RGB") for frame in frames]
    with atomic(path, overwrite) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
        )


def find_ffmpeg() -> str:
    """The path of ffmpeg. Errors: ConfigError if it is not installed."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise ConfigError("an MP4 needs ffmpeg, which is not on the PATH; install it, or take --video gif")
    return found


def write_mp4(path: Path, frames: Sequence[Tensor], fps: int = FPS, overwrite: bool = True) -> None:
    """Write images uint8 c h w of one size as H.264, whole or not at all, as `write_gif` does; odd sides lose a row or
    column.

    Errors: ConfigError if ffmpeg is not installed; VaeworksError with its last line if it fails.
    """
    height, width = (side // 2 * 2 for side in frames[0].shape[-2:])
    raw = b"".join(to_pillow(frame[..., :height, :width]).convert("RGB").tobytes() for frame in frames)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    with atomic(path, overwrite) as temporary:
        command = [
            find_ffmpeg(),
            "-loglevel",
            "error",
            "-y",
            *source,
            "-pix_fmt",
            "yuv420p",
            "-f",
            "mp4",
            str(temporary),
        ]
        done = subprocess.run(command, input=raw, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
            raise VaeworksError(f"{path} could not be written by ffmpeg: {said[-1]}")
