"""`tvtsv2 convert`: a checkpoint of the authors' release to a model folder."""

import argparse

HELP = "a checkpoint of the authors' release -> a model folder"
DESCRIPTION = """\
Convert a checkpoint of the TVTSv2 release (B/32, B/16 or H/14; with or without the sorter) to a folder for
from_pretrained. The file is opened without executing anything in it, and every tensor must fit.

  tvtsv2 convert TVTSv2_B_16.pth tvtsv2-b16 --tokenizer openai/clip-vit-base-patch16

The release's licence grants nothing for its weights: what you may do with them is between you and their authors."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("checkpoint", help="the release's .pth file")
    parser.add_argument("output_dir", help="folder to write; must be new or empty")
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or hub name of the CLIP tokenizer, to write a processor too; without it the folder embeds no "
        "texts and reads no files",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command and returns its exit code."""
    from transformers import AutoTokenizer

    from modeling_tvtsv2 import TVTSv2Config
    from modeling_tvtsv2.convert_checkpoint import convert_checkpoint
    from processing import TVTSv2Processor, TVTSv2VideoProcessor
    from processing.atomic_files import whole_folder

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer) if arguments.tokenizer else None
    with whole_folder(arguments.output_dir) as folder:
        model_class = convert_checkpoint(arguments.checkpoint, str(folder))
        if tokenizer is not None:
            config = TVTSv2Config.from_pretrained(folder)
            size = config.vision_config.image_size
            video_processor = TVTSv2VideoProcessor(
                num_frames=config.vision_config.num_frames, crop_size={"height": size, "width": size}
            )
            TVTSv2Processor(video_processor, tokenizer).save_pretrained(folder)
    print(f"{model_class.__name__} written to {arguments.output_dir}")
    if tokenizer is not None:
        print(f"Check it with: tvtsv2 verify {arguments.output_dir}")
    return 0
