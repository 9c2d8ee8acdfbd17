"""Training in several processes, each with a share of every batch."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from ..config import TrainConfig
from ..distributed import process_sum, rank, world_size
from ..errors import ConfigError
from ..models import Autoencoder, build
from .state import TrainState


def check_processes(config: TrainConfig) -> None:
    """Errors: ConfigError for a batch that cannot be split evenly."""
    if config.batch % world_size():
        raise ConfigError(f"batch (={config.batch}) must be a multiple of the number of processes (={world_size()})")


def wrap_ddp_(trained: TrainState) -> None:
    """Make `trained.model` average gradients over processes (ddp). Call it again when a half is switched on or off.

    The reason: the wrapper decides when it is made which parameters get a gradient.
    """
    if world_size() > 1 and trained.config.parallel == "ddp":
        device = trained.autoencoder.device
        trained.model = DistributedDataParallel(
            trained.learner, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )


def unshard(network: Autoencoder) -> Autoencoder:
    """The network with whole weights, for validation and saving: itself, or with fsdp a copy. All processes must call
    it."""
    if not hasattr(next(network.parameters()), "full_tensor"):
        return network
    tensors = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in network.state_dict().items()}
    copy = build(network.config).to(network.device)
    copy.load_state_dict(tensors)
    return copy.requires_grad_(False).eval()


def agree_on_time(wish: bool, seconds: float) -> tuple[bool, float]:
    """Whether any process was asked to stop, and process 0's seconds: the same answer in all processes."""
    wished, clock = process_sum([float(wish), seconds if rank() == 0 else 0.0])
    return wished > 0, clock
