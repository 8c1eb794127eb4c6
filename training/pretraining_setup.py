"""From arguments to the parts of a run: processor, model, training samples, held-out videos."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoTokenizer

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from modeling_tvtsv2.fast_linear import use_fast_linear
from processing import TVTSv2Processor, TVTSv2VideoProcessor
from training.arguments import DataArguments, ModelArguments, PreTrainingArguments
from training.evaluation import chance_levels
from training.masking import count_masked_patches
from training.narrated_shapes.corpus import Corpus, build_corpus
from training.narrated_shapes.scripts import NUM_CLIPS_PER_ROUND, CorpusConfig
from training.parameter_rules import ParameterPlan
from training.runtime.run_folder import BROKEN_VIDEOS_FILE
from training.sources.clip_dataset import ClipDataset
from training.sources.formats import check_source, format_of, has_splits, open_source
from training.sources.mixed_sources import MixedSources, TurnSampler
from training.train_tokenizer import convert_sentencepiece, train_sentencepiece

CORPUS_SIZES = ("num_train_videos", "num_train_captions", "num_heldout_videos", "num_heldout_captions")


@dataclass
class DataFiles:
    """Where a run's data lies: mappings as in the YAML's `sources`, and texts to train a tokenizer on, if any."""

    sources: list[dict]
    eval_source: dict | None
    tokenizer_texts: list[str]
    corpus: Corpus | None = None
    """The generated corpus, where the run trains on it and its held-out captions cover every attribute."""


def check_arguments(model_args: ModelArguments, data: DataArguments, args: PreTrainingArguments) -> None:
    """Raise a ValueError for arguments that no run can be made of. No file of theirs is opened, nothing is downloaded.

    Frozen parameters and learning rates are tried on a model without memory (the meta device).
    """
    with torch.device("meta"):
        model = TVTSv2ForPreTraining._from_config(
            read_preset(model_args), attn_implementation=model_args.attn_implementation
        )
    crop = model.config.vision_config.image_size
    if model_args.shortest_edge is not None and model_args.shortest_edge < crop:
        raise ValueError(
            f"shortest_edge must be at least {crop}, the side of the model's crop, got {model_args.shortest_edge}."
        )
    ParameterPlan.from_arguments(model, args)
    for name in ("learning_rate", "weight_decay"):
        is_given = getattr(args, name) != getattr(PreTrainingArguments, name)
        if is_given and all(rule.get("frozen") or rule.get(name) is not None for rule in args.parameter_rules):
            raise ValueError(f"{name} has no effect: every parameter rule that trains has its own.")
    names = [name for name, _ in model.named_parameters()]
    for glob in args.no_weight_decay:
        if not fnmatch.filter(names, glob):
            raise ValueError(f"no_weight_decay names {glob!r}, which matches no parameter.")
    count_masked_patches(model.config.vision_config.num_patches, data.mask_ratio)
    args.check_best_metric(chance_levels(1, 1))
    samples_per_step = args.train_batch_size * args.gradient_accumulation_steps
    if not data.sources:
        config = corpus_config(data, args.seed)
        TurnSampler([config.num_train_videos, config.num_train_captions], [1, 1], samples_per_step, args.seed)
    _check_sources(data)
    if data.sources and not (model_args.tokenizer or model_args.clip_checkpoint):
        raise ValueError("Give --tokenizer or --clip_checkpoint: these sources come without a tokenizer.")
    has_heldout = not data.sources or data.eval_source is not None
    args.check_evaluation(has_heldout, "name some as eval_source in the YAML")


def _check_sources(data: DataArguments) -> None:
    if not isinstance(data.sources, list):
        raise ValueError(f"sources must be a list of mappings, each behind a dash in YAML; got {data.sources!r}.")
    for source in data.sources:
        check_source(source)
    of_corpus = [name for name in ("corpus_dir", *CORPUS_SIZES) if getattr(data, name) != getattr(DataArguments, name)]
    if data.sources and of_corpus:
        raise ValueError(f"{', '.join(of_corpus)} describe the generated corpus and have no effect beside sources.")
    if data.sources:
        TurnSampler([1] * len(data.sources), [source.get("weight", 1) for source in data.sources], 1, seed=0)
    if data.eval_source is None:
        return
    if not data.sources:
        raise ValueError("eval_source needs sources beside it: the generated corpus has held-out videos of its own.")
    if check_source(data.eval_source).is_captioned:
        raise ValueError(f"eval_source needs transcripts to sort, and captions have no order; got {data.eval_source}.")
    if "weight" in data.eval_source:
        raise ValueError("eval_source takes no turns, so it has no weight.")
    heldout = _resolved(data.eval_source, "heldout")
    if heldout in (_resolved(source, "train") for source in data.sources):
        raise ValueError(f"eval_source is one of the sources: {data.eval_source}. Name videos that are not trained on.")


def _resolved(source: dict, split: str) -> dict:
    """Return a source without its weight, with its split and with absolute paths."""
    source = ({"split": split} if has_splits(source) else {}) | source
    values = {key: str(value).removeprefix("file://") for key, value in source.items() if key != "weight"}
    return {key: value.rstrip("/") if "://" in value else str(Path(value).resolve()) for key, value in values.items()}


def corpus_config(data: DataArguments, seed: int) -> CorpusConfig:
    """Return what decides the content of the generated corpus."""
    return CorpusConfig(seed, **{name: getattr(data, name) for name in CORPUS_SIZES})


def locate_data(data: DataArguments, seed: int) -> DataFiles:
    """Return the arguments' sources, or those of the generated corpus, generating what is missing of it."""
    if data.sources:
        return DataFiles(data.sources, data.eval_source, [])
    config = corpus_config(data, seed)
    # One process generates it, and the others find it finished.
    with PartialState().local_main_process_first():
        corpus = build_corpus(Path(data.corpus_dir) / f"seed{seed}", config)
    root = str(corpus.folder)
    sources = [
        {"format": "yt_temporal", "list_file": str(corpus.list_file("train")), "root": root},
        {"format": "webvid", "table": str(corpus.caption_table("train")), "root": str(corpus.caption_root)},
    ]
    heldout = {"format": "yt_temporal", "list_file": str(corpus.list_file("heldout")), "root": root}
    covers_attributes = config.num_heldout_captions >= NUM_CLIPS_PER_ROUND
    return DataFiles(sources, heldout, corpus.training_texts(), corpus if covers_attributes else None)


