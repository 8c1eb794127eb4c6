"""Wrong settings are named."""

import pytest
import yaml

from benchmarks.study.settings import read_study
from tests.benchmarks.study.conftest import SMALLEST


@pytest.mark.parametrize(
    "change, message",
    [
        ({"post": None}, "PostSettings.* must be a mapping"),
        ({"sedes": [1]}, "unexpected keyword argument 'sedes'"),
        ({"seeds": [0, "one"]}, "index 1 in list 'seeds'"),
        ({"arms": [{"name": "a", "sources": ["x"]}]}, "'x'"),
        ({"arms": [{"name": "a"}, {"name": "a", "sorts": False}]}, "each with a name of its own, got .'a', 'a'."),
    ],
)
def test_settings_say_what_is_wrong(tmp_path, change, message):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SMALLEST.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_study(file)
