"""What the golden scripts share: float64 references, PyTorch's own float32 executions, and the files.

A file is safetensors: float32 values of the float64 reference under names such as `gradient/fc.weight`, large tensors
at `formula.entries` only, and one JSON object of scalars in the metadata under "golden". Its "distances" say, for each
tensor, how far PyTorch's own float32 comes out from float64: norm of the difference over norm, the largest over
`EXECUTIONS`, `[over the kept entries, over the full tensor]`. The first is what our engine is compared with, since it
is measured over the same entries; the second shows that the sample is a fair one.
"""

import contextlib
import json
import pathlib

import numpy as np
import safetensors
import safetensors.numpy
import timm
import torch
import torchvision

import formula

HERE = pathlib.Path(__file__).parent

# Ways PyTorch computes the same float32 step: (channels last, oneDNN, threads, samples of each batch reversed).
# They differ only in the order of additions. One of them alone would be one draw of the rounding error; where an
# activation lies so close to 0 that rounding decides whether ReLU lets it pass, draws differ by large factors.
EXECUTIONS = [(last, onednn, threads, reverse)
              for last in (False, True) for onednn, threads in ((True, 2), (True, 1), (False, 1))
              for reverse in (False, True)]
F64 = (False, True, 2, False)


@contextlib.contextmanager
def executing(execution):
    """Sets threads and oneDNN for one execution."""
    torch.set_num_threads(execution[2])
    with torch.backends.mkldnn.flags(enabled=execution[1]):
        yield


def prepared(module, dtype, execution):
    """`module` in `dtype` and in the execution's memory layout."""
    layout = torch.channels_last if execution[0] else torch.contiguous_format
    return module.to(dtype).to(memory_format=layout)


def batch(images, labels, dtype, execution):
    """`images` [N, H, W, C] and `labels` as PyTorch wants them."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)
    y = torch.from_numpy(labels)
    if execution[3]:
        x, y = x.flip(0), y.flip(0)
    layout = torch.channels_last if execution[0] else torch.contiguous_format
    return x.contiguous(memory_format=layout), y


def fill(module, owner, variance=1.0, names=None, calm=False):
    """Loads `owner`'s formula values into `module`, into the parameters called `names` or into all."""
    state = module.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked") and (names is None or name in names):
            values = torch.from_numpy(formula.parameter(owner, name, value.shape, variance, calm))
            state[name] = values.to(value.dtype)
    module.load_state_dict(state)


def state(module):
    """Parameters and buffers as float64 arrays."""
    return {name: numpy(value) for name, value in module.state_dict().items()
            if not name.endswith("num_batches_tracked")}


def numpy(tensor):
    return tensor.detach().to(torch.float64).contiguous().numpy().copy()


def distance(got, want):
    """Norm of the difference over norm; the norm of `got` where zero is expected, up to float64's rounding."""
    norm = float(np.linalg.norm(want))
    return float(np.linalg.norm(got - want)) / norm if norm > 1e-12 else float(np.linalg.norm(got))


def compared(compute, limits):
    """Runs `compute(dtype, execution) -> {name: array}` in float64 and in every float32 execution.

    `limits` maps the part of a name before its first `/` to how many entries are kept. Returns the tensors to store
    and the scalars that describe them.
    """
    with executing(F64):
        want = compute(torch.float64, F64)
    runs = []
    for execution in EXECUTIONS:
        with executing(execution):
            runs.append(compute(torch.float32, execution))
    tensors, distances = {}, {}
    for name, value in want.items():
        flat = value.ravel()
        kept = formula.entries(name, flat.size, limits.get(name.split("/")[0], flat.size))
        tensors[name] = flat[kept].astype(np.float32)
        far = [distance(run[name].ravel()[kept], flat[kept]) for run in runs]
        contiguous = [d for d, execution in zip(far, EXECUTIONS) if not execution[0]]
        distances[name] = [max(contiguous), max(far), max(distance(run[name].ravel(), flat) for run in runs)]
    return tensors, {"distances": distances}


def write(path, tensors, scalars):
    """One golden file, with the versions that made it."""
    scalars["made_with"] = {
        "torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__,
        "numpy": np.__version__, "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    path = HERE / path
    safetensors.numpy.save_file(tensors, path, metadata={"golden": json.dumps(scalars)})
    worst = sorted(scalars.get("distances", {}).items(), key=lambda item: -item[1][0])[:3]
    losses = scalars.get("losses", {})
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB,", losses, "furthest float32:", worst, flush=True)
