"""TVTSv2 models: tensors in, tensors out.

The import adds the models to transformers' Auto classes and pipelines. Saving a model copies its
code into the folder, which then loads with `trust_remote_code=True` where this package is not installed.
"""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_tvtsv2.configuration_tvtsv2 import TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig
from modeling_tvtsv2.modeling_tvtsv2 import (
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2PreTrainedModel,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from modeling_tvtsv2.pipelines_tvtsv2 import (
    TVTSv2VideoFeatureExtractionPipeline,
    TVTSv2ZeroShotVideoClassificationPipeline,
)

for _config in (TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig):
    AutoConfig.register(_config.model_type, _config)
for _auto_class, _config, _model in (
    (AutoModel, TVTSv2Config, TVTSv2Model),
    (AutoModel, TVTSv2TextConfig, TVTSv2TextModel),
    (AutoModel, TVTSv2VisionConfig, TVTSv2VisionModel),
    (AutoModelForPreTraining, TVTSv2Config, TVTSv2ForPreTraining),
    (AutoModelForVideoClassification, TVTSv2Config, TVTSv2ForVideoClassification),
):
    _auto_class.register(_config, _model)
for _task, _pipeline in (
    ("zero-shot-video-classification", TVTSv2ZeroShotVideoClassificationPipeline),
    ("video-feature-extraction", TVTSv2VideoFeatureExtractionPipeline),
):
    PIPELINE_REGISTRY.register_pipeline(_task, pipeline_class=_pipeline, pt_model=AutoModel, type="multimodal")

__all__ = [
    "TVTSv2Config",
    "TVTSv2ForPreTraining",
    "TVTSv2ForVideoClassification",
    "TVTSv2Model",
    "TVTSv2PreTrainedModel",
    "TVTSv2TextConfig",
    "TVTSv2TextModel",
    "TVTSv2VisionConfig",
    "TVTSv2VisionModel",
]
