"""`tvtsv2 serve`: embeddings of texts and videos over HTTP."""

import argparse
import os

from tvtsv2.errors import ArgumentError, check_revision

HELP = "embeddings over HTTP, in OpenAI's form"
DESCRIPTION = """\
Serve embeddings over HTTP, in the form of OpenAI's POST /v1/embeddings.

  tvtsv2 serve MODEL
  tvtsv2 serve MODEL --port 8000 --videos /data/videos

  curl localhost:8000/v1/embeddings -H 'Content-Type: application/json' -d '{"input": ["a red star", "a dog"]}'
  curl localhost:8000/v1/embeddings -F file=@video.mp4
  … -d '{"input": [{"video": "<base64>"}, {"video_path": "below/the/folder.mp4"}, {"text": "a red star"}]}'

Embeddings have length 1, so that a dot product is a cosine. Inputs of concurrent requests go through the model in
batches; videos are read in processes of their own, where a file that crashes the decoder affects no other request.
{"video_path": …} works for files below --videos only. There is no authentication: keep the address local, or put a
proxy in front. Needs: pip install 'tvtsv2[serve]'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s; 0: any free one)")
    parser.add_argument("--videos", metavar="FOLDER", help="folder whose files may be named by path")
    parser.add_argument("--batch_size", type=int, default=8, help="inputs through the model at a time (%(default)s)")
    parser.add_argument("--workers_per_device", type=int, default=1, help="processes with a model each (%(default)s)")
    parser.add_argument("--num_readers", type=int, default=2, help="processes that read videos (%(default)s)")
    parser.add_argument("--max_inputs", type=int, default=256, help="per request (%(default)s)")
    parser.add_argument("--max_waiting", type=int, default=512, help="inputs; more get status 429 (%(default)s)")
    parser.add_argument("--max_megabytes", type=int, default=200, help="per request (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_revision(arguments.model, arguments.revision)
    for name in ("batch_size", "workers_per_device", "num_readers", "max_inputs", "max_waiting", "max_megabytes"):
        if getattr(arguments, name) < 1:
            raise ArgumentError(f"--{name} must be at least 1, got {getattr(arguments, name)}.")
    if arguments.videos is not None and not os.path.isdir(arguments.videos):
        raise ArgumentError(f"--videos must name a folder, got {arguments.videos}.")
    if not 0 <= arguments.port < 2**16:
        raise ArgumentError(f"--port must be between 0 and 65535, got {arguments.port}.")
    try:
        from tvtsv2.serving.embedding_spec import EmbeddingSpec, Limits
        from tvtsv2.serving.model_worker import ModelWorker
        from tvtsv2.serving.server import run_server
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"Serving needs {error.name}: pip install 'tvtsv2[serve]'") from error
    from tvtsv2.models.model_loading import load_config, load_processor
    from tvtsv2.reading.reading_processes import ReadingProcesses

    config = load_config(arguments.model, revision=arguments.revision)
    processor = load_processor(arguments.model, revision=arguments.revision)
    limits = Limits(arguments.max_inputs, arguments.max_waiting, arguments.max_megabytes * 2**20)
    with ReadingProcesses(processor.video_processor, arguments.num_readers) as readers:
        spec = EmbeddingSpec(readers, arguments.model, config.projection_dim, arguments.videos, limits)
        worker = ModelWorker(
            arguments.model, arguments.revision, dtype=arguments.dtype, batch_size=arguments.batch_size, spec=spec
        )
        return run_server(
            worker, limits, workers_per_device=arguments.workers_per_device, host=arguments.host, port=arguments.port
        )
