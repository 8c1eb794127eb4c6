"""Records: what each holds, which paths stand in its command, and what is refused."""

import json
import math

import pytest

from benchmarks.records import make_record, write_record


def test_a_record_names_command_device_and_versions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["retrieval", "--model", str(tmp_path / "my models" / "a"), f"--videos={tmp_path}/v", "--data", "/x/y"]
    record = make_record("benchmarks.run", arguments=arguments, rows=[1])
    # Paths below the working directory become relative, so the command runs again there; others stay.
    assert record["command"] == "python -m benchmarks.run retrieval --model 'my models/a' --videos=v --data /x/y"
    assert record["rows"] == [1] and "cores" in record["device"] and "threads" in record["device"]
    assert {"python", "torch", "transformers"} <= record["versions"].keys()
    write_record(tmp_path / "new" / "record.json", record)
    assert json.loads((tmp_path / "new" / "record.json").read_text()) == record


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path, wrong):
    path = tmp_path / "record.json"
    write_record(path, {"value": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(path, {"value": wrong})
    assert json.loads(path.read_text()) == {"value": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
