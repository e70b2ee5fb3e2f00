"""Fine-tune small vision-language models on one cheap GPU, with the bill known before the start."""

__version__ = "0.1.0"
