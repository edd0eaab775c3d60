"""How far PyTorch's autocast to bf16 comes out from float64, network by network: `bf16.json`.

`python bf16.py`, after `networks.py`, whose float64 references it compares with. There is one number each for outputs and
gradients: norm of the difference over norm, over all kept entries of all tensors. The largest of two memory layouts.
"""

import json

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import formula
import models
import networks
import reference


def stored(case):
    """The kept entries of every tensor of a golden file."""
    return reference.safetensors.numpy.load_file(reference.HERE / f"network-{case}.safetensors")


def distances(case, channels_last):
    model, stem, height, width, channels, classes, n, variance, number = networks.CASES[case]
    execution = (channels_last, True, 2, False)
    net = models.build(model, stem, (channels, height, width), classes)
    reference.fill(net, "server", variance)
    net = reference.prepared(net, torch.float32, execution)
    images = formula.images(f"{case}/{number}", n, height, width, channels)
    x, y = reference.batch(images, formula.labels(case, n, classes), torch.float32, execution)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net.train()(x)
        loss = cross_entropy(logits, y)
    loss.backward()
    found = {"train/logits": logits} | {f"gradient/{name}": p.grad for name, p in net.named_parameters()}
    want, far = stored(case), {}
    for part in "train/logits", "gradient/":
        names = [name for name in want if name.startswith(part)]
        kept = [(reference.numpy(found[name]).ravel(), want[name]) for name in names]
        kept = [(values[formula.entries(name, values.size, golden.size)], golden)
                for name, (values, golden) in zip(names, kept)]
        far[part.strip("/")] = reference.distance(np.concatenate([values for values, _ in kept]),
                                                  np.concatenate([golden.ravel() for _, golden in kept]))
    return far


def golden():
    result = {}
    for case in networks.CASES:
        ways = [distances(case, channels_last) for channels_last in (False, True)]
        result[case] = {part: max(way[part] for way in ways) for part in ways[0]}
    path = reference.HERE / "bf16.json"
    path.write_text(json.dumps({"made_with": torch.__version__, "distances": result}, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    golden()