def uses_all_parameters(files: DataFiles, args: PreTrainingArguments) -> bool:
    """Return whether every step uses every trained parameter, so that DDP need not search for unused ones."""
    return not any(format_of(source).is_captioned for source in files.sources) and args.chunk_size is None


def build_processor(model: ModelArguments, config: TVTSv2Config, texts: Sequence[str] = ()) -> TVTSv2Processor:
    """Return the processor for a model's sizes; its tokenizer is loaded, or trained on `texts`.

    Raises:
        ValueError: a tokenizer with more tokens than the model has embeddings, or with another end of text.
    """
    text = config.text_config
    name = model.tokenizer or model.clip_checkpoint
    if name:
        tokenizer = AutoTokenizer.from_pretrained(name)
        tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)
    else:
        learned = train_sentencepiece(texts, text.vocab_size)
        tokenizer = convert_sentencepiece(learned, max_length=text.max_position_embeddings)
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model embeds {text.vocab_size}; use the tokenizer "
            "that belongs to the model, or a model with a larger text_config.vocab_size."
        )
    if tokenizer.eos_token_id != text.eos_token_id:
        raise ValueError(
            f"The tokenizer ends texts with id {tokenizer.eos_token_id}, but the model reads them off at "
            f"text_config.eos_token_id={text.eos_token_id}; use the tokenizer that belongs to the model."
        )
    vision = config.vision_config
    crop_size = {"height": vision.image_size, "width": vision.image_size}
    size = None if model.shortest_edge is None else {"shortest_edge": model.shortest_edge}
    video_processor = TVTSv2VideoProcessor(num_frames=vision.num_frames, size=size, crop_size=crop_size)
    return TVTSv2Processor(video_processor, tokenizer)


