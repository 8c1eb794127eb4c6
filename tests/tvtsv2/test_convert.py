"""`tvtsv2 convert`: errors of the file and of the target; the conversion itself is tested where it lives."""

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model
from tests.support.small_folder import small_processor
from tvtsv2.main import main


@pytest.fixture
def pretend_conversion(monkeypatch):
    """In place of a checkpoint of hundreds of megabytes: the smallest model, written as the conversion would."""
    import modeling_tvtsv2.convert_checkpoint as module
    from tests.support.tiny_models import make_tiny_config

    def convert(checkpoint_path: str, output_dir: str) -> type:
        TVTSv2Model(make_tiny_config()).save_pretrained(output_dir)
        return TVTSv2Model

    monkeypatch.setattr(module, "convert_checkpoint", convert)


def test_with_a_tokenizer_the_folder_is_complete(pretend_conversion, tmp_path, capsys):
    small_processor().tokenizer.save_pretrained(tmp_path / "tokenizer")
    command = ["convert", "x.pth", str(tmp_path / "model"), "--tokenizer", str(tmp_path / "tokenizer")]
    assert main(command) == 0
    assert "tvtsv2 verify" in capsys.readouterr().out
    config = TVTSv2Config.from_pretrained(tmp_path / "model")
    assert config.vision_config.num_frames == 4 and (tmp_path / "model" / "processor_config.json").is_file()
    assert main(command) == 1 and "not an empty folder" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_leaves_nothing_behind(tmp_path, capsys):
    (tmp_path / "file.pth").write_bytes(b"nothing")
    assert main(["convert", str(tmp_path / "file.pth"), str(tmp_path / "model")]) == 1
    assert "not a PyTorch checkpoint" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere.pth"), str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err.endswith("nowhere.pth: No such file or directory; check the path.\n")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert main(["convert", str(tmp_path / "other.pth"), str(tmp_path / "model")]) == 1
    assert "TVTSv2 of the release" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pth", "other.pth"]
