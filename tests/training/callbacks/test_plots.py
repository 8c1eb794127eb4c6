"""Pictures are files that show what they were given."""

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
import torch

from training.callbacks.plots import RIGHT, WRONG, draw_sorted_videos, plot_losses


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved, to look into."""
    saved = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return saved


def test_losses_over_steps_beside_guessing(figures, tmp_path):
    history = [
        {"step": 1, "loss": 9.0, "contrastive_loss": 6.0, "sorting_loss": 3.0},
        {"step": 2, "loss": 5.0, "contrastive_loss": 5.0},  # captions are not sorted
        {"step": 3, "eval_loss": 8.0},
        {"step": 4, "loss": 4.5, "contrastive_loss": 2.5, "sorting_loss": 2.0},
    ]
    plot_losses(history, tmp_path / "losses.png", num_transcripts=4, sorting_loss_weight=2.0)
    contrastive, sorting = figures[0].axes
    assert contrastive.lines[0].get_xydata().tolist() == [[1, 6], [2, 5], [4, 2.5]]
    assert sorting.lines[0].get_xydata().tolist() == [[1, 3], [4, 2]]
    assert sorting.lines[1].get_ydata()[0] == pytest.approx(2 * np.log(4))
    assert matplotlib.image.imread(tmp_path / "losses.png").std() > 0


def test_a_run_without_steps_still_has_its_picture(tmp_path):
    plot_losses([], tmp_path / "losses.png", num_transcripts=4, sorting_loss_weight=2.0)
    assert (tmp_path / "losses.png").is_file()


def test_sheet_shows_frames_and_both_orders(figures, tmp_path):
    frames = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    said = ["it moves", "it turns", "costs $5 and $6", "it goes"]
    samples = [
        {"frames": frames, "transcripts": said, "video_id": "heldout/1"},
        {"frames": frames, "transcripts": said, "video_id": "heldout/2"},
    ]
    right = 9 * np.eye(4)
    turned = right[[1, 2, 0, 3]]  # transcript 0 is put in place 1, 1 in place 2, 2 in place 0
    path = tmp_path / "sheet.png"
    draw_sorted_videos(samples, np.stack([right, turned]), path)

    first, second = figures[0].axes
    strip = first.images[0].get_array()
    assert strip.shape == (8, 32, 3)
    for index, frame in enumerate(frames):
        shown = strip[:, 8 * index : 8 * index + 8]
        assert (shown == frame.numpy()).all()
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["heldout/1", "heldout/2"]
    texts = [text.get_text() for text in first.texts]
    assert [text.split(":")[1].strip() for text in texts[::2]] == [text.replace("$", r"\$") for text in said]
    assert [text.get_color() for text in first.texts][1::2] == [RIGHT] * 4
    guesses = second.texts[1::2]
    assert [text.get_color() for text in guesses] == [WRONG, WRONG, WRONG, RIGHT]
    assert [text.get_text() for text in guesses[1:3]] == ["predicted: it moves", "predicted: it turns"]
    assert path.stat().st_size > 1000
