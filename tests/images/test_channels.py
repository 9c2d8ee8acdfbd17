"""Which models can be used with pictures, by the channels of their images."""

from __future__ import annotations

import itertools

import pytest

from vaeworks.config import AutoencoderConfig
from vaeworks.errors import ConfigError
from vaeworks.images.channels import PICTURES, check_pictures


@pytest.mark.parametrize(("takes", "gives"), [*itertools.product((1, 2, 3, 4, 12), repeat=2)])
def test_a_picture_has_as_many_channels_as_the_model(takes: int, gives: int) -> None:
    """What is read and compared needs known and equal channels; what is only read or only written, its own side."""
    config = AutoencoderConfig(in_channels=takes, out_channels=gives)
    allowed = {
        (True, True): takes == gives and takes in PICTURES,
        (True, False): takes in PICTURES,
        (False, True): gives in PICTURES,
        (False, False): True,
    }
    for (reads, writes), possible in allowed.items():
        if possible:
            check_pictures(config, reads=reads, writes=writes, channels=PICTURES)
            continue
        with pytest.raises(
            ConfigError, match=rf"the VAE takes images of {takes} channels? and gives images of {gives}"
        ):
            check_pictures(config, reads=reads, writes=writes, channels=PICTURES, name="the VAE")
