"""The memory of a run without a GPU: its steps replayed on the `meta` device, live bytes counted.

Everything is the real thing (transformers' model code, PEFT's LoRA, bitsandbytes' 4-bit layers and 8-bit
optimizer, TRL's chunked loss, our tree) except the numbers: on `meta` a tensor has a shape and no data, so a
step of a full-size model takes about a second. `Tracker` sees every tensor that an operator returns and every
storage that dies, and keeps the highest sum. It works on a CPU as well, where a test holds it against
torch.profiler. `toasterft.estimate.memory` says the same in closed form, and a test holds it against this.

What CUDA does and `meta` does not is put in by `Cuda`: autocast, the choice of an attention kernel, and dropout with
a mask of bytes.

What it does not see, because it never passes through an operator's result:

- the CUDA context (300 to 600 MB), cuBLAS and cuDNN workspaces;
- what the allocator holds beyond what is asked of it: 512-byte rounding, fragmentation;
- scratch memory inside a kernel: flash attention's backward keeps one float32 query gradient, and, with
  grouped heads, key and value gradients of all heads; bitsandbytes' 4-bit matmul may unpack one weight;
- Unsloth's kernels, which keep less than what is counted here;
- the paged part of an optimizer, which can leave the GPU: it is counted as if it stayed.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import bitsandbytes
import torch
import transformers
from torch.fx.experimental import _config as fx_config
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from trl.trainer.sft_trainer import _CHUNKED_LM_HEAD_CHUNK_SIZE, _chunk

from toasterft.engines import Request, adapters, tree
from toasterft.engines.families import family
from toasterft.engines.loaded import Loaded
from toasterft.estimate import Plan, work
from toasterft.methods.logps import token_logps
from toasterft.methods.training import NoInputGradients
from toasterft.recipe import Lora, Policy, Trained

META = torch.device("meta")
# transformers' SDPA, and no mask unless one is given in four dimensions: whether one is needed is read from its
# values otherwise, and `meta` has none.
NAME = "toasterft_simulated"
AttentionInterface.register(NAME, sdpa_attention_forward)
AttentionMaskInterface.register(NAME, lambda **_: None)
# The efficient kernel wants a mask whose rows start at multiples of this many elements.
MASK_ALIGNMENT = 16
Config = dict[str, Any]


class Tracker(TorchDispatchMode):
    """Bytes of live storages while it is entered: now, at most, and at most per phase.

    A storage counts once, from the operator that returned it to its last reference. Tensors that were there
    before are counted when they are given to `add`, or when a view of them is a result.

    Attributes:
        now_bytes, peak_bytes: live at the moment, and at most.
        peak_phase: name of the phase in which `peak_bytes` was reached.
        phases: highest bytes per phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_bytes = self.peak_bytes = 0
        self.phase_name = self.peak_phase = "start"
        self.phases: dict[str, int] = {}
        self._live: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out

    def add(self, tensors: Iterable[torch.Tensor]) -> int:
        """Count the storages of tensors that were there before; bytes of those that were not yet known."""
        before = self.now_bytes
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._live:
                size = storage.nbytes()
                self._live[key] = weakref.ref(storage, functools.partial(self._gone, key)), size
                self.now_bytes += size
        if self.now_bytes > self.phases.get(self.phase_name, 0):
            self.phases[self.phase_name] = self.now_bytes
        if self.now_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_phase = self.now_bytes, self.phase_name
        return self.now_bytes - before

    def _gone(self, key: int, _reference: Any) -> None:
        self.now_bytes -= self._live.pop(key)[1]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Peaks within belong to `name` (and not to the phase around it)."""
        outer, self.phase_name = self.phase_name, name
        try:
            yield
        finally:
            self.phase_name = outer


class Cuda(TorchFunctionMode):
    """What becomes of these calls on a GPU: autocast, fused attention, fused dropout.

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


# --- the model -------------------------------------------------------------------------------


def build(
    config: Config,
    *,
    rank: int | None = 16,
    lora_dropout: float = 0.0,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    train: bool = True,
    train_vision: bool = False,
) -> Loaded:
    """The architecture that `config` (of the catalog, or a config.json) describes, on `meta`.

    Args:
        rank: of a LoRA on all linears of the language model; None trains it whole, in float32 weights.
    """
    config = copy.deepcopy(config)
    kind = family(config["model_type"])
    full = rank is None
    with META:
        model = transformers.AutoModelForImageTextToText.from_config(
            transformers.CONFIG_MAPPING[kind.model_type](**config),
            dtype=torch.float32 if full else dtype,
            attn_implementation=NAME,
        )
        loaded = Loaded(model, None, kind, dtype, META, "simulated", kind.model_type)
        if load_in_4bit and not full:
            pack(loaded.part(kind.text), dtype)
            model.is_loaded_in_4bit = True
        request = Request(
            base=kind.model_type,
            family=kind,
            lora=None if full else Lora(r=rank, lora_dropout=lora_dropout),
            train=train,
            full=full,
            train_vision=train_vision,
        )
        adapters.prepare(loaded, request)
    return loaded


