"""Sets the epoch that seeds the sampler's order."""

from torch.utils.data import Sampler
from transformers import TrainerCallback


class SamplerEpoch(TrainerCallback):
    """Call `sampler.set_epoch` at the start of each epoch, also of one that a checkpoint resumes in its middle.

    transformers and accelerate set a sampler's epoch through the loader, and do not find it where the loader of a
    resumed epoch skips batches in several processes.

    Args:
        sampler: of the training samples; one without `set_epoch`, or None, is left alone.
    """

    def __init__(self, sampler: Sampler | None):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(int(state.epoch or 0))