def read_preset(model: ModelArguments) -> TVTSv2Config:
    """Return the configuration of the arguments' preset."""
    start = model.temporal_attention_init
    return TVTSv2Config.from_preset(
        model.preset, vision_config={} if start is None else {"temporal_attention_init": start}
    )


def build_model(model: ModelArguments) -> TVTSv2ForPreTraining:
    """Return the model, started from a CLIP checkpoint if the arguments name one, else at random.

    Raises:
        ValueError: the checkpoint lacks something that every CLIP has, or holds something that none has.
    """
    config = read_preset(model)
    if model.clip_checkpoint is None:
        return use_fast_linear(TVTSv2ForPreTraining._from_config(config, attn_implementation=model.attn_implementation))
    trained, report = TVTSv2ForPreTraining.from_pretrained(
        model.clip_checkpoint,
        config=config,
        attn_implementation=model.attn_implementation,
        dtype="float32",
        output_loading_info=True,
    )
    new = ("temporal_attn.", "layer_norm3.", "temporal_embedding.", "sorter.")
    missing = [name for name in report["missing_keys"] if not any(part in name for part in new)]
    unexpected = list(report["unexpected_keys"])
    if missing or unexpected:
        raise ValueError(
            f"{model.clip_checkpoint} is no CLIP of preset {model.preset!r}: missing {missing[:5]}, left over "
            f"{unexpected[:5]} ({len(missing)} and {len(unexpected)} in all)."
        )
    return use_fast_linear(trained)


def build_training_data(
    files: DataFiles,
    video_processor: TVTSv2VideoProcessor,
    config: TVTSv2Config,
    data: DataArguments,
    args: PreTrainingArguments,
) -> tuple[MixedSources, TurnSampler]:
    """Return the training samples and their order.

    Raises:
        ValueError: a source is described wrongly, broken, or smaller than a step.
        FileNotFoundError: its files are missing.
    """
    settings = {"num_clips": config.num_transcripts, "min_words": data.min_words, "seed": args.seed}
    samples = MixedSources(
        [ClipDataset(open_source(source), video_processor, **settings) for source in files.sources],
        num_patches=config.vision_config.num_patches,
        mask_ratio=data.mask_ratio,
        seed=args.seed,
        broken_videos_file=Path(args.output_dir) / BROKEN_VIDEOS_FILE,
    )
    sampler = TurnSampler(
        [len(source) for source in samples.sources],
        [source.get("weight", 1) for source in files.sources],
        args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        args.seed,
    )
    return samples, sampler


def build_heldout_data(
    files: DataFiles, video_processor: TVTSv2VideoProcessor, config: TVTSv2Config, data: DataArguments
) -> ClipDataset | None:
    """Return the held-out videos, at fixed places and without masks, or None where the run has none.

    Raises:
        ValueError: the source is broken, or has no held-out videos.
        FileNotFoundError: its files are missing.
    """
    source = files.eval_source
    if source is None:
        return None
    if has_splits(source):
        source = {"split": "heldout", **source}
    settings = {"num_clips": config.num_transcripts, "min_words": data.min_words, "deterministic": True}
    return ClipDataset(open_source(source), video_processor, **settings)


def check_heldout(samples: MixedSources, heldout: ClipDataset | None) -> None:
    """Raise a ValueError where a held-out video is also trained on, as far as sources name their videos."""
    names = set() if heldout is None else set(heldout.videos.names())
    shared = {name for source in samples.sources for name in source.videos.names() if name in names}
    if shared:
        raise ValueError(
            f"{len(shared)} of {len(names)} held-out videos are trained on, too, such as {min(shared)}. Take them out "
            "of the sources or of eval_source."
        )
