"""Files, arrays and text to the model's tensors. The import adds the processors to the Auto classes."""

from transformers import AutoProcessor, AutoVideoProcessor

from modeling_tvtsv2 import TVTSv2Config

from .frame_settings_tvtsv2 import interval_midpoint_indices, linspace_indices, random_interval_indices
from .processing_tvtsv2 import TVTSv2Processor
from .reader_container_tvtsv2 import VideoLimits, VideoReadingError
from .reader_metadata_tvtsv2 import VideoFileMetadata, VideoWindowError
from .reader_tvtsv2 import read_video, read_windows
from .video_processing_tvtsv2 import TVTSv2VideoProcessor

TVTSv2VideoProcessor.register_for_auto_class("AutoVideoProcessor")
TVTSv2Processor.register_for_auto_class("AutoProcessor")
AutoVideoProcessor.register(TVTSv2Config, TVTSv2VideoProcessor)
AutoProcessor.register(TVTSv2Config, TVTSv2Processor)

__all__ = [
    "TVTSv2Processor",
    "TVTSv2VideoProcessor",
    "VideoFileMetadata",
    "VideoLimits",
    "VideoReadingError",
    "VideoWindowError",
    "interval_midpoint_indices",
    "linspace_indices",
    "random_interval_indices",
    "read_video",
    "read_windows",
]
