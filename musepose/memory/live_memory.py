"""Counts live tensor memory, also of tensors without data on the meta device."""

import weakref
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that operations create, for as long as anything refers to them."""

    def __init__(self, resident: Iterable[Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        for tensor in resident:
            self._see(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class MetaDeviceMode(TorchFunctionMode):
    """Makes the meta device count like a real one.

    Attention is fused: no matrix of attention weights. A copy to the CPU becomes a tensor of that shape without
    storage, since the meta device cannot copy to the CPU; a copy back has storage again.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            query, value = args[0], (args[2] if len(args) > 2 else kwargs["value"])
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        if function is Tensor.to:
            target = args[1] if len(args) > 1 else (kwargs or {}).get("device")
            if str(target) == "cpu" and args[0].is_meta:
                return args[0].new_empty(1).expand(args[0].shape)
            if target is not None and args[0].ndim and not any(args[0].stride()):
                return args[0].contiguous()
        return function(*args, **(kwargs or {}))
