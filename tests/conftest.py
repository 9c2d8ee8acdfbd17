"""What all tests share: no network, one thread, reproducible property tests, and the folder of real data."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

from vaeworks.launcher import share_cores

share_cores()  # before torch is imported

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

# Networks here are tiny, and threads that wait for each other on a busy machine cost many times more. Processes that
# tests start have as many, because sums are rounded otherwise with more.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

set_hypothesis_home_dir(Path(tempfile.gettempdir(), "vaeworks-hypothesis"))  # not in the repository
settings.register_profile("vaeworks", deadline=None, derandomize=True, database=None, max_examples=20)
settings.load_profile("vaeworks")


@pytest.fixture
def test_data() -> Path:
    """The folder that holds data/ and weights/, with real photographs and weights."""
    if "VAEWORKS_TEST_DATA" not in os.environ:
        pytest.skip("VAEWORKS_TEST_DATA is not set")
    return Path(os.environ["VAEWORKS_TEST_DATA"])