def pack(part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replace the linears below `part` by 4-bit ones."""
    for name, linear in list(part.named_modules()):
        if isinstance(linear, torch.nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(part.get_submodule(owner), last, _four_bit(linear, dtype))


def _four_bit(linear: torch.nn.Linear, dtype: torch.dtype) -> bitsandbytes.nn.Linear4bit:
    """bitsandbytes cannot quantise on `meta`: zeros are quantised on the CPU, and the result moved."""
    data, state = _quantised(linear.weight.shape, dtype)
    state = copy.deepcopy(state)
    state.to(META)
    packed = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=dtype,
        quant_type="nf4",
        device=META,
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        torch.empty_like(data, device=META),
        quant_state=state,
        quant_type="nf4",
        bnb_quantized=True,
        module=packed,
    )
    packed.bias, packed.quant_state = linear.bias, state
    return packed


@functools.cache
def _quantised(shape: torch.Size, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
    with torch.device("cpu"):
        zeros = torch.zeros(shape, dtype=dtype)
        data, state = bitsandbytes.functional.quantize_4bit(zeros, quant_type="nf4", compress_statistics=True)
    return data, state


# --- a training step -------------------------------------------------------------------------


def peak(
    config: Config,
    *,
    batch: int,
    tokens: int,
    image_tokens: int,
    completion_tokens: int,
    rank: int | None = 16,
    lora_dropout: float = 0.0,
    checkpointing: bool = True,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
    tower: bool = False,
    tiles: int = 0,
    train_vision: bool = False,
) -> dict[str, Any]:
    """Peak bytes of a micro-step of `sft` in the middle of a run, the optimizer's step included.

    Args:
        batch: sequences of `tokens` tokens; more than one need a mask, because some are padded.
        image_tokens: positions per sequence that hold image features.
        completion_tokens: positions per sequence that the loss is taken on.
        rank: of the LoRA; None trains the language model itself.
        flash: the GPU has flash attention.
        tower: the vision tower stays on the GPU.
        tiles: through pixels instead of features, so many tiles in all (families whose features are cached).
        train_vision: the tower learns too.

    Returns:
        Bytes of `weights`, `adapter`, `gradients`, `optimizer`, `given` (features or pixels) and `activations`
        at the peak; their sum `peak`; its `phase`, and the peak of every phase in `phases`.
    """
    loaded = build(
        config,
        rank=rank,
        lora_dropout=lora_dropout,
        load_in_4bit=load_in_4bit,
        dtype=dtype,
        train_vision=train_vision,
    )
    cuda = Cuda(dtype, flash=flash)
    if checkpointing:
        loaded.inner.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": cuda.again})
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=META)
    mask = _mask(batch, tokens, tokens) if batch > 1 else torch.ones_like(ids)
    visual = _pixels(loaded, tiles) if tiles else _features(loaded, batch * image_tokens)
    chunks = -(-batch * completion_tokens // _CHUNKED_LM_HEAD_CHUNK_SIZE)

    def loss() -> torch.Tensor:
        features = _encode(loaded, visual) if tiles else visual
        states = last_hidden(loaded, ids, features, attention_mask=mask)
        return chunked_loss(states, loaded.inner.get_output_embeddings().weight, ids, chunks, cuda)

    return _step(loaded, loss, cuda, optim, [visual, ids, mask], tower=tower or bool(tiles))


def last_hidden(loaded: Loaded, ids: torch.Tensor, features: torch.Tensor, **options: Any) -> torch.Tensor:
    """The language model's output with `features` [positions, hidden] in place of image tokens: [B, T, hidden].

    The model's own forward looks at values to find those places, and `meta` has none.
    """
    text = loaded.part(loaded.family.text)
    embedded = text.get_input_embeddings()(ids)
    places = (ids == 0).unsqueeze(-1)
    embedded = embedded.masked_scatter(places, features.to(embedded.dtype))
    out = text(inputs_embeds=embedded, **{"use_cache": False, **options})
    states: torch.Tensor = out.last_hidden_state
    return states


def chunked_loss(
    states: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, chunks: int, cuda: Cuda
) -> torch.Tensor:
    """TRL's `_chunked_cross_entropy_loss` with the number of chunks given: it reads it from the labels."""
    hidden = states[..., :-1, :].reshape(-1, states.shape[-1])
    labels = labels[..., 1:].reshape(-1)
    order = (labels != -100).to(torch.int8).argsort(descending=True, stable=True)
    hidden, labels = hidden[order], labels[order]
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, chunks * _CHUNKED_LM_HEAD_CHUNK_SIZE, _CHUNKED_LM_HEAD_CHUNK_SIZE):
        place = slice(start, start + _CHUNKED_LM_HEAD_CHUNK_SIZE)
        values = (hidden[place], head, None, labels[place], 1.0, None)
        total = total + checkpoint(_chunk, *values, use_reentrant=False, context_fn=cuda.again)[0]
    return total / len(labels)


