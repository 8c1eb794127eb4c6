"""Both losses against loops over pairs, against torch's cross-entropy, and at their known limits."""

import math

import pytest
import torch

from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss, sorting_loss


def slow_contrastive_loss(video_embeds, text_embeds, temperature):
    """InfoNCE pair by pair: for each video the texts compete, for each text the videos; both means are added."""
    batch_size = len(video_embeds)

    def logit(video, text):
        cosine = video_embeds[video] @ text_embeds[text] / (video_embeds[video].norm() * text_embeds[text].norm())
        return cosine.item() / temperature

    loss = 0.0
    for own in range(batch_size):
        among_texts = sum(math.exp(logit(own, text)) for text in range(batch_size))
        among_videos = sum(math.exp(logit(video, own)) for video in range(batch_size))
        loss -= math.log(math.exp(logit(own, own)) / among_texts) / batch_size
        loss -= math.log(math.exp(logit(own, own)) / among_videos) / batch_size
    return loss


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_contrastive_loss_equals_the_loop(temperature):
    video_embeds, text_embeds = 3 * torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    expected = slow_contrastive_loss(video_embeds, text_embeds, temperature)
    assert contrastive_loss(video_embeds, text_embeds, temperature).item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_loss_ignores_lengths_and_knows_its_default_temperature():
    video_embeds, text_embeds = torch.randn(5, 7), torch.randn(5, 7)
    scaled = contrastive_loss(video_embeds * torch.rand(5, 1).add(0.1), text_embeds * 9, 0.05)
    torch.testing.assert_close(scaled, contrastive_loss(video_embeds, text_embeds))


def test_contrastive_loss_is_symmetric():
    video_embeds, text_embeds = torch.randn(5, 7), torch.randn(5, 7)
    torch.testing.assert_close(contrastive_loss(video_embeds, text_embeds), contrastive_loss(text_embeds, video_embeds))


def test_contrastive_loss_limits():
    same = torch.ones(6, 3)
    assert contrastive_loss(same, same).item() == pytest.approx(2 * math.log(6))  # nothing to tell videos apart by
    assert contrastive_loss(torch.eye(6), torch.eye(6)).item() < 1e-6
    assert contrastive_loss(torch.randn(1, 3), torch.randn(1, 3)).item() == 0  # a batch of one has no negatives


def test_contrastive_loss_of_bfloat16_embeddings_is_float32():
    video_embeds, text_embeds = torch.randn(5, 7), torch.randn(5, 7)
    loss = contrastive_loss(video_embeds.bfloat16(), text_embeds.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, contrastive_loss(video_embeds, text_embeds), rtol=0.1, atol=0)


@pytest.mark.parametrize(("video_shape", "text_shape"), [((5, 7), (4, 7)), ((5, 7), (5, 6)), ((5, 2, 7), (5, 2, 7))])
def test_contrastive_loss_names_shapes_that_do_not_fit(video_shape, text_shape):
    with pytest.raises(ValueError, match=r"same shape \(batch, width\), got \(5, .*\) and"):
        contrastive_loss(torch.ones(video_shape), torch.ones(text_shape))


def test_sorting_loss_equals_the_loop():
    logits, labels = torch.randn(3, 4, 4, dtype=torch.float64), torch.stack([torch.randperm(4) for _ in range(3)])
    rows = [
        torch.nn.functional.cross_entropy(logits[video, transcript], labels[video, transcript])
        for video in range(3)
        for transcript in range(4)
    ]
    expected = sum(row.item() for row in rows) / len(rows)
    assert sorting_loss(logits, labels).item() == pytest.approx(2 * expected, rel=1e-6)
    assert sorting_loss(logits, labels, weight=0.5).item() == pytest.approx(0.5 * expected, rel=1e-6)


def test_sorting_loss_of_a_sorter_that_knows_nothing():
    assert sorting_loss(torch.zeros(2, 4, 4), torch.arange(4).repeat(2, 1)).item() == pytest.approx(2 * math.log(4))


def test_sorting_loss_names_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(batch, transcripts\) = \(2, 4\), got \(2, 3\)"):
        sorting_loss(torch.zeros(2, 4, 4), torch.zeros(2, 3, dtype=torch.long))
