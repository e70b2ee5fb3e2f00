"""Emulate on `meta` what CUDA does with a model's calls: autocast, choice of attention kernels, dropout's mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# The efficient kernel wants a mask whose rows start at multiples of this many elements.
MASK_ALIGNMENT = 16


class Cuda(TorchFunctionMode):
    """Run calls as a GPU would: autocast, fused attention, fused dropout.

    Args:
        dtype: what autocast computes in; float32 means none.
        flash: the GPU has flash attention (compute capability 8.0 and above). Without it, torch takes the
            unfused path wherever heads are grouped and no mask is given, which is what `meta` does as well.
    """

    LOWERED = frozenset({functional.linear, functional.conv2d, torch.matmul, torch.Tensor.matmul})
    RAISED = frozenset({functional.layer_norm})

    def __init__(self, dtype: torch.dtype, *, flash: bool = True) -> None:
        super().__init__()
        self.dtype, self.flash = dtype, flash
        self._lowers = self._caches = False
        self._copies: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        attends = func is functional.scaled_dot_product_attention
        if self._lowers and (attends or func in self.LOWERED):
            args = [self._lower(arg) for arg in args]
            kwargs = {name: self._lower(arg) for name, arg in kwargs.items()}
        if self._lowers and func in self.RAISED:
            args = [arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args]
        if func is functional.dropout:
            return self._drop(*args, **kwargs)
        return self._attend(*args, **kwargs) if attends else func(*args, **kwargs)

    def again(self) -> tuple[Any, Any]:
        """For `checkpoint(context_fn=…)`: function modes are off in a backward pass, which computes layers again."""
        return nullcontext(), self

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Autocast, to be entered around the forward and the backward pass."""
        self._lowers = self.dtype != torch.float32
        # PEFT asks for this before it casts a layer's input.
        torch.set_autocast_enabled("cuda", self._lowers)
        try:
            yield
        finally:
            self._lowers = False
            torch.set_autocast_enabled("cuda", False)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """In here a trained float32 weight is lowered once, and the copy kept until the end, as autocast does."""
        self._caches = True
        try:
            yield
        finally:
            self._caches = False
            self._copies.clear()

    def _lower(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        if not (self._caches and value.is_leaf and value.requires_grad):
            return value.to(self.dtype)
        if id(value) not in self._copies:
            self._copies[id(value)] = value.to(self.dtype)
        return self._copies[id(value)]

    @staticmethod
    def _drop(
        value: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        return torch.native_dropout(value, p, True)[0] if training and p > 0 else value

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """torch's choice of a kernel on CUDA, and what it does to a mask on the way (attention.cpp)."""
        aten = torch.ops.aten
        if attn_mask is None and self.flash:
            out: torch.Tensor = aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, scale=scale
            )[0]
            return out
        if attn_mask is None and enable_gqa:
            return functional.scaled_dot_product_attention(
                query, key, value, None, dropout_p, is_causal, scale=scale, enable_gqa=True
            )
        bias = attn_mask
        if bias is not None:
            if bias.dtype == torch.bool:
                # A new one in every call, kept for the backward pass.
                bias = torch.where(
                    bias.logical_not(), float("-inf"), torch.zeros((), dtype=query.dtype, device=query.device)
                )
            columns = bias.shape[-1]
            if columns % MASK_ALIGNMENT:
                bias = functional.pad(bias, (0, MASK_ALIGNMENT - columns % MASK_ALIGNMENT))[..., :columns]
            bias = bias.expand(*query.shape[:3], columns)
        learns = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        out = aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, learns, dropout_p, is_causal, scale=scale
        )[0]
        return out