def _features(loaded: Loaded, count: int) -> torch.Tensor:
    hidden = loaded.part(loaded.family.text).config.hidden_size
    return torch.empty(count, hidden, dtype=loaded.dtype, device=META)


def policy_peak(
    config: Config,
    *,
    groups: int,
    branches: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    rank: int = 16,
    checkpointing: bool = True,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
    tower: bool = False,
) -> dict[str, Any]:
    """Peak bytes of a policy update on trees: each of `groups` prompts once, then its `branches` completions.

    Arguments and result otherwise as those of `peak`; more than one group is taken to be padded.
    """
    loaded, cuda = build(config, rank=rank, load_in_4bit=load_in_4bit, dtype=dtype), Cuda(dtype, flash=flash)
    tree.install(loaded.inner)
    if checkpointing:
        loaded.inner.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": cuda.again})
    width = prompt_tokens + branches * completion_tokens
    ids = torch.zeros(groups, width, dtype=torch.long, device=META)
    features = _features(loaded, groups * image_tokens)
    layout = tree.Layout(
        prompt_tokens,
        branches,
        completion_tokens,
        _mask(groups, prompt_tokens, prompt_tokens) if groups > 1 else None,
        _mask(groups * branches, completion_tokens, prompt_tokens + completion_tokens),
    )
    targets = torch.zeros(groups * branches * completion_tokens, dtype=torch.long, device=META)
    masks = [layout.branch_mask, *([layout.prompt_mask] if layout.prompt_mask is not None else [])]

    def loss() -> torch.Tensor:
        states = last_hidden(
            loaded, ids, features, attention_mask=_mask(1, 1, 1), position_ids=ids, tree=layout
        )
        last = states[:, prompt_tokens - 1 : prompt_tokens].unsqueeze(1).expand(-1, branches, -1, -1)
        own = states[:, prompt_tokens:].unflatten(1, (branches, completion_tokens))
        predicting = torch.cat([last, own[:, :, :-1]], dim=2).flatten(0, 2)
        logps = token_logps(loaded.inner.get_output_embeddings(), predicting, targets, 1.0)[0]
        return -(logps.exp() / logps.detach().exp()).mean()

    return _step(loaded, loss, cuda, optim, [features, ids, targets, *masks], tower=tower)


def _mask(batch: int, queries: int, keys: int) -> torch.Tensor:
    return torch.ones(batch, 1, queries, keys, dtype=torch.bool, device=META)


def _step(
    loaded: Loaded,
    loss: Callable[[], torch.Tensor],
    cuda: Cuda,
    optim: str,
    given: list[torch.Tensor],
    *,
    tower: bool,
) -> dict[str, Any]:
    """Forward, backward and optimizer under the tracker, with gradients and states there from before.

    Args:
        given: the batch; features or pixels come first.
    """
    learned = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizers = _optimizers(loaded, learned, optim)
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()  # makes the states
    NoInputGradients().on_train_begin(None, None, None, model=loaded.model)
    tracker = Tracker()
    items = {
        "weights": tracker.add(_weights(loaded, learned, tower=tower)),
        "adapter": tracker.add(learned),
        "gradients": tracker.add(parameter.grad for parameter in learned if parameter.grad is not None),
        "optimizer": tracker.add(_states(optimizers)),
        "given": tracker.add(given[:1]),
    }
    if not loaded.has_adapter:
        items["weights"] += items.pop("adapter")
    tracker.add(given)
    with tracker, cuda, cuda.autocast():
        with tracker.phase("forward"), cuda.forward():
            value = loss()
        with tracker.phase("backward"):
            value.backward()
        del value
        with tracker.phase("optimizer"):
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            for optimizer in optimizers:
                optimizer.step()
    return _report(tracker, items)


