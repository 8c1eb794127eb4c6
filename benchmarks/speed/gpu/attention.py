"""Flex attention's backward pass, CUDA graphs and torch.compile."""

import time
from collections.abc import Callable

import torch

from benchmarks.speed.gpu.contrast import backward, flat_gradient
from benchmarks.speed.towers.timing import time_alternately
from benchmarks.speed.towers.workloads import distance, draw_batch, make_model

# Two orders of the same bfloat16 sums in twelve blocks; either is 0.01 from the float32 result.
BFLOAT16_DISTANCE = 0.03


def check_flex_attention(setting, report: Callable) -> None:
    """Report gradients and step times of flex attention beside fused attention, for two blocks of each tower of b16.

    Raises:
        AssertionError: the gradients differ by more than bfloat16 explains.
    """
    device = torch.device(setting.device)
    if device.type == "cpu":
        report("backward", "PyTorch has no backward pass of flex attention on a CPU")
        return
    model = make_model("tiny" if setting.is_small else "b16", device, num_layers=2).train()
    del model.text_model.encoder.layers[2:]
    batch = draw_batch(model.config, 2 if setting.is_small else 8, 0.5, device)
    backward(model, batch, None, torch.float32)
    gradients = {"exact": flat_gradient(model)}
    steps = {}
    for implementation in ("sdpa", "flex_attention"):
        model.set_attn_implementation(implementation)
        started = time.perf_counter()
        backward(model, batch, None)
        gradients[implementation] = flat_gradient(model)
        report(f"{implementation}_first_step_seconds", round(time.perf_counter() - started, 2))
    distances = {name: distance(gradients[name], gradients["exact"]) for name in ("sdpa", "flex_attention")}
    report("distance_from_float32", distances)
    assert distances["flex_attention"] <= 2 * distances["sdpa"] + 2**-9, distances

    def step(implementation: str) -> None:
        model.set_attn_implementation(implementation)
        backward(model, batch, None)

    steps = {name: (lambda name=name: step(name)) for name in ("sdpa", "flex_attention")}
    timings = time_alternately(steps, device, setting.repeats)
    report("steps", {name: timing.record() for name, timing in timings.items()})


def _embedding(setting, batch_size: int) -> tuple[Callable[[], torch.Tensor], torch.nn.Module, torch.Tensor]:
    """Return a function that embeds a batch of videos with b16 in bfloat16, the model and the videos."""
    device = torch.device(setting.device)
    model = make_model(*(("tiny", device, 1) if setting.is_small else ("b16", device))).to(torch.bfloat16)
    videos = draw_batch(model.config, batch_size, 0.0, device)["pixel_values_videos"].to(torch.bfloat16)

    @torch.no_grad()
    def embed() -> torch.Tensor:
        return model.get_video_features(videos, class_token_only=True).pooler_output

    return embed, model, videos


def measure_cuda_graph(setting, report: Callable) -> None:
    """Report one video and eight through the video tower, launched one by one and replayed as a CUDA graph."""
    device = torch.device(setting.device)
    for batch_size in (1,) if setting.is_small else (1, 8):
        embed, _, _ = _embedding(setting, batch_size)
        expected = embed()
        contenders = {"eager": embed}
        if device.type == "cuda":
            graph, output = _capture(embed)
            contenders["cuda graph"] = graph.replay
            graph.replay()
            apart = distance(output.float(), expected.float())
            report(f"batch_{batch_size}_distance", apart)
            assert apart < BFLOAT16_DISTANCE, "the graph computes something else"
        timings = time_alternately(contenders, device, setting.repeats)
        report(f"batch_{batch_size}", {name: timing.record() for name, timing in timings.items()})


def _capture(run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    return graph, output


def measure_compile(setting, report: Callable) -> None:
    """Report the video tower under torch.compile: seconds to compile, times at batches of 1 and 8, distance."""
    device = torch.device(setting.device)
    modes = {"default": {}, "reduce-overhead": {"mode": "reduce-overhead"}}
    if device.type == "cpu":
        modes = {"aot_eager": {"backend": "aot_eager"}}
    for name, options in modes.items():
        for batch_size in (1,) if setting.is_small else (8, 1):
            embed, model, videos = _embedding(setting, batch_size)
            expected = embed()
            compiled = torch.compile(model.get_video_features, fullgraph=True, dynamic=False, **options)

            @torch.no_grad()
            def embed_compiled(compiled=compiled, videos=videos) -> torch.Tensor:
                return compiled(videos, class_token_only=True).pooler_output

            started = time.perf_counter()
            output = embed_compiled().float()
            seconds = time.perf_counter() - started
            timings = time_alternately({"eager": embed, "compiled": embed_compiled}, device, setting.repeats)
            report(
                f"{name}_batch_{batch_size}",
                {"compile_seconds": round(seconds, 1), "distance": distance(output, expected.float())}
                | {each: timing.record() for each, timing in timings.items()},
            )
