"""Where settings come from, who wins, and what is said about those that do not exist."""

import contextlib
import dataclasses
import json
import typing
from functools import partial

import pytest

from tests.support.paths import ROOT
from training.arguments import (
    DEFAULT_CONFIG,
    DataArguments,
    ModelArguments,
    PlanArguments,
    PreTrainingArguments,
)
from training.command_line import parse_arguments, read_config
from training.finetuning.arguments import FinetuningArguments, FinetuningTrainingArguments
from training.run_pretrain import main


def write_config(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def error_of(capsys, command_line):
    """What is said on the way out."""
    with pytest.raises(SystemExit) as stop:
        parse_arguments(command_line)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 + error.count("\n  ")
    return " ".join(error.split())


def test_without_arguments_the_tiny_recipe():
    model, data, args, _ = parse_arguments([])
    assert (model.preset, data.mask_ratio, args.per_device_train_batch_size) == ("tiny", 0, 32)
    assert args.parameter_rules[0] == {"match": "text_model.encoder.layers.0.*", "frozen": True}
    assert args.report_to == ["tensorboard"]
    assert (args.eval_strategy, args.eval_steps, args.save_steps) == ("steps", 200, 200)
    assert DEFAULT_CONFIG.is_file()


def test_the_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path):
    settings = ("preset: b32", "learning_rate: 2.0e-4", "mask_ratio: 0.25", "seed: 5", "lr_milestones: [6, 8]")
    config = write_config(tmp_path, "\n".join((*settings, "lr_scheduler_type: constant")))
    model, data, args, _ = parse_arguments([config, "--learning_rate", "3e-4", "--min_words", "2"])
    assert model.preset == "b32"  # YAML
    assert args.learning_rate == 3e-4  # both
    assert (data.mask_ratio, data.min_words) == (0.25, 2)
    assert (args.seed, args.lr_milestones, args.lr_milestone_factor) == (5, [6, 8], 0.1)
    assert args.max_steps == -1  # neither: the tiny recipe's steps are not mixed in


def test_of_several_yaml_files_the_later_ones_win(tmp_path):
    for name, text in (("one.yaml", "preset: b32\nseed: 5\nmin_words: 2\n"), ("two.yaml", "seed: 6\n")):
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")]
    model, data, args, _ = parse_arguments([*files, "--min_words", "4"])
    assert (model.preset, args.seed, data.min_words) == ("b32", 6, 4)


def test_rates_in_yaml_without_a_point(tmp_path):
    # YAML reads 1e-4 as a string.
    args = parse_arguments([write_config(tmp_path, "learning_rate: 1e-4\n")])[2]
    assert args.learning_rate == 1e-4


def test_a_bare_no_in_yaml_is_a_strategy(tmp_path):
    args = parse_arguments([write_config(tmp_path, "eval_strategy: no\nsave_strategy: no\n")])[2]
    assert (args.eval_strategy, args.save_strategy) == ("no", "no")


def test_unknown_yaml_key_shows_near_misses(tmp_path, capsys):
    config = write_config(tmp_path, "mask_ration: 0.5\n")
    with pytest.raises(ValueError, match=r"unknown key 'mask_ration'; did you mean 'mask_ratio'"):
        read_config(config)
    assert "did you mean 'mask_ratio'" in error_of(capsys, [config])