def _optimizers(loaded: Loaded, learned: list[torch.nn.Parameter], optim: str) -> list[torch.optim.Optimizer]:
    """What transformers' Trainer makes of `optim`; pages cannot be had on `meta`."""
    if optim == "adamw_torch":
        return [torch.optim.AdamW(learned, foreach=True)]
    # Overrides are kept by a parameter's place in its optimizer, for the whole process: without this the next
    # optimizer would inherit those of the last (bitsandbytes 0.50.2, `GlobalOptimManager.index2config`).
    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()
    # transformers keeps 32-bit states for embeddings.
    embedded = {
        id(weight)
        for module in loaded.model.modules()
        if isinstance(module, torch.nn.Embedding)
        for weight in module.parameters()
    }
    parts = {
        8: [weight for weight in learned if id(weight) not in embedded],
        32: [weight for weight in learned if id(weight) in embedded],
    }
    return [bitsandbytes.optim.AdamW(weights, optim_bits=bits) for bits, weights in parts.items() if weights]


def _states(optimizers: list[torch.optim.Optimizer]) -> Iterator[torch.Tensor]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (
                value for value in state.values() if isinstance(value, torch.Tensor) and value.device == META
            )


def _weights(loaded: Loaded, learned: list[torch.nn.Parameter], *, tower: bool) -> Iterator[torch.Tensor]:
    """Everything frozen, 4-bit constants included."""
    away = set() if tower else {id(weight) for weight in loaded.part(loaded.family.vision).parameters()}
    away |= {id(weight) for weight in learned}
    yield from (weight for weight in loaded.model.parameters() if id(weight) not in away)
    yield from loaded.model.buffers()
    for module in loaded.model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.quant_state
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)


def _report(tracker: Tracker, items: dict[str, int]) -> dict[str, Any]:
    return {
        **items,
        "activations": tracker.peak_bytes - sum(items.values()),
        "peak": tracker.peak_bytes,
        "phase": tracker.peak_phase,
        "phases": tracker.phases,
    }


# --- passes without gradients ----------------------------------------------------------------


def generate_peak(
    config: Config,
    *,
    prompts: int,
    generations: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    rank: int | None = 16,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    top_p: float = 1.0,
    flash: bool = True,
    tower: bool = False,
) -> dict[str, Any]:
    """Peak bytes of sampling `generations` completions of each prompt: one prefill, then the last token.

    More than one prompt are taken to be padded.

    Returns:
        Bytes of `weights`, `adapter`, `image_features`, `kv_cache` (full) and `activations` (the rest) at the
        peak; their sum `peak`; its `phase` (`prefill`, `decode`), and the peak of every phase in `phases`.
    """
    loaded = build(config, rank=rank, load_in_4bit=load_in_4bit, dtype=dtype, train=False)
    text, head = loaded.part(loaded.family.text), loaded.inner.get_output_embeddings()
    rows, length = prompts * generations, prompt_tokens + completion_tokens
    ids = torch.zeros(prompts, prompt_tokens, dtype=torch.long, device=META)
    features = _features(loaded, prompts * image_tokens)
    masked = prompts > 1
    tracker = Tracker()
    adapter = [weight for name, weight in loaded.model.named_parameters() if "lora_" in name]
    items = {
        "weights": tracker.add(_weights(loaded, adapter, tower=tower)),
        "adapter": tracker.add(adapter),
        "image_features": tracker.add([features]),
    }
    tracker.add([ids])
    with torch.no_grad(), tracker, Cuda(torch.float32, flash=flash):
        with tracker.phase("prefill"):
            past = transformers.DynamicCache(config=text.config)
            mask = _mask(prompts, prompt_tokens, prompt_tokens) if masked else torch.ones_like(ids)
            last_hidden(loaded, ids, features, attention_mask=mask, past_key_values=past, use_cache=True)
            past.batch_repeat_interleave(generations)
            del mask
        with tracker.phase("decode"):
            for layer in past.layers:  # as many steps later
                layer.keys = layer.keys.new_empty(*layer.keys.shape[:2], length - 1, layer.keys.shape[3])
                layer.values = torch.empty_like(layer.keys)
            token = torch.zeros(rows, 1, dtype=torch.long, device=META)
            mask = _mask(rows, 1, length) if masked else torch.ones(rows, length, device=META)
            states = last_hidden(
                loaded, token, features[:0], attention_mask=mask, past_key_values=past, use_cache=True
            )
            cached = [part for layer in past.layers for part in (layer.keys, layer.values)]
            items["kv_cache"] = sum(part.nbytes for part in cached)
            _sample(head(states[:, -1:]), token, top_p)
    return _report(tracker, items)


