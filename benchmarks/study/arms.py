"""An arm made ready: TVTSv2 started from its seed's mini-CLIP, with its batches, losses, masks and parameter rules."""

from benchmarks.study.cells import StudyFolder
from benchmarks.study.embedder import Embedder
from benchmarks.study.models import parameter_rules, start_from_clip
from benchmarks.study.settings import SOURCES, Arm, Study
from benchmarks.study.training_loop import Source, TrainingRun


def make_run(
    study_folder: StudyFolder, seed: int, arm: Arm, num_clip_steps: int | None = None
) -> tuple[TrainingRun, Embedder]:
    """The arm's model before its first step, ready to be trained and to be evaluated.

    Args:
        num_clip_steps: of mini-CLIP, instead of the settings'.
    """
    study = study_folder.study
    clip = study_folder.clip(seed, arm.width, num_clip_steps)
    model = start_from_clip(clip, study, arm, seed)
    embedder = Embedder(model, study_folder.start(clip).tokenizer)
    sources = make_sources(study_folder, seed, arm, embedder)
    return TrainingRun(model, sources, study.post, parameter_rules(study, arm), arm), embedder


def make_sources(study_folder: StudyFolder, seed: int, arm: Arm, embedder: Embedder) -> list[Source]:
    """The arm's training batches: narrated in speech, captioned, or captioned with two events in their order."""
    study, world = study_folder.study, study_folder.world(seed)
    texts_of = {
        "narrated": lambda: world.narrated.narrate(seed, study.world.chatter_ratio),
        "captioned": lambda: world.captioned.say("caption", seed),
        "ordered": lambda: [[right] for right, _ in world.ordered.say_order(seed)],
    }
    return [
        Source(
            getattr(world, name),
            texts_of[name](),
            embedder.tokenizer,
            batch_size=study.post.batch_size,
            num_patches=count_patches(study),
            mask_ratio=arm.mask_ratio,
            seed=len(SOURCES) * seed + SOURCES.index(name),
        )
        for name in arm.sources
    ]


def count_patches(study: Study) -> int:
    """Patches of a frame."""
    return (study.world.image_size // study.model.patch_size) ** 2
