"""How arms are trained: what is frozen, the weights of the losses, where runs start, batches and masks."""

import re

import pytest
import torch

from benchmarks.study.models import start_from_clip
from benchmarks.study.runs import make_trainer
from benchmarks.study.sentences import SPOKEN
from benchmarks.study.settings import Arm
from benchmarks.study.training_loop import Source
from tests.benchmarks.study.conftest import SEED


@pytest.mark.parametrize(
    "arm, frozen",
    [
        (Arm("partly", num_tuned_blocks=1), r"text_model\.encoder\.layers\.0\..*"),
        (Arm("frozen", num_tuned_blocks=0, tunes_rest_of_text=False), r"text_(model|projection)\..*"),
        (Arm("full", num_tuned_blocks=2), r"nothing"),
    ],
    ids=lambda value: value.name if isinstance(value, Arm) else "",
)
def test_frozen_text_stays_bit_equal_and_the_rest_moves(study_folder, arm, frozen):
    trainer, _ = make_trainer(study_folder, SEED, arm)
    before = {name: each.detach().clone() for name, each in trainer.model.named_parameters()}
    trainer.train(3)
    after = dict(trainer.model.named_parameters())
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    expected = {name for name in before if re.fullmatch(frozen, name)}
    # A key's bias cannot move (softmax cancels it); time attention starts at a saddle (see training's notes).
    exempt = {name for name in before if name.endswith("k_proj.bias") or ".temporal_attn." in name}
    assert stayed - exempt == expected - exempt


def test_weight_of_contrast_scales_its_gradient_and_not_that_of_sorting(study_folder):
    gradients = []
    for weight in (1.0, 1 / 80):
        trainer, _ = make_trainer(study_folder, SEED, Arm("x", contrastive_loss_weight=weight, adam_epsilon=1e-6))
        trainer.train(1)
        assert trainer.optimizer.defaults["eps"] == 1e-6
        model = trainer.model
        gradients.append((model.text_projection.weight.grad.clone(), model.sorter.head.weight.grad.clone()))
    (text, sorter), (weighted_text, weighted_sorter) = gradients
    # Only the contrastive loss reaches the text tower, only the sorting loss the sorter.
    assert torch.allclose(weighted_text, text / 80, rtol=1e-4, atol=1e-9)
    assert torch.equal(weighted_sorter, sorter) and sorter.abs().max() > 0


def test_runs_of_a_seed_start_from_the_same_clip(study_folder):
    clip = study_folder.clip(SEED)
    one, other = (start_from_clip(clip, study_folder.study, arm, SEED) for arm in (Arm("a"), Arm("b", mask_ratio=0.0)))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    loaded = study_folder.start(clip).model.state_dict()
    shared = [name for name in one.state_dict() if name in loaded]
    assert len(shared) > 40
    assert all(torch.equal(one.state_dict()[name], loaded[name]) for name in shared)


def test_without_stop_gradient_the_values_are_the_same_and_sorting_reaches_the_text(study_folder):
    gradients, losses = [], []
    for stops in (True, False):
        trainer, _ = make_trainer(study_folder, SEED, Arm("x", stop_gradient=stops, num_tuned_blocks=2))
        outputs = trainer.model(**trainer.sources[0].next_batch())
        losses.append(outputs.sorting_loss.item())
        outputs.sorting_loss.backward()
        gradient = trainer.model.text_projection.weight.grad
        gradients.append(None if gradient is None else gradient.abs().max().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert not gradients[0]
    assert gradients[1] > 0


def test_random_time_attention_starts_as_the_specified_one_does(study_folder):
    batch = make_trainer(study_folder, SEED, Arm("x"))[0].sources[0].next_batch()["pixel_values_videos"]
    arms = (Arm("specified"), Arm("random", random_time_attention=True))
    models = [start_from_clip(study_folder.clip(SEED), study_folder.study, arm, SEED).eval() for arm in arms]
    one, other = (model.get_video_features(batch).pooler_output for model in models)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert models[1].vision_model.encoder.layers[0].temporal_attn.q_proj.weight.abs().max() > 0


def test_a_source_too_small_for_a_batch_says_so(study_folder, synthetic):
    tokenizer = study_folder.start(study_folder.clip(SEED)).tokenizer
    texts = synthetic.narrated.say(SPOKEN, SEED)
    with pytest.raises(ValueError, match="8 samples never fill a batch of 9"):
        Source(synthetic.narrated, texts, tokenizer, batch_size=9, num_patches=4, mask_ratio=0.5, seed=0)


def test_batches_go_through_all_clips_and_shuffle_transcripts(study_folder, synthetic):
    tokenizer = study_folder.start(study_folder.clip(SEED)).tokenizer
    texts = synthetic.narrated.say(SPOKEN, SEED)
    source = Source(synthetic.narrated, texts, tokenizer, batch_size=4, num_patches=4, mask_ratio=0.5, seed=0)
    batches = [source.next_batch() for _ in range(2)]
    spoken = set()
    for batch in batches:
        assert batch["bool_masked_pos"].sum(dim=1).tolist() == [2] * 4
        for ids, order in zip(batch["input_ids"], batch["sorting_labels"], strict=True):
            in_time = [ids[list(order).index(place)] for place in range(4)]
            spoken.add(tuple(tokenizer.decode(each, skip_special_tokens=True) for each in in_time))
    assert spoken == {tuple(each) for each in texts}
    assert not all(batch["sorting_labels"].equal(torch.arange(4).expand(4, 4)) for batch in batches)