def _sample(logits: torch.Tensor, ids: torch.Tensor, top_p: float) -> torch.Tensor:
    """What `generate` does with logits [rows, 1, vocabulary], image tokens suppressed."""
    scores = logits[:, -1].to(copy=True, dtype=torch.float32)
    scores = transformers.SuppressTokensLogitsProcessor([0], device=META)(ids, scores)
    if top_p < 1:
        scores = transformers.TopPLogitsWarper(top_p)(ids, scores)
    return torch.multinomial(functional.softmax(scores, dim=-1), num_samples=1)


def encode_peak(config: Config, *, tiles: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Peak bytes of the vision tower on `tiles` tiles, and of the connector where its output is cached.

    Not for Qwen2.5-VL, whose tower reads the pictures' sizes from values.

    Returns:
        Bytes of `weights` (tower and connector), `pixels` and `activations` at the peak, and their sum `peak`.
    """
    loaded = build(config, load_in_4bit=False, dtype=dtype, train=False)
    vision, connector = loaded.part(loaded.family.vision), loaded.part(loaded.family.connector)
    pixels = _pixels(loaded, tiles)
    tracker = Tracker()
    items = {
        "weights": tracker.add([*vision.parameters(), *connector.parameters()]),
        "pixels": tracker.add([pixels]),
    }
    with torch.no_grad(), tracker, Cuda(torch.float32), tracker.phase("encode"):
        if loaded.family.takes_features:
            _encode(loaded, pixels)
        else:
            # LLaVA-OneVision asks its tower for the output of every layer.
            every = {"output_hidden_states": True} if loaded.family.model_type == "llava_onevision" else {}
            vision(pixel_values=pixels.to(dtype), **every)
    return _report(tracker, items)


def _pixels(loaded: Loaded, tiles: int) -> torch.Tensor:
    edge = loaded.part(loaded.family.vision).config.image_size
    size = edge if isinstance(edge, (list, tuple)) else (edge, edge)
    return torch.empty(tiles, 3, *size, device=META)


def _encode(loaded: Loaded, pixels: torch.Tensor) -> torch.Tensor:
    """Features [positions, hidden] of an Idefics3 or SmolVLM."""
    # They index with masks. `meta` then takes every element for a true one, as it is for our tiles.
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
        out = loaded.inner.get_image_features(pixel_values=pixels.unsqueeze(0))
    features: torch.Tensor = out.pooler_output.flatten(0, 1)
    return features


def of_plan(plan: Plan, config: Config) -> dict[str, dict[str, Any]]:
    """Replay the largest moment of every phase of a training plan.

    Args:
        config: the model's config.json.

    Returns:
        Phase → the result of `peak`, `policy_peak`, `generate_peak` or `encode_peak`: without CUDA's context and
        the allocator's slack.
    """
    recipe, survey = plan.recipe, plan.survey
    assert isinstance(recipe, Trained)
    todo = work.of(plan.shape, survey, recipe)
    rank = None if recipe.lora is None else recipe.lora.r
    shared: dict[str, Any] = {"load_in_4bit": recipe.load_in_4bit, "rank": rank}
    longest, images = todo.longest, round(survey.feature_tokens * survey.images_per_row)
    found: dict[str, dict[str, Any]] = {}
    if work.caches(plan.shape, recipe):
        found["encode"] = encode_peak(config, tiles=recipe.encode_batch_size)
    training: dict[str, Any] = {
        **shared,
        "checkpointing": recipe.gradient_checkpointing,
        "optim": recipe.optim,
    }
    if rank is not None and (isinstance(recipe, Policy) or longest.branches > 1):
        found["train"] = policy_peak(
            config,
            groups=longest.prompts,
            branches=longest.branches,
            prompt_tokens=round(longest.prompt_tokens),
            image_tokens=images,
            completion_tokens=round(longest.completion_tokens),
            **training,
        )
    else:
        found["train"] = peak(
            config,
            batch=longest.prompts,
            tokens=round(longest.prompt_tokens + longest.completion_tokens),
            image_tokens=images,
            completion_tokens=round(longest.completion_tokens),
            **training,
        )
    if isinstance(recipe, Policy) and rank is not None:
        found["rollout"] = generate_peak(
            config,
            prompts=max(1, recipe.rollout_batch_size // recipe.num_generations),
            generations=recipe.num_generations,
            prompt_tokens=round(longest.prompt_tokens),
            image_tokens=images,
            completion_tokens=recipe.max_completion_length,
            top_p=recipe.top_p,
            **shared,
        )
    return found
