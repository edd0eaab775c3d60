"""Chooses the images of the networks' cases: those whose activations keep away from the kinks of ReLU.

A deep network has about a million activations. Where one lies closer to 0 (or to 6, for ReLU6) than float32 resolves,
rounding decides whether its gradient passes, and one such decision moves whole gradients by up to some percent: no
float32 computation can then be told from another, right or wrong, below that. Among many numbered sets of images
there are some without such an activation, and on those PyTorch's float32 gradients agree with float64 a thousand
times better, so that a test on them sees a thousand times smaller mistakes.

`python seeds.py [case ...]` prints, for each case, the best numbers with their margins: the smallest distance of
any activation from a kink, over the float32 error (rms) of its layer. `networks.py` holds the number chosen.
"""

import sys

import torch
from torch import nn

import formula
import models
import networks
import reference

COUNT = 300


def observed(net, x, look):
    """Runs `net` on `x` and collects `look(module, input)` of every ReLU."""
    seen = []
    hooks = [module.register_forward_pre_hook(lambda module, inputs: seen.append(look(module, inputs[0])))
             for module in net.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return seen


def margins(module, z):
    margin = z.abs().min()
    if isinstance(module, nn.ReLU6):
        margin = torch.minimum(margin, (z - 6).abs().min())
    return margin.item()


def search(case):
    model, stem, height, width, channels, classes, n, variance, _ = networks.CASES[case]

    def network(dtype):
        net = models.build(model, stem, (channels, height, width), classes)
        reference.fill(net, "server", variance)
        return reference.prepared(net, dtype, reference.F64).train()

    def images(number, dtype):
        values = formula.images(f"{case}/{number}", n, height, width, channels)
        return reference.batch(values, formula.labels(case, n, classes), dtype, reference.F64)[0]

    torch.set_num_threads(1)
    exact = network(torch.float64)
    keep = lambda module, z: z.clone()
    pairs = zip(observed(exact, images(0, torch.float64), keep),
                observed(network(torch.float32), images(0, torch.float32), keep))
    errors = [(b.double() - a).pow(2).mean().sqrt().item() for a, b in pairs]
    scores = []
    for number in range(COUNT):
        found = observed(exact, images(number, torch.float64), margins)
        scores.append((min(margin / error for margin, error in zip(found, errors)), number))
    scores.sort(reverse=True)
    print(case, scores[:3], "median", scores[COUNT // 2][0], flush=True)


if __name__ == "__main__":
    for case in sys.argv[1:] or networks.CASES:
        search(case)
