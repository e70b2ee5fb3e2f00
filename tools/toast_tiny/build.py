"""toast-tiny: a vision-language model small enough to ship and to train in minutes on a CPU.

SmolVLM's architecture (Idefics3), special tokens and chat template at a hundredth of its size. This
module builds it with random weights; `pretrain.py` teaches it to see, and the result ships in
`toasterft/models/weights/toast-tiny`. Building is deterministic for a seed and set of library versions.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.data import charts

# 128 px charts become one tile of 16 x 16 patches, shuffled 4 x 4 into 16 image tokens.
TILE_PX, PATCH_PX, SCALE_FACTOR = 128, 16, 2
IMAGE_TOKENS = (TILE_PX // PATCH_PX // SCALE_FACTOR) ** 2
VISION = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 5}
TEXT = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}
VOCABULARY = 1024
# transformers' 0.02 suits widths of thousands; at 192 it leaves attention all but flat. On text lessons alone the
# loss after 100 steps was 0.54 from 0.06 and 0.92 from 0.02 (same data and seed, 2026-11-21).
INITIAL_STD = 0.06
# The rows the tokenizer learns from; enough that every word of the grammar has occurred.
CORPUS_ITEMS = 4000

PAD, BOS, EOS, UNKNOWN = "<|im_end|>", "<|im_start|>", "<end_of_utterance>", "<|endoftext|>"
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
TILE_TAGS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
# Unlike a borrowed model this one owns its tags: each is one ordinary token, so that decoding keeps it.
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
# GPT-2's way of cutting text, but with " = 12" in one piece: what follows a label is then its value, and
# reading a table back is one step of attention ("what came after this word?") instead of two.
PIECES = r" = \d+| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def build(folder: Path, seed: int = 0) -> Path:
    """A toast-tiny with random weights, as an ordinary `save_pretrained` folder."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    ids = dict(zip((IMAGE, EOS, PAD, BOS), tokenizer.convert_tokens_to_ids([IMAGE, EOS, PAD, BOS])))
    vision = {**VISION, "image_size": TILE_PX, "patch_size": PATCH_PX}
    text = {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "tie_word_embeddings": True}
    text |= {"pad_token_id": ids[PAD], "bos_token_id": ids[BOS], "eos_token_id": ids[EOS]}
    config = transformers.Idefics3Config(
        vision_config=vision,
        text_config=text,
        scale_factor=SCALE_FACTOR,
        image_token_id=ids[IMAGE],
        pad_token_id=ids[PAD],
        tie_word_embeddings=True,  # on both, or transformers unties them again
    )
    torch.manual_seed(seed)
    model = transformers.Idefics3ForConditionalGeneration(config)
    _initialise(model.model.text_model)
    model.generation_config.eos_token_id = ids[EOS]
    model.generation_config.pad_token_id = ids[PAD]
    model.save_pretrained(folder)
    write_processor(folder)
    return folder


def _initialise(text_model: Any) -> None:
    """Weights of the language model from N(0, INITIAL_STD); less where layers write to the residual."""
    import torch

    writes = INITIAL_STD / (2 * len(text_model.layers)) ** 0.5
    for name, parameter in text_model.named_parameters():
        if parameter.dim() == 2:
            std = writes if name.endswith(("o_proj.weight", "down_proj.weight")) else INITIAL_STD
            torch.nn.init.normal_(parameter, std=std)


def write_processor(folder: Path) -> None:
    """Image settings and chat template, in the files SmolVLM has."""
    image: dict[str, Any] = {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": TILE_PX},
        "max_image_size": {"longest_edge": TILE_PX},
        "do_image_splitting": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pad": True,
        "resample": 1,
    }
    paths.write_json(folder / "preprocessor_config.json", image)
    processor = {"image_seq_len": IMAGE_TOKENS, "processor_class": "Idefics3Processor"}
    paths.write_json(folder / "processor_config.json", processor)
    paths.write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer that has met every word the charts use: most are single tokens."""
    import transformers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PIECES), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_only])
    raw.decoder = decoders.ByteLevel()
    special = [UNKNOWN, BOS, PAD, FAKE, IMAGE, GLOBAL, *TILE_TAGS, EOS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_corpus(), trainer)
    raw.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token=UNKNOWN, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )


def _corpus() -> list[str]:
    """Questions, traces and answers of every kind and difficulty, and the numbers they may need."""
    lines = []
    for difficulty in ("core", "full"):
        for _, item in itertools.islice(charts.stream(0, difficulty), CORPUS_ITEMS):
            lines += [item.question, f" {item.simplified}", f" {item.structured}", item.answer]
    numbers = [f" {number} = {number}" for number in range(101)]
    return lines + numbers * 20 + ["User:", "Assistant:", "System:"] * 2000
