"""Tiny random models, one per architecture, saved as ordinary `save_pretrained` folders.

They exercise the real loading code without a hub: a few hundred thousand random parameters, a small
byte-level BPE tokenizer, the architecture's own processor files.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = dict(
    hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
TILE = 32

SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def chatml_template(image: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for line in message['content'] %}"
        "{% if line['type'] == 'image' %}" + image + "{% else %}{{ line['text'] }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


CORPUS = [
    "<think>red = 7, blue = 3. The largest is 7.</think><answer>red</answer>",
    "Which bar is the highest? What is the value of green? How many bars are above 10?",
    "User: Assistant: system user assistant The chart shows the value of each bar and line.",
] * 20


def tokenizer(
    folder: Path, special: list[str], eos: str, pad: str, bos: str | None = None, **extra: str
) -> None:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(CORPUS, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=eos, pad_token=pad, bos_token=bos, extra_special_tokens=extra or None
    )
    fast.save_pretrained(folder)


def ids(folder: Path, *tokens: str) -> list[int]:
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    return [fast.convert_tokens_to_ids(token) for token in tokens]


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def save(model: torch.nn.Module, folder: Path, eos: int, pad: int) -> Path:
    model.generation_config.eos_token_id = eos
    model.generation_config.pad_token_id = pad
    model.save_pretrained(folder)
    return folder


def smolvlm_like(
    folder: Path, model_type: str, layers: int = 2, text_sizes: dict[str, int] | None = None
) -> Path:
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<fake_token_around_image>",
        "<image>",
        "<global-img>",
    ]
    special += [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)] + ["<end_of_utterance>"]
    tokenizer(folder, special, eos="<end_of_utterance>", pad="<|im_end|>", bos="<|im_start|>")
    image, eos, pad = ids(folder, "<image>", "<end_of_utterance>", "<|im_end|>")
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2)
    vision |= dict(image_size=TILE, patch_size=8)
    text = dict(TEXT, model_type="llama", vocab_size=512, pad_token_id=pad, tie_word_embeddings=False)
    text |= dict(num_hidden_layers=layers, max_position_embeddings=2048) | (text_sizes or {})
    name = "Idefics3" if model_type == "idefics3" else "SmolVLM"
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config=vision,
        scale_factor=2,
        image_token_id=image,
        tie_word_embeddings=False,
        pad_token_id=pad,
    )
    pil = "Idefics3ImageProcessor" if model_type == "idefics3" else "SmolVLMImageProcessor"
    write(
        folder,
        "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "image_processor_type": pil,
            "max_image_size": {"longest_edge": TILE},
            "size": {"longest_edge": 2 * TILE},
            "resample": 1,
            "rescale_factor": 1 / 255,
        },
    )
    write(folder, "processor_config.json", {"image_seq_len": 4, "processor_class": f"{name}Processor"})
    write(folder, "chat_template.json", {"chat_template": SMOLVLM_TEMPLATE})
    return save(getattr(transformers, f"{name}ForConditionalGeneration")(config), folder, eos, pad)


def qwen2_5_vl(folder: Path) -> Path:
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
    ]
    special += ["<|video_pad|>"]
    tokenizer(folder, special, eos="<|im_end|>", pad="<|endoftext|>")
    image, video, start, end, eos, pad = ids(
        folder,
        "<|image_pad|>",
        "<|video_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}
    text = dict(
        TEXT, vocab_size=512, rope_parameters=rope, tie_word_embeddings=True, max_position_embeddings=2048
    )
    vision = dict(
        depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=8, out_hidden_size=48
    )
    vision |= dict(spatial_merge_size=2, window_size=32, fullatt_block_indexes=[1], temporal_patch_size=2)
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    write(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": 8,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "size": {"shortest_edge": 256, "longest_edge": 16384},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
    )
    write(folder, "processor_config.json", {"processor_class": "Qwen2_5_VLProcessor"})
    write(folder, "chat_template.jinja", chatml_template("<|vision_start|><|image_pad|><|vision_end|>"))
    return save(transformers.Qwen2_5_VLForConditionalGeneration(config), folder, eos, pad)


def internvl(folder: Path) -> Path:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    tokenizer(
        folder,
        special,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    image, eos, pad = ids(folder, "<IMG_CONTEXT>", "<|im_end|>", "<|endoftext|>")
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, patch_size=[8, 8]
    )
    vision |= dict(image_size=[TILE, TILE])
    text = dict(
        TEXT, model_type="qwen2", vocab_size=512, tie_word_embeddings=True, max_position_embeddings=2048
    )
    config = transformers.InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    write(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": {"height": TILE, "width": TILE},
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 4,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
    )
    write(folder, "processor_config.json", {"processor_class": "InternVLProcessor", "image_seq_length": 4})
    write(folder, "chat_template.jinja", chatml_template("<IMG_CONTEXT>\n"))
    return save(transformers.InternVLForConditionalGeneration(config), folder, eos, pad)


def llava_onevision(folder: Path) -> Path:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer(folder, special, eos="<|im_end|>", pad="<|endoftext|>")
    image, video, eos, pad = ids(folder, "<image>", "<video>", "<|im_end|>", "<|endoftext|>")
    grid = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]
    vision = dict(model_type="siglip_vision_model", hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    vision |= dict(num_attention_heads=2, patch_size=8, image_size=TILE, vision_use_head=False)
    text = dict(
        TEXT, model_type="qwen2", vocab_size=512, tie_word_embeddings=True, max_position_embeddings=2048
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    write(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": TILE, "width": TILE},
            "image_grid_pinpoints": grid,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
    )
    write(
        folder,
        "processor_config.json",
        {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
    )
    write(folder, "chat_template.jinja", chatml_template("<image>\n"))
    return save(transformers.LlavaOnevisionForConditionalGeneration(config), folder, eos, pad)


# What writes a random model of each architecture.
BUILDERS = {
    "idefics3": partial(smolvlm_like, model_type="idefics3"),
    "smolvlm": partial(smolvlm_like, model_type="smolvlm"),
    "qwen2_5_vl": qwen2_5_vl,
    "internvl": internvl,
    "llava_onevision": llava_onevision,
}


def build(model_type: str, folder: Path, seed: int = 0) -> Path:
    """A random model of one architecture in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    return BUILDERS[model_type](folder)
