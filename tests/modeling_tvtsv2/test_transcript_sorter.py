"""The sorter: equal to a slow reference, blind to the order it is given, and no teacher of the text tower."""

import pytest
import torch

from benchmarks.speed.towers.release_style import ReleaseStyleModel
from modeling_tvtsv2 import TVTSv2ForPreTraining
from modeling_tvtsv2.modeling_tvtsv2 import TVTSv2TranscriptSorter
from tests.support.tiny_models import make_tiny_config, randomized


@pytest.fixture
def sorter() -> TVTSv2TranscriptSorter:
    config = make_tiny_config()
    config._attn_implementation = "sdpa"
    return randomized(TVTSv2TranscriptSorter(config)).double()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("num_video_tokens", [1, 7])
def test_sorter_equals_the_reference(num_layers, num_video_tokens):
    model = randomized(TVTSv2ForPreTraining(make_tiny_config(sorter_num_hidden_layers=num_layers))).double()
    video_tokens = torch.randn(2, num_video_tokens, 20, dtype=torch.float64)
    transcripts = torch.randn(2, 4, 20, dtype=torch.float64)
    expected = ReleaseStyleModel(model).sort(video_tokens, transcripts)
    torch.testing.assert_close(model.sorter(video_tokens, transcripts), expected, rtol=0, atol=1e-12)


def test_permuted_transcripts_permute_the_rows_and_nothing_else(sorter):
    video_tokens, transcripts = torch.randn(2, 7, 20).double(), torch.randn(2, 4, 20).double()
    order = torch.tensor([2, 0, 3, 1])
    expected = sorter(video_tokens, transcripts)[:, order]
    torch.testing.assert_close(sorter(video_tokens, transcripts[:, order]), expected, rtol=0, atol=1e-12)


def test_video_tokens_are_read(sorter):
    transcripts = torch.randn(2, 4, 20).double()
    first, second = (sorter(torch.randn(2, 7, 20).double(), transcripts) for _ in range(2))
    assert (first - second).abs().min() > 1e-6


def test_video_and_transcripts_have_types_of_their_own(sorter):
    video_tokens, transcripts = torch.randn(2, 7, 20).double(), torch.randn(2, 4, 20).double()
    with torch.no_grad():
        expected = sorter(video_tokens, transcripts)
        shift = sorter.type_embedding.weight.clone()
        sorter.type_embedding.weight.zero_()
    torch.testing.assert_close(sorter(video_tokens + shift[0], transcripts + shift[1]), expected)


def test_shuffling_the_transcripts_of_a_batch_changes_no_loss(tiny_model, tiny_batch):
    expected = tiny_model(**tiny_batch)
    order = torch.tensor([3, 1, 0, 2])
    for name in ("input_ids", "sorting_labels"):
        tiny_batch[name] = tiny_batch[name][:, order]
    shuffled = tiny_model(**tiny_batch)
    torch.testing.assert_close(shuffled.loss, expected.loss)
    torch.testing.assert_close(shuffled.sorting_logits, expected.sorting_logits[:, order])


def test_sorting_teaches_the_video_tower_and_not_the_text_tower(tiny_model, tiny_batch):
    tiny_model(**tiny_batch).sorting_loss.backward()
    # Trained by the sorting loss are the video tower up to its projection, and the sorter.
    silent = {name for name, parameter in tiny_model.named_parameters() if parameter.grad is None}
    assert silent == {name for name, _ in tiny_model.named_parameters() if name.startswith("text_")}
    for name, parameter in tiny_model.named_parameters():
        # A key's bias moves all scores of a query alike, so attention does not depend on it.
        if name not in silent and not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("uses_class_token", [True, False])
def test_the_sorter_sees_the_class_token_only_where_configured(tiny_batch, uses_class_token):
    config = make_tiny_config(sorter_uses_class_token=uses_class_token)
    model = randomized(TVTSv2ForPreTraining(config)).eval()
    expected = model(**tiny_batch).sorting_logits

    def change_class_token(module, inputs, outputs):
        outputs.last_hidden_state = outputs.last_hidden_state.clone()
        outputs.last_hidden_state[:, 0] += 1
        return outputs

    model.vision_model.register_forward_hook(change_class_token)
    assert torch.equal(model(**tiny_batch).sorting_logits, expected) is not uses_class_token


def test_a_caption_is_not_sorted(tiny_model, tiny_batch):
    tiny_batch["input_ids"] = tiny_batch["input_ids"][:, :1]
    del tiny_batch["sorting_labels"]
    outputs = tiny_model(**tiny_batch)
    assert outputs.sorting_logits is None and outputs.sorting_loss is None
    assert torch.equal(outputs.loss, outputs.contrastive_loss)


def test_without_labels_there_are_logits_but_no_sorting_loss(tiny_model, tiny_batch):
    del tiny_batch["sorting_labels"]
    outputs = tiny_model(**tiny_batch)
    assert outputs.sorting_logits.shape == (2, 4, 4) and outputs.sorting_loss is None
    assert torch.equal(outputs.loss, outputs.contrastive_loss)
