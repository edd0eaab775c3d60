"""Golden values of whole networks: one train-mode step's outputs, loss and gradients, and eval-mode outputs and loss.

`python networks.py [case ...]`
"""

import sys

import torch
from torch.nn.functional import cross_entropy

import formula
import models
import reference

# case: (model, stem, height, width, channels, classes, batch, running variance in eval mode, number of the images)
# The running variances keep eval-mode activations at a sane size. `seeds.py` says how the images were chosen; the
# inputs are small so that there are few activations to choose for.
CASES = {
    "mlp": ("mlp", None, 28, 28, 1, 10, 7, 1.0, 112),
    "cnn": ("cnn", None, 28, 28, 1, 10, 7, 1.0, 67),
    "resnet34-imagenet": ("resnet34", "imagenet", 32, 32, 3, 10, 8, 8.0, 92),
    "resnet34-cifar": ("resnet34", "cifar", 8, 8, 3, 10, 8, 8.0, 10),
    "mobilenet_v1-imagenet": ("mobilenet_v1", "imagenet", 32, 32, 3, 10, 8, 1.5, 30),
    "mobilenet_v1-cifar": ("mobilenet_v1", "cifar", 16, 16, 3, 10, 8, 1.5, 59),
    "resnet34-batch20": ("resnet34", "imagenet", 16, 16, 3, 10, 20, 8.0, 1),
    "mobilenet_v1-batch20": ("mobilenet_v1", "imagenet", 16, 16, 3, 10, 20, 1.5, 63),
}
# Enough samples for kernels that do not multiply fewer: too many activations for images that keep all of them away from
# kinks, so the parameters are calm, and the images some on which none of PyTorch's float32 gradients is off by more than 1e-3.
CALM = {"resnet34-batch20", "mobilenet_v1-batch20"}


def golden(case):
    model, stem, height, width, channels, classes, n, variance, number = CASES[case]
    images = formula.images(f"{case}/{number}", n, height, width, channels)
    labels = formula.labels(case, n, classes)

    def compute(dtype, execution):
        net = models.build(model, stem, (channels, height, width), classes)
        reference.fill(net, "server", variance, calm=case in CALM)
        net = reference.prepared(net, dtype, execution)
        x, y = reference.batch(images, labels, dtype, execution)
        unflip = (lambda t: t.flip(0)) if execution[3] else (lambda t: t)
        net.eval()
        with torch.no_grad():
            logits = net(x)
            results = {"eval/logits": unflip(logits), "eval/loss": cross_entropy(logits, y)}
        net.train()
        logits = net(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        results |= {"train/logits": unflip(logits), "train/loss": loss}
        results |= {f"gradient/{name}": p.grad for name, p in net.named_parameters()}
        results = {name: reference.numpy(value) for name, value in results.items()}
        # The forward pass in train mode has moved the running statistics.
        return results | {f"buffer/{name}": value for name, value in reference.state(net).items()
                          if "running" in name}

    limit = 512 if stem else 2048
    tensors, scalars = reference.compared(compute, {"gradient": limit, "buffer": limit})
    scalars["case"] = dict(model=model, stem=stem, height=height, width=width, channels=channels, classes=classes,
                           batch=n, variance=variance, number=number, calm=case in CALM)
    scalars["losses"] = {mode: float(tensors[f"{mode}/loss"][0]) for mode in ("train", "eval")}
    reference.write(f"network-{case}.safetensors", tensors, scalars)


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        golden(case)
