"""A GPU that is not there: tensors that say they are on it, and are computed on the CPU.

Like those of a GPU they refuse to be mixed with tensors of the CPU, and to become arrays.  Only
whole runs are meant to happen on it, in a process of its own:

    TRITON_INTERPRET=1 python -m tests.fake_gpu FOLDER MODEL [KEY=VALUE ...]

trains MODEL on toy data that are written into FOLDER, tests it, resumes it, and asks a
recommender made of it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_GPU = torch.device("cuda", 0)
_MAY_COPY = {"copy_", "_to_copy"}
_MAY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""An index may lie on the CPU."""


class OnGpu(torch.Tensor):
    """A tensor of the GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="cpu",
        )
        made.inner = inner
        return made

    device = property(lambda _: _GPU)
    is_cuda = property(lambda _: True)

    def get_device(self) -> int:
        return 0

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __deepcopy__(self, _: Any) -> OnGpu:
        return OnGpu(self.inner.clone())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        _refuse_mixed(name, args, kwargs)
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        in_place = name == "_index_put_impl_" or (name.endswith("_") and not name.endswith("__"))
        if in_place and isinstance(args[0], torch.Tensor):
            return args[0]
        return kwargs["out"] if "out" in kwargs else tree_map(_on_gpu, result)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


def _on_gpu(value: Any) -> Any:
    plain = isinstance(value, torch.Tensor) and not isinstance(value, OnGpu)
    return OnGpu(value) if plain else value


def _refuse_mixed(name: str, args: Any, kwargs: Any) -> None:
    looked_at = [args[0], *args[2:3]] if name in _MAY_INDEX else [args, kwargs]
    tensors = [each for each in tree_leaves(looked_at) if isinstance(each, torch.Tensor)]
    on_cpu = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
    if on_cpu and len(on_cpu) < len(tensors) and name not in _MAY_COPY:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")


class _ToGpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> Any:
        return OnGpu(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _inner(gradients[0])


class _ToCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any) -> torch.Tensor:
        return tensor.inner.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _on_gpu(gradients[0])


class _Placing(TorchFunctionMode):
    """Lets ``to``, ``cpu`` and whatever takes a ``device`` know this GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "to" and len(args) + len(kwargs) > 1:
            return _moved(func, args[0], list(args[1:]), kwargs)
        if name == "cpu":
            return _ToCpu.apply(args[0]) if isinstance(args[0], OnGpu) else args[0]
        if name != "__get__" and _is_gpu(kwargs.get("device")):
            return _on_gpu(func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)


def _placed(make: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> Any:
        if _is_gpu(kwargs.get("device")):
            return _on_gpu(make(*args, **{**kwargs, "device": "cpu"}))
        return make(*args, **kwargs)

    return made


def _is_gpu(device: Any) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


def _moved(func: Any, tensor: torch.Tensor, rest: list[Any], kwargs: dict[str, Any]) -> Any:
    words = [*rest, kwargs.get("device"), kwargs.get("dtype")]
    like = [each for each in [*rest, kwargs.get("other")] if isinstance(each, torch.Tensor)]
    devices = [each for each in words if isinstance(each, str | torch.device)]
    devices += [each.device for each in like]
    types = [each for each in words if isinstance(each, torch.dtype)] + [e.dtype for e in like]
    kind = torch.device(devices[0]).type if devices else None
    if kind == "meta":
        return func(tensor, *rest, **kwargs)
    if kind == "cuda" and not isinstance(tensor, OnGpu):
        tensor = _ToGpu.apply(tensor)
    elif kind == "cpu" and isinstance(tensor, OnGpu):
        tensor = _ToCpu.apply(tensor)
    return func(tensor, types[0]) if types else tensor


class _Sparse:
    """A sparse matrix of the GPU, as far as one is multiplied."""

    def __init__(self, places: Any, values: Any, size: Any, **_: Any) -> None:
        self.places, self.values, self.rows = places, values, size[0]

    def times(self, dense: Any) -> Any:
        if {self.values.dtype, dense.dtype} != {torch.float32} or torch.is_autocast_enabled("cuda"):
            raise RuntimeError("\"addmm_sparse_cuda\" not implemented for 'Half'")
        result = dense.new_zeros(self.rows, dense.shape[1])
        return result.index_add(0, self.places[0], self.values[:, None] * dense[self.places[1]])


def install() -> None:
    """Put the GPU into this process, for good."""
    from ksr_recbole.model.kernels import fused, memory, memory_triton

    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_name = lambda *_: "fake"
    cuda.mem_get_info = lambda *_: (2**34, 2**34)
    cuda.get_rng_state = lambda *_: torch.get_rng_state()
    cuda.set_rng_state = cuda.manual_seed = cuda.manual_seed_all = lambda *_: None
    cuda.synchronize = cuda.empty_cache = lambda *_: None
    fused.compiles = memory.compiles = lambda: True
    sparse, product = torch.sparse_coo_tensor, torch.sparse.mm
    torch.sparse_coo_tensor = lambda places, *rest, **more: (
        _Sparse if isinstance(places, OnGpu) else sparse
    )(places, *rest, **more)
    torch.sparse.mm = lambda a, b: a.times(b) if isinstance(a, _Sparse) else product(a, b)
    run = memory_triton._run

    def interpreted(mode, factors, updates, values, layout, result):
        of_cpu = type(updates)(_inner(updates.table), _inner(updates.index), updates.gate_bias)
        rest = _inner(values), tuple(map(_inner, layout)), _inner(result)
        return OnGpu(run(mode, _inner(factors), of_cpu, *rest))

    memory_triton._run = interpreted
    for name in ("arange", "empty", "full", "ones", "tensor", "zeros"):
        # A backward pass does not see the mode.
        setattr(torch, name, _placed(getattr(torch, name)))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _Placing().__enter__()


def main(folder: Path, model: str, *words: str) -> None:
    """Train, test, resume and ask a model on the GPU; print what was computed where."""
    from ksr_recbole import Recommender, save_model
    from ksr_recbole.interpretability.measures import measure_explanations
    from ksr_recbole.quick_start import run
    from tests.toy import toy_values, write_toy

    warnings.filterwarnings("ignore", "PyTorch was compiled without cuDNN")
    values = {**toy_values(write_toy(folder)), "gpu_id": "0", "state": "ERROR"}
    values |= dict(word.split("=", 1) for word in words)
    install()
    measure = measure_explanations if model.startswith("KSR") else None
    result = run(model, "toy", None, values, measure=measure)
    print("trained on", result["config"]["device"], result["environment"]["gpu"])
    print("test", *result["test_result"].values())
    more = {**values, "epochs": 4, "resume": result["checkpoint"]}
    run(model, "toy", None, more)
    run(model, "toy", None, {**more, "epochs": 5, "gpu_id": ""})
    save_model(result["checkpoint"], folder / "exported")
    for device in ("cuda", "cpu"):
        recommender = Recommender.load(folder / "exported", device)
        assert recommender.device.type == device
        user = recommender.users[0]
        after = recommender.update(recommender.start(user), recommender.items[3])
        found = [*recommender.recommend(user, 3), *recommender.recommend(after, 3)]
        print("recommended on", device, *(f"{item} {score:.3f}" for item, score in found))
        if measure is not None:
            reasons = recommender.explain(user).recommendations
            print("explained on", device, *(each.item.id for each in reasons))


if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")
    main(Path(sys.argv[1]), *sys.argv[2:])
