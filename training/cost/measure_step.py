"""Speed and memory of pre-training steps on random samples: what batch fits, and what a setting costs.

    accelerate launch training/cost/measure_step.py --preset b16 --batch_size 12 --mask_ratio 0.5 --peak_tflops 989
    accelerate launch training/cost/measure_step.py --preset b16 --batch_size 512 --chunk_size 16

Steps are those of `TVTSv2Trainer`, with all that belongs to them but reading videos. Prints one line of JSON.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from transformers import PrinterCallback, TrainerCallback

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from modeling_tvtsv2.fast_linear import use_fast_linear
from training.arguments import PreTrainingArguments
from training.callbacks.progress import peak_memory_bytes
from training.flops import count_step_flops
from training.masking import count_masked_patches, draw_tube_mask
from training.runtime.number_types import at_least
from training.trainer import TVTSv2Trainer


@dataclass
class RandomBatches:
    """Batches of random samples, in the place of a collator; all videos share one video's memory.

    So the input takes no memory that would grow with the batch, and what is measured is the model's.
    """

    config: TVTSv2Config
    mask_ratio: float
    num_transcripts: int
    num_tokens: int

    def __call__(self, indices: list[int]) -> dict:
        batch_size, vision, text = len(indices), self.config.vision_config, self.config.text_config
        video = torch.randn(vision.num_frames, vision.num_channels, vision.image_size, vision.image_size)
        ids = torch.full((batch_size, self.num_transcripts, self.num_tokens), text.eos_token_id)
        ids[..., :-1] = torch.randint(min(10, text.vocab_size // 2), text.vocab_size // 2, ids[..., :-1].shape)
        generator = np.random.default_rng(0)
        masks = np.stack([draw_tube_mask(vision.num_patches, self.mask_ratio, generator) for _ in indices])
        batch = {"pixel_values_videos": video.expand(batch_size, *video.shape), "input_ids": ids}
        if masks.any():
            batch |= {"bool_masked_pos": torch.from_numpy(masks), "num_masked_patches": int(masks[0].sum())}
        if self.num_transcripts > 1:
            batch["sorting_labels"] = torch.argsort(torch.rand(batch_size, self.num_transcripts), dim=1)
        return batch


class StepClock(TrainerCallback):
    """Takes the time of the steps after the first, which also compiles, allocates and starts up."""

    def __init__(self):
        self.started = self.ended = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        self.ended = time.perf_counter()
        if state.global_step == 1:
            self.started = self.ended

    @property
    def seconds(self) -> float:
        """Between the ends of the first step and the last."""
        return self.ended - self.started


def measure(options: argparse.Namespace) -> dict:
    """Return the options, and speed and memory of the steps after the first."""
    torch.manual_seed(0)
    config = TVTSv2Config.from_preset(options.preset)
    rules = [{"match": options.frozen, "frozen": True}] if options.frozen else []
    with tempfile.TemporaryDirectory() as folder:
        args = PreTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            chunk_size=options.chunk_size,
            max_steps=options.num_steps,
            logging_steps=options.logging_steps,
            save_strategy="no",
            report_to=options.report_to,
            disable_tqdm=True,
            learning_rate=1e-6,
            peak_tflops=options.peak_tflops,
            activation_checkpointing=options.checkpointing,
            # As run_pretrain.py decides by its sources.
            ddp_find_unused_parameters=options.num_transcripts == 1 or options.chunk_size is not None,
            parameter_rules=[*rules, {"match": "*"}],
        )
        if options.num_threads is not None:
            torch.set_num_threads(options.num_threads)
        model = use_fast_linear(TVTSv2ForPreTraining._from_config(config, attn_implementation="sdpa"))
        before = peak_memory_bytes(args.device)
        trainer = TVTSv2Trainer(
            model,
            args,
            train_dataset=list(range(options.batch_size * args.world_size * options.num_steps)),
            data_collator=RandomBatches(config, options.mask_ratio, options.num_transcripts, options.num_tokens),
        )
        trainer.remove_callback(PrinterCallback)
        clock = StepClock()
        trainer.add_callback(clock)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    vision = config.vision_config
    num_samples = options.batch_size * args.world_size
    flops = count_step_flops(
        model,
        batch_size=options.batch_size,
        num_kept_patches=vision.num_patches - count_masked_patches(vision.num_patches, options.mask_ratio),
        num_transcripts=options.num_transcripts,
        num_tokens=options.num_tokens,
        num_candidates=num_samples,
    )
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        **vars(options),
        "num_processes": args.world_size,
        "device": args.device.type,
        "samples_per_second": (options.num_steps - 1) * num_samples / clock.seconds if clock.seconds else None,
        "mfu": steps[-1].get("mfu"),
        "tflop_per_step": flops.total * args.world_size / 1e12,
        "start_memory_gib": before / 2**30,
        "peak_memory_gib": steps[-1]["peak_memory_gib"],
        "loss": steps[0]["loss"],
        "seconds": seconds,
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="tiny, b32, b16 or h14")
    parser.add_argument("--batch_size", type=at_least(1), default=32, help="of each process")
    parser.add_argument("--chunk_size", type=at_least(1), help="as for run_pretrain.py")
    parser.add_argument("--mask_ratio", type=at_least(0, float), default=0.5)
    parser.add_argument("--num_transcripts", type=at_least(1), default=4, help="4, or 1 for captions")
    parser.add_argument("--num_tokens", type=at_least(1), default=20, help="of a transcript")
    parser.add_argument("--num_steps", type=at_least(1), default=3)
    parser.add_argument(
        "--logging_steps", type=at_least(1), default=1, help="a log after so many steps waits for the device"
    )
    parser.add_argument("--report_to", default="none", help="as for run_pretrain.py")
    parser.add_argument("--num_threads", type=at_least(1), help="of each process on the CPU; default: torch's choice")
    parser.add_argument("--frozen", nargs="*", default=[], help="globs of parameters that are not trained")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations twice, keep few")
    parser.add_argument("--peak_tflops", type=float, help="of a device, for MFU")
    options = parser.parse_args()
    try:
        result = measure(options)
    except ValueError as error:
        parser.error(str(error))
    if PartialState().is_main_process:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
