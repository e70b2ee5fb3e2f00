"""A stand-in for one CUDA device: with it the real Unsloth is imported and runs on a CPU.

    python tests/unsloth/standin.py -m toasterft sft MODEL --data DATA engine=unsloth

runs a command under it, and every Python process that the command starts. Nothing of CUDA is simulated: no kernel,
stream, memory limit or speed. torch says that a device is there, and what is sent to that device stays on the CPU. It
shows wrong calls, wrong order, lost settings and wrong numbers of code that was written for CUDA.

`tensor.is_cuda` stays False: code that asks a tensor takes its CPU branch.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What `make` puts there: unsloth, unsloth_zoo and torchvision, without what they depend on.
WHEELS = ROOT / ".venv-unsloth"
NAME, CAPABILITY, TOTAL_BYTES, FREE_BYTES = "NVIDIA A10G", (8, 6), 24_146_608_128, 23_836_229_632


def environment() -> dict[str, str]:
    """What a Python process needs in its environment to start under the stand-in."""
    return {
        # `sitecustomize` is imported as Python starts, in child processes too.
        "PYTHONPATH": os.pathsep.join(map(str, [HERE / "site", ROOT, WHEELS])),
        "PATH": os.pathsep.join([str(HERE / "site"), os.environ.get("PATH", "")]),  # `nvidia-smi`
        # Inductor works on a CPU too, but takes minutes for three steps.
        "TORCHDYNAMO_DISABLE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",  # it would ask a hub
        "HF_HUB_OFFLINE": "1",
    }


def install() -> None:
    """Stand in for the device in this process, from the moment that torch has been imported."""
    sys.meta_path.insert(0, _AfterImport("torch", _after_torch))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function right after a module's own body: before whoever imports it has seen it."""

    def __init__(self, name: str, act: Callable[[ModuleType], None]) -> None:
        self.name, self.act = name, act

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        body = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            body(module)
            self.act(module)

        spec.loader.exec_module = exec_module
        return spec


def _after_torch(torch: Any) -> None:
    # While CUDA looks absent, so that it takes its CPU library.
    import bitsandbytes.functional

    _four_bit_symbols(bitsandbytes.functional)
    _answers(torch)
    _devices(torch)
    _torchvision_operators(torch)
    _triton_stub()


# --- what torch.cuda answers


def _answers(torch: Any) -> None:
    properties = SimpleNamespace(
        name=NAME,
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        total_memory=TOTAL_BYTES,
        multi_processor_count=80,
        warp_size=32,
        max_threads_per_multi_processor=1536,
        regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=101_376,
        L2_cache_size=6_291_456,
        is_integrated=0,
        gcnArchName="",
    )
    rng = torch.get_rng_state
    values = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "get_device_name": NAME,
        "get_device_capability": CAPABILITY,
        "get_device_properties": properties,
        "get_arch_list": [f"sm_{CAPABILITY[0]}{CAPABILITY[1]}"],
        "is_current_stream_capturing": False,
        "can_device_access_peer": False,
        "mem_get_info": (FREE_BYTES, TOTAL_BYTES),
        "memory_stats": {},
        "reset_peak_memory_stats": None,
        "reset_accumulated_memory_stats": None,
        "reset_max_memory_allocated": None,
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_reserved": 0,
        "empty_cache": None,
        "ipc_collect": None,
        "synchronize": None,
        "init": None,
        "_lazy_init": None,
    }
    functions = {name: _always(name, value) for name, value in values.items()}
    functions |= {
        "is_bf16_supported": lambda including_emulation=True: True,  # Unsloth reads its signature
        "_lazy_call": lambda call, **_: call(),
        "manual_seed": lambda seed: None,  # torch.manual_seed seeds the generator that is used here
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: rng(),
        "get_rng_state_all": lambda: [rng()],
        "set_rng_state": lambda state, device=None: None,
        "set_rng_state_all": lambda states: None,
        "Stream": _Stream,
        "Event": _Event,
        "stream": lambda stream: _Stream(),
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "device": _Device,
    }
    for module in (torch.cuda, torch.cuda.memory, torch.cuda.random):
        for name, function in functions.items():
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, function)
    torch.version.cuda = "12.8"
    torch._C._cuda_getCurrentRawStream = lambda index: 0
    torch._C._cuda_getDevice = lambda: 0


def _always(name: str, value: Any) -> Callable[..., Any]:
    """A function of its own for each name: Dynamo asserts that it meets none twice."""

    def answer(*_: Any, **__: Any) -> Any:
        return value

    answer.__name__ = name
    return answer


class _Stream:
    cuda_stream = stream_id = device_index = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None: ...
    def synchronize(self) -> None: ...
    def wait_stream(self, stream: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...
    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def query(self) -> bool:
        return True


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, stream: Any = None) -> None: ...
    def wait(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Any) -> float:
        return 0.0


class _Device:
    def __init__(self, device: Any = 0) -> None:
        self.idx = 0

    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


# --- what is sent to the device


