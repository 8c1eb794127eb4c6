"""The speed benchmark compares like with like, and notices where it does not."""

import pytest
import torch

from benchmarks.speed.towers.__main__ import format_table
from benchmarks.speed.towers.timing import time_alternately
from benchmarks.speed.towers.workloads import (
    OURS,
    REFERENCE,
    assert_equal,
    make_model,
    text_forward,
    training_step,
    video_forward,
)

CPU = torch.device("cpu")


@pytest.fixture
def model():
    return make_model("tiny", CPU)


@pytest.mark.parametrize("make", [video_forward, text_forward], ids=["video", "text"])
def test_the_slow_reference_computes_the_same_embeddings(make, model):
    workload = make(model, 2, torch.float32)
    distances = assert_equal(workload, workload.outputs[REFERENCE](), "float32")
    assert set(distances) == {OURS, REFERENCE}


@pytest.mark.parametrize("make", [video_forward, text_forward], ids=["video", "text"])
def test_counting_flops_leaves_the_timed_model_its_fused_attention(make, model, monkeypatch):
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or fused(*args, **kw)
    )
    for _ in range(2):  # a second workload of the same model too
        calls.clear()
        make(model, 1, torch.float32).contenders[OURS]()
        assert calls


def test_the_slow_reference_takes_the_same_training_step(model):
    workload = training_step(model, "tiny", 2, torch.float32)
    before = workload.outputs[OURS]()
    torch.testing.assert_close(before, workload.outputs[REFERENCE](), rtol=1e-5, atol=0)
    workload.contenders[OURS]()
    assert not torch.equal(workload.outputs[OURS](), before), "the step trained nothing"


def test_a_wrong_result_is_noticed(model):
    workload = video_forward(model, 1, torch.float32)
    workload.outputs[OURS] = lambda: workload.outputs[REFERENCE]() * 1.01
    with pytest.raises(AssertionError, match="away from the reference"):
        assert_equal(workload, workload.outputs[REFERENCE](), "float32")


def test_contenders_take_turns():
    calls = []
    timings = time_alternately({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, repeats=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]  # the first of each warms up
    assert [len(timing.seconds) for timing in timings.values()] == [2, 2]


def test_table_has_a_line_for_each_row():
    result = {"median_ms": 100.0, "peak_mib": 10.0, "mfu": 0.5, "speedup": 2.0}
    row = {"part": "video", "preset": "b16", "dtype": "float32", "batch_size": 4}
    lines = format_table([row | {"results": {REFERENCE: result, OURS: result}}]).splitlines()
    assert lines[-1] == "| video tower | b16 | float32 | 4 | 100 ms | 100 ms | 2.00 | 100% | 50% |"
