"""A pretended accelerator, `npu`: its tensors lie on the CPU, none is float64, and none mixes with the CPU's own.

Importing it renames torch's spare kind of device, so it is for processes of their own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("npu")
torch.npu.empty_cache = lambda: None  # type: ignore[attr-defined]
# transformers 4.55 asks for it where it turns autocast off
torch.npu.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]  # type: ignore[attr-defined]
NPU = torch.device("npu:0")


class OnNpu(Tensor):
    """A tensor that says that it lies on the pretended device; its values are those of `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnNpu":
        if held.dtype == torch.float64:
            raise TypeError("npu: there is no float64 here")
        strides, offset = held.stride(), held.storage_offset()
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, held.shape, strides=strides, storage_offset=offset, dtype=held.dtype, device=NPU
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnNpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """Makes tensors on the pretended device where they are asked for there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function.overloadpacket.__name__
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    ours = [tensor for tensor in tensors if isinstance(tensor, OnNpu)]
    others = [tensor for tensor in tensors if not isinstance(tensor, OnNpu) and tensor.dim()]
    wanted = kwargs.get("device")
    if ours and others and name not in ("copy_", "_copy_from"):
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, npu and cpu")
    to_npu = torch.device(wanted).type == "npu" if wanted is not None else bool(ours)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnNpu, lambda tensor: tensor.held, (args, kwargs))
    found = function(*args, **kwargs)
    if name.endswith("_") and ours:  # in place: the very tensor that it was
        return tensors[0]
    if not to_npu:
        return found.clone() if name == "_to_copy" else found
    return tree_map_only(Tensor, OnNpu, found)