def _devices(torch: Any) -> None:
    from torch.overrides import TorchFunctionMode

    def here(value: Any) -> Any:
        """The CPU for the stand-in's device, however it is named; anything else as it is."""
        if isinstance(value, str | torch.device) and str(value).startswith("cuda"):
            return torch.device("cpu")
        return value

    stay = {torch.Tensor.cuda, torch.Tensor.pin_memory}
    to = torch.Tensor.to

    class Redirect(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function in stay:
                return args[0]
            if function is torch.Tensor.record_stream:
                return None
            if function is torch.device and type(args[0] if args else None) is int:
                return torch.device("cuda", args[0])
            if function is to:
                # An integer is the number of a GPU.
                args = (args[0], *("cpu" if type(value) is int else here(value) for value in args[1:]))
            if "device" in kwargs:
                kwargs["device"] = "cpu" if type(kwargs["device"]) is int else here(kwargs["device"])
            kwargs.pop("pin_memory", None)
            return function(*args, **kwargs)

    Redirect().__enter__()
    # A mode belongs to the thread that entered it.
    run = threading.Thread.run

    def run_redirected(thread: threading.Thread) -> None:
        with Redirect():
            run(thread)

    threading.Thread.run = run_redirected

    # Where no mode reaches.
    class LikeGenerator(type(torch.Generator)):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, generator)

    class Generator(torch.Generator, metaclass=LikeGenerator):
        def __new__(cls, device: Any = "cpu") -> Any:
            return generator(here(device))

    generator, torch.Generator = torch.Generator, Generator
    parse = torch._C._nn._parse_to

    def parse_to(*args: Any, **kwargs: Any) -> Any:
        args = tuple("cpu" if type(value) is int else here(value) for value in args)
        return parse(*args, **{name: here(value) for name, value in kwargs.items()})

    torch._C._nn._parse_to = parse_to
    load = torch.load
    torch.load = lambda file, map_location=None, **kwargs: load(file, here(map_location), **kwargs)
    autocast = torch.amp.autocast_mode.autocast.__init__

    @functools.wraps(autocast)
    def autocast_here(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        autocast(self, str(here(device_type)), *args, **kwargs)

    torch.amp.autocast_mode.autocast.__init__ = autocast_here

    import safetensors

    opening = safetensors.safe_open
    safetensors.safe_open = lambda file, framework, device="cpu", **more: opening(
        file, framework, str(here(device)) if isinstance(device, str | torch.device) else "cpu", **more
    )


# --- packages that look for CUDA's libraries


def _four_bit_symbols(functional: Any) -> None:
    """The CUDA symbols that Unsloth binds as it is imported; without them it allows no 4 bits. None may be called:
    bitsandbytes' own Python functions serve 4-bit weights on a CPU."""

    def missing(name: str) -> Any:
        def abort(*_: Any) -> None:
            raise RuntimeError(f"bitsandbytes' CUDA function {name} was called under the stand-in")

        abort.restype = None  # what tells a loaded library from a missing one
        return abort

    names = ["cdequantize_blockwise_fp32", "cdequantize_blockwise_fp32_nf4"]
    for bits in ("fp16", "bf16"):
        names += [f"cdequantize_blockwise_{bits}_nf4", f"cgemm_4bit_inference_naive_{bits}"]
    for name in names:
        setattr(functional.lib, name, missing(name))


def _torchvision_operators(torch: Any) -> None:
    """torchvision's compiled library needs CUDA's; its Python part registers functions for these two operators."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library._torchvision_standin = library  # it would undo its definitions as it is collected


def _triton_stub() -> None:
    """Unsloth's own stub for its modules alone; everyone else sees no Triton."""
    file = WHEELS / "unsloth_zoo" / "stubs" / "triton_stub.py"
    spec = importlib.util.spec_from_file_location("unsloth_triton_stub", file)
    assert spec is not None
    assert spec.loader is not None
    stub = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = stub
    spec.loader.exec_module(stub)
    # Unsloth calls it as it is imported, and runs `ldconfig` on this machine where it raises.
    stub.backends.nvidia = stub._make_module("triton.backends.nvidia")
    driver = stub._make_module("triton.backends.nvidia.driver", {"libcuda_dirs": lambda: []})
    real = builtins.__import__

    def importing(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        importer = str((globals or {}).get("__name__") or "")
        if level or name.split(".")[0] != "triton" or not importer.lower().startswith("unsloth"):
            return real(name, globals, locals, fromlist, level)
        finders, before = list(sys.meta_path), set(sys.modules)
        stub.inject_into_sys_modules()
        sys.modules["triton.backends.nvidia.driver"] = driver
        try:
            return real(name, globals, locals, fromlist, level)
        finally:
            sys.meta_path[:] = finders
            for added in [key for key in sys.modules if key.split(".")[0] == "triton" and key not in before]:
                del sys.modules[added]

    builtins.__import__ = importing


def main() -> None:
    if not WHEELS.is_dir():
        sys.exit(f"Unsloth's wheels are not in {WHEELS}: `make` puts them there")
    os.environ.update(environment())
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
