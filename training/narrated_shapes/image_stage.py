"""The image stage of the main job: both towers learn from single frames before they see videos.

The paper starts from CLIP, which has learned shapes from images and captions. A model trained from scratch gets a start
of the same kind here: contrast between single frames (T = 1) and captions. A frame costs a twelfth of a video, so a
step has more pairs. The captions of three of four batches name the shape alone: where captions name color and scene,
these tell the pairs apart, and shapes are not learned.
"""

import numpy as np
import torch
from tqdm import trange
from transformers import get_cosine_schedule_with_warmup

from training.narrated_shapes.captions import describe
from training.narrated_shapes.scene_drawing import COLORS, MOTIONS, SCENES, SHAPES, SPEEDS, Event, draw_video
from training.trainer import TVTSv2Trainer

BATCH_SIZE = 64
TURNS = (("shape",), ("shape",), ("shape",), ("color", "scene", "shape"))  # what the captions of a batch name
EVENT_SECONDS = 4.0
BORDER_RATIO = 1.2  # side of a drawn frame to that of its random crop, as for videos


def train_on_images(trainer: TVTSv2Trainer, num_steps: int) -> None:
    """Train the trainer's model for `num_steps` on generated frames, with its rates, rules and warm-up.

    The optimizer is one of its own. Every process draws the same batches, so that all start the videos alike.
    """
    args, model, processor = trainer.args, trainer.model.to(trainer.args.device).train(), trainer.processing_class
    rng = np.random.default_rng([args.seed, num_steps])
    image_size = model.config.vision_config.image_size
    optimizer = torch.optim.AdamW(trainer.plan.apply(model))
    schedule = get_cosine_schedule_with_warmup(optimizer, min(args.warmup_steps, num_steps), num_steps)
    for step in trange(num_steps, desc="image stage", disable=args.process_index > 0):
        frames, captions = draw_batch(image_size, TURNS[step % len(TURNS)], rng)
        pixel_values = processor.video_processor.normalize_frames(torch.from_numpy(frames).to(args.device))[:, :1]
        input_ids = processor(text=captions, return_tensors="pt")["input_ids"].to(args.device)
        model(pixel_values_videos=pixel_values, input_ids=input_ids[:, None]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm or float("inf"))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def draw_batch(image_size: int, named: tuple[str, ...], rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Return uint8 frames (BATCH_SIZE, 1, image_size, image_size, 3) and captions that name the attributes `named`."""
    side, frames, captions = round(BORDER_RATIO * image_size), [], []
    for _ in range(BATCH_SIZE):
        color, scene, shape, motion = (str(rng.choice(list(each))) for each in (COLORS, SCENES, SHAPES, MOTIONS))
        passed = 0.0 if motion == "blink" else rng.uniform(0, EVENT_SECONDS)  # a blinking shape is visible at first
        event = Event(color, shape, motion, str(rng.choice(SPEEDS)), -passed, EVENT_SECONDS - passed + 1e-3)
        (frame,) = draw_video(scene, [event], fps=1 / event.end_seconds, image_size=side, rng=rng)
        top, left = rng.integers(side - image_size + 1, size=2)
        frames.append(frame[None, top : top + image_size, left : left + image_size])
        captions.append(describe(event, scene, rng, named))
    return np.stack(frames), captions
