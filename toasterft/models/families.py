"""Where the parts of each supported architecture sit, by `model_type`.

Paths are attribute paths below the `…ForConditionalGeneration` module (transformers 5.17).
"""

from __future__ import annotations

from dataclasses import dataclass

from toasterft.errors import ModelError, did_you_mean


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        vision: the vision tower.
        connector: what maps its output into the language model's space.
        text: the language model without its head.
        takes_features: its forward accepts `image_hidden_states` in place of pixels.
        connector_linear: the connector's single bias-free linear, where it has just one.
        processor: class that pairs image processor and tokenizer.
        pil_processor: `module:class` of the image processor that needs no torchvision.
        mrope: positions are three-dimensional (M-RoPE).
    """

    model_type: str
    vision: str
    connector: str
    text: str
    processor: str
    pil_processor: str
    takes_features: bool = False
    connector_linear: str | None = None
    mrope: bool = False

    @property
    def not_quantised(self) -> list[str]:
        """Modules kept in 16 bit: 4-bit towers lose detail that small charts need (design, section 5)."""
        return ["lm_head", self.vision, self.connector]


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="idefics3",
            vision="model.vision_model",
            connector="model.connector",
            text="model.text_model",
            processor="transformers.models.idefics3.processing_idefics3:Idefics3Processor",
            pil_processor="transformers.models.idefics3.image_processing_pil_idefics3:Idefics3ImageProcessorPil",
            takes_features=True,
            connector_linear="model.connector.modality_projection.proj",
        ),
        Family(
            model_type="smolvlm",
            vision="model.vision_model",
            connector="model.connector",
            text="model.text_model",
            processor="transformers.models.smolvlm.processing_smolvlm:SmolVLMProcessor",
            pil_processor="transformers.models.smolvlm.image_processing_pil_smolvlm:SmolVLMImageProcessorPil",
            takes_features=True,
            connector_linear="model.connector.modality_projection.proj",
        ),
        Family(
            model_type="qwen2_5_vl",
            vision="model.visual",
            connector="model.visual.merger",
            text="model.language_model",
            processor="transformers.models.qwen2_5_vl.processing_qwen2_5_vl:Qwen2_5_VLProcessor",
            pil_processor="transformers.models.qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil",
            mrope=True,
        ),
        Family(
            model_type="internvl",
            vision="model.vision_tower",
            connector="model.multi_modal_projector",
            text="model.language_model",
            processor="transformers.models.internvl.processing_internvl:InternVLProcessor",
            pil_processor="transformers.models.got_ocr2.image_processing_pil_got_ocr2:GotOcr2ImageProcessorPil",
        ),
        Family(
            model_type="llava_onevision",
            vision="model.vision_tower",
            connector="model.multi_modal_projector",
            text="model.language_model",
            processor="transformers.models.llava_onevision.processing_llava_onevision:LlavaOnevisionProcessor",
            pil_processor=(
                "transformers.models.llava_onevision.image_processing_pil_llava_onevision"
                ":LlavaOnevisionImageProcessorPil"
            ),
        ),
    )
}


def family(model_type: str) -> Family:
    """The row of an architecture.

    Raises:
        ModelError: naming the supported ones.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise ModelError(
        f"unsupported architecture {model_type!r}{did_you_mean(model_type, list(FAMILIES))}",
        why=f"supported: {', '.join(FAMILIES)}",
    )