def test_unknown_yaml_key_without_near_misses(tmp_path):
    with pytest.raises(ValueError, match=r"unknown key 'qqqq'; see run_pretrain\.py --help"):
        read_config(write_config(tmp_path, "qqqq: 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("- preset\n", "must hold settings by name, got a list"), ("a: [", "cannot be read"), ("just words", "got a str")],
)
def test_yaml_that_holds_no_settings(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_config(write_config(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("mask_ratio", value) for value in ([1], None, True)),
        *(("lr_milestones", value) for value in (6, "6")),
        *(("max_steps", value) for value in (10.5, None, [1])),
        *(("no_weight_decay", value) for value in (5, "*.bias")),
        *(("tokenizer", 5), ("output_dir", 5), ("bf16", 1), ("parameter_rules", 5), ("optim_args", 5)),
        *(("sources", {}), ("eval_source", []), ("metric_for_best_model", 5), ("attn_implementation", None)),
    ],
)
def test_values_of_another_type_in_yaml_are_errors(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"has {name}: .*, which is no [^<]+$"):
        read_config(write_config(tmp_path, json.dumps({name: value})))


def test_values_of_the_right_type_in_yaml(tmp_path):
    settings = {"mask_ratio": 0, "max_steps": "10", "lr_milestones": [6], "tokenizer": None, "fsdp_config": {}}
    assert read_config(write_config(tmp_path, json.dumps(settings))) == settings


def test_missing_yaml_file_is_named(tmp_path, capsys):
    assert "nowhere.yaml" in error_of(capsys, [str(tmp_path / "nowhere.yaml")])


def test_empty_yaml_is_all_defaults(tmp_path):
    assert read_config(write_config(tmp_path, "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        (["--mask_ration", "0.5"], "There is no option --mask_ration; did you mean 'mask_ratio'"),
        (["--seed", "many"], "invalid int value"),
        (["--resume_from_checkpoint", "outputs"], "a run resumes by itself at the last checkpoint"),
        (["--temporal_attention_init", "zero"], "temporal_attention_init must be released or identity, got 'zero'"),
        (["--data_seed", "3"], "--seed decides the order of the data, too"),
        (["--train_sampling_strategy", "sequential"], "train_sampling_strategy must be random, got sequential"),
        (["--label_smoothing_factor", "0.1"], "the losses have no smoothed labels"),
        (["--do_train", "False"], "do_train must be True, got False"),
        (["--auto_find_batch_size", "True"], "planned for the given batch size"),
        (["--prediction_loss_only", "True"], "metrics need the predictions"),
        (["--accelerator_config", '{"split_batches": true}'], "split_batches must not be set"),
        (["--accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 3}}'], "kwargs must not be set"),
        (["--accelerator_config", '{"speed": 3}'], "unexpected keyword argument 'speed'"),
        (["--eval_use_gather_object", "True"], "metrics gather tensors"),
        (["--debug", "tpu_metrics_debug"], "tpu_metrics_debug has no effect"),
        (["--report_to", "codecarbon"], "report_to codecarbon: CodeCarbonCallback requires"),
        (["--save_strategy", "no", "--save_only_model", "True"], "save_only_model has no effect with save_strategy no"),
        (
            ["--eval_strategy", "no", "--metric_for_best_model", "loss", "--greater_is_better", "False"],
            "metric_for_best",
        ),
        (["--dataloader_num_workers", "0", "--dataloader_timeout", "5"], "no effect without dataloader_num_workers"),
        (["--lr_milestones", "6"], "need lr_scheduler_type constant and warmup_steps 0, got cosine and 50"),
        (["--lr_milestone_factor", "0.5"], "has no effect without lr_milestones"),
        (["--dataloader_timeout", "inf"], "dataloader_timeout must be at least 0 and finite, got inf"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size must be at least 1"),
        (["--max_steps", "0"], "max_steps must be at least 1, or -1 for num_train_epochs, got 0"),
        (["--save_steps", "0"], "save_steps must be more than 0"),
        (["--lr_milestones", "8", "6"], "ascending epochs"),
        (["--preset", "b64"], "There is no preset 'b64'"),
        (["--attn_implementation", "fast"], "fast"),
        (["--seed", "-1"], "seed must be between 0 and 4294967295, got -1"),
        (["--mask_ratio", "1.5"], "mask_ratio must be between 0 and 1, got 1.5"),
        (["--mask_ratio", "1"], "mask_ratio must lie in [0, 1)"),
        (["--report_to", "bogus"], "bogus is not supported, only"),
        (["--do_eval", "False"], "do_eval must be True, got False"),
        (["--optim_args", "bogus"], "The optimizer or its schedule cannot be built"),
        (["--adam_beta1", "2"], "Invalid beta parameter"),
        (["--lr_scheduler_kwargs", "bogus"], "lr_scheduler_kwargs must be a mapping"),
        (["--lr_scheduler_kwargs", '{"speed": 3}'], "unexpected keyword argument 'speed'"),
        (["--no_weight_decay", "biases"], "no_weight_decay names 'biases', which matches no parameter"),
        (["--torch_compile_backend", "bogus"], "torch_compile_backend must be one of"),
        (["--accelerator_config", "bogus"], "bogus"),
        (["--metric_for_best_model", "recall"], "or loss, got recall"),
        (
            ["--greater_is_better", "False"],
            "greater_is_better must be True for metric_for_best_model=text_to_video_R@1",
        ),
        (["--metric_for_best_model", "eval_video_to_text_median_rank"], "greater_is_better must be False for"),
        (["--optim_args", "momentum=0.5"], "optim_args momentum=0.5 has no effect with optim=adamw_torch"),
        (["--optim", "sgd", "--optim_args", "momentum=0.5,speed=2"], "optim_args speed=2 has no effect with optim=sgd"),
        (["--optim", "sgd", "--adam_beta2", "0.9"], "adam_beta2=0.9 has no effect with optim=sgd"),
        (["--lr_scheduler_type", "constant"], "constant has no warm-up, but warmup_steps is 50"),
        (["--save_strategy", "epoch", "--save_steps", "3"], "save_steps has no effect with save_strategy epoch"),
        (["--eval_strategy=no", "--eval-steps=3"], "eval_steps has no effect with eval_strategy no"),
        (["--save_strategy", "best", "--eval_strategy", "no"], "save_strategy best saves after evaluations"),
        (["--average_tokens_across_devices", "False"], "losses are means over videos"),
        (["--push_to_hub", "True"], "push_to_hub must be False, got True: tvtsv2 publish --push uploads"),
        (["--num_train_epochs", "5"], "num_train_epochs has no effect with max_steps 1000: set max_steps to -1"),
        (
            [str(ROOT / "training/configs/b16.yaml"), "--learning_rate", "1e-4"],
            "learning_rate has no effect: every parameter rule that trains has its own",
        ),
        (["--restore_callback_states_from_checkpoint", "True"], "no callback has a state to restore"),
        (["--hub_model_id", "me/mine"], "hub_model_id=me/mine has no effect without push_to_hub"),
        (
            ["--dataloader_num_workers", "0", "--dataloader_persistent_workers", "True"],
            "dataloader_persistent_workers=True has no effect without dataloader_num_workers",
        ),
        (["--plan_processes", "2"], "no effect without --plan"),
        (["--dataloader_drop_last", "True"], "evaluations would leave out the last videos"),
        (["--dataloader_in_order", "False"], "must see the videos in the same order"),
        (["--bf16_full_eval", "True", "--use_cpu", "True"], "evaluations use the precision of the training"),
        (["--hub_strategy", "end"], "hub_strategy=end has no effect without push_to_hub"),
        (["--eval_strategy", "no", "--eval_delay", "3"], "eval_delay=3 has no effect with eval_strategy no"),
        (["--trackio_space_id", "me/mine"], "no effect without report_to trackio"),
        (["--fsdp_config", '{"version": 2}'], "fsdp_config has no effect without fsdp"),
        (
            ["--chunk_size", "4", "--torch_empty_cache_steps", "9"],
            "torch_empty_cache_steps has no effect with chunk_size",
        ),
        (["--shortest_edge", "60"], "shortest_edge must be at least 64, the side of the model's crop, got 60"),
    ],
)
def test_bad_settings_are_errors_without_a_traceback(capsys, command_line, message):
    assert message in error_of(capsys, command_line)


@pytest.mark.parametrize("number", ["nan", "-7"])
def test_every_number_has_a_range(number):
    accepted = []
    pretraining = (ModelArguments, DataArguments, PreTrainingArguments, PlanArguments)
    for group in (*pretraining, partial(FinetuningArguments, "model", "data"), FinetuningTrainingArguments):
        for each in dataclasses.fields(getattr(group, "func", group)):
            types = typing.get_args(each.type) or (each.type,)
            if each.init and (float in types or (int in types and number == "-7")):
                with contextlib.suppress(ValueError):
                    group(**{each.name: float(number) if float in types else int(number)})
                    accepted.append(each.name)
    assert not accepted


SOURCE = {"format": "built", "dataset": "my_dataset", "videos": "my_videos"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": {"format": "built"}}, "sources: {'format': 'built'}, which is no list[dict]"),
        ({"sources": "a.csv"}, "sources: 'a.csv', which is no list[dict]"),
        ({"sources": [SOURCE | {"videos": 5}]}, "A source's videos must be text, got 5"),
        ({"sources": [SOURCE | {"weight": 0}]}, "Each source needs a weight"),
        ({"eval_source": SOURCE}, "eval_source needs sources"),
        ({"sources": [SOURCE], "eval_source": SOURCE | {"split": "train"}}, "eval_source is one of the sources"),
        (
            {
                "sources": [SOURCE | {"weight": 2}],
                "eval_source": SOURCE | {"dataset": "./my_dataset", "split": "train"},
            },
            "eval_source is one of the sources",
        ),
        ({"sources": [SOURCE], "eval_source": SOURCE | {"weight": 2}}, "it has no weight"),
        (
            {"sources": [SOURCE], "eval_source": {"format": "webvid", "table": "a.csv", "root": "."}},
            "eval_source needs transcripts to sort",
        ),
        ({"sources": [SOURCE], "num_train_videos": 5}, "num_train_videos describe the generated corpus"),
        ({"sources": [SOURCE], "eval_strategy": "no", "eval_on_start": True}, "no held-out videos"),
        ({"sources": [SOURCE]}, "no held-out videos: name some as eval_source"),
        ({"sources": [SOURCE], "eval_source": SOURCE, "tokenizer": None}, "Give --tokenizer or --clip_checkpoint"),
        ({"num_train_captions": 3, "per_device_train_batch_size": 4}, "A step takes 4 samples of one source"),
        ({"parameter_rules": [{"match": "txt_model.*", "frozen": True}, {"match": "*"}]}, "matches nothing"),
    ],
)
def test_sources_are_checked_before_any_file_is_opened(tmp_path, capsys, settings, message):
    settings = {"tokenizer": "mine", "eval_strategy": "steps", **settings}
    assert message in error_of(capsys, [write_config(tmp_path, json.dumps(settings))])


def test_held_out_videos_of_the_same_data_set_are_no_training_videos(tmp_path):
    settings = {"tokenizer": "mine", "sources": [SOURCE], "eval_source": SOURCE}
    assert parse_arguments([write_config(tmp_path, json.dumps(settings))])[1].eval_source == SOURCE


def test_help_lists_every_group_of_settings(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for name in ("config", "--preset", "--mask_ratio", "--parameter_rules", "--lr_milestones", "--learning_rate"):
        assert name in said
