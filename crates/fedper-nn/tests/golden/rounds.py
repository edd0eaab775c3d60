"""Golden values of two FedPer rounds over three devices: arXiv:1912.00818, algorithms 1 and 2, in plain PyTorch.

Devices hold different numbers of samples, the last batch is not full, samples come in order. Each device starts with
personal layers of its own; batch-norm running statistics are averaged with the base or stay with the personal layers;
momentum starts at zero in each round. Learning rate, momentum and weight decay are binary fractions, so that they are
the same numbers in float32 and float64.

`python rounds.py [case ...]`
"""

import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import formula
import models
import reference

ROUNDS = 2
MOMENTUM, WEIGHT_DECAY = 7 / 8, 1 / 2048

# The deep networks start from calm weights (`formula.parameter`). Freshly initialised ones are chaotic on batches of 8:
# after a few steps, two float32 executions of PyTorch differ by as much as the steps moved the weights, and nothing
# could be compared. From calm weights they differ by some per cent of that.
# case: (model, stem, height, width, channels, classes, samples per device, batch, local epochs, K_P, learning rate)
CASES = {
    "mlp": ("mlp", None, 28, 28, 1, 10, (7, 12, 20), 5, 2, 1, 1 / 256),
    "cnn": ("cnn", None, 28, 28, 1, 10, (7, 12, 20), 5, 2, 1, 1 / 256),
    "resnet34-imagenet": ("resnet34", "imagenet", 64, 64, 3, 10, (8, 12, 20), 8, 1, 2, 1 / 512),
    "resnet34-cifar": ("resnet34", "cifar", 16, 16, 3, 10, (8, 12, 20), 8, 1, 2, 1 / 512),
    "mobilenet_v1-imagenet": ("mobilenet_v1", "imagenet", 64, 64, 3, 10, (8, 12, 20), 8, 1, 2, 1 / 128),
    "mobilenet_v1-cifar": ("mobilenet_v1", "cifar", 32, 32, 3, 10, (8, 12, 20), 8, 1, 2, 1 / 128),
}


def train(net, images, labels, batch, epochs, lr, dtype, execution):
    """One device's local training; returns the sum of the samples' losses as they were met."""
    optimizer = torch.optim.SGD(net.parameters(), lr, MOMENTUM, weight_decay=WEIGHT_DECAY)
    net.train()
    total = 0.0
    for _ in range(epochs):
        for start in range(0, len(labels), batch):
            x, y = reference.batch(images[start:start + batch], labels[start:start + batch], dtype, execution)
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
    return total


def golden(case):
    model, stem, height, width, channels, classes, samples, batch, epochs, k_p, lr = CASES[case]
    devices = range(len(samples))
    data = [(formula.normalised(formula.pixels(f"{case}/device-{j}", samples[j], height, width, channels)),
             formula.labels(f"{case}/device-{j}", samples[j], classes)) for j in devices]

    def compute(dtype, execution):
        net = models.build(model, stem, (channels, height, width), classes)
        of_device = models.personal_names(model, net, k_p)
        calm = stem is not None
        reference.fill(net, "server", calm=calm)
        take = lambda names: {name: net.state_dict()[name].to(dtype, copy=True) for name in names}
        base = take([name for name in net.state_dict() if name not in of_device])
        personal = []
        for j in devices:
            reference.fill(net, f"device-{j}", names=of_device, calm=calm)
            personal.append(take(of_device))
        net = reference.prepared(net, dtype, execution)
        results = {}
        for k in range(ROUNDS):
            # Sums over devices in float64, rounded once: the server's part adds no error worth speaking of.
            total = {name: np.zeros(value.shape) for name, value in base.items()}
            for j in devices:
                net.load_state_dict(base | personal[j])
                loss = train(net, *data[j], batch, epochs, lr, dtype, execution)
                results[f"loss/{k}/{j}"] = np.array([loss / (samples[j] * epochs)])
                state = {name: value.detach().clone() for name, value in net.state_dict().items()}
                personal[j] = {name: state[name] for name in of_device}
                for name in base:
                    total[name] += samples[j] / sum(samples) * reference.numpy(state[name])
            base = {name: torch.from_numpy(total[name]).to(value.dtype) for name, value in base.items()}
        keep = lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        results |= {f"base/{name}": reference.numpy(value) for name, value in keep(base).items()}
        for j in devices:
            results |= {f"device-{j}/{name}": reference.numpy(value) for name, value in keep(personal[j]).items()}
        return results

    limits = {key: 256 if stem else 1024 for key in ["base", *(f"device-{j}" for j in devices)]}
    tensors, scalars = reference.compared(compute, limits)
    scalars["case"] = dict(model=model, stem=stem, height=height, width=width, channels=channels, classes=classes,
                           samples=samples, batch=batch, local_epochs=epochs, personal_layers=k_p, rounds=ROUNDS,
                           calm=stem is not None, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    scalars["losses"] = {name: float(value[0]) for name, value in tensors.items() if name.startswith("loss")}
    reference.write(f"rounds-{case}.safetensors", tensors, scalars)


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        golden(case)
