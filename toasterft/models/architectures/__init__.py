"""What an estimate needs to know of a vision-language model, read from its configuration files alone.

`shape_from_config` takes the content of `config.json` (and `preprocessor_config.json`) as plain dicts.
Keys that a file leaves out get the default of the configuration class that transformers 5.17 builds
for that `model_type`; `tests/unit/test_shapes.py` holds every count against the real model classes on
the meta device. Counts are numbers of parameters, not bytes.

    shape       the facts of one model, and the parameters they come to
    parts       what several families have: decoders, the SigLIP tower
    families    configuration files become a shape, family by family
"""

from toasterft.models.architectures.common import Config
from toasterft.models.architectures.shapes import shape_from_config
from toasterft.models.shape import ConnectorShape, ModelShape, TextShape, VisionShape

__all__ = ["Config", "ConnectorShape", "ModelShape", "TextShape", "VisionShape", "shape_from_config"]
