"""Golden values of single layers and short sequences of them.

Each case is a list of operations between an input tensor of formula values and a linear head of 10 classes with
cross-entropy, which sends a dense gradient of mixed signs back. Kept are the operations' output in eval mode; the
output, the loss, the gradients of the input and of every parameter in train mode; and the running statistics after it.
For some, everything after three steps of SGD with large momentum and weight decay, the input being trained as well.

The cases are written into the file, in its metadata, so that they are defined only here.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import formula
import reference

CLASSES = 10
SGD = dict(lr=1 / 8, momentum=7 / 8, weight_decay=1 / 8)
STEPS = 3


def conv(name, channels, kernel, stride=1, padding=0, groups=1, bias=False):
    kernel = kernel if isinstance(kernel, list) else [kernel, kernel]
    return dict(op="conv2d", name=name, in_channels=channels[0], out_channels=channels[1], kernel=kernel,
                stride=stride, padding=padding, groups=groups, bias=bias)


def norm(name, channels):
    return dict(op="batch_norm2d", name=name, channels=channels)


def group_norm(name, channels, groups, affine=True):
    return dict(op="group_norm", name=name, channels=channels, groups=groups, affine=affine)


def pool(kernel, stride, padding=0):
    return dict(op="max_pool", kernel=kernel, stride=stride, padding=padding)


def linear(name, inputs, outputs):
    return dict(op="linear", name=name, in_features=inputs, out_features=outputs)


def residual(main, shortcut):
    return dict(op="residual", main=main, shortcut=shortcut)


RELU, RELU6, AVERAGE, FLATTEN = ({"op": op} for op in ("relu", "relu6", "global_avg_pool", "flatten"))


def basic_block(c_in, c_out, stride, norm=norm):
    """ResNet's, with a projection where the shape changes."""
    shortcut = [] if (c_in, stride) == (c_out, 1) else [conv("down", [c_in, c_out], 1, stride), norm("down_bn", c_out)]
    return [residual([conv("conv1", [c_in, c_out], 3, stride, 1), norm("bn1", c_out), RELU,
                      conv("conv2", [c_out, c_out], 3, 1, 1), norm("bn2", c_out)], shortcut), RELU]


def cases():
    """name -> (batch, channels, height, width, operations, extras)"""
    found = {}

    def add(name, n, chw, *ops, **extras):
        assert name not in found
        found[name] = dict(batch=n, channels=chw[0], height=chw[1], width=chw[2], ops=list(ops), **extras)

    for n, chw, c_out, kernel, stride, padding, groups, bias in [
        (7, (5, 6, 5), 33, 1, 1, 0, 1, False),
        (7, (33, 7, 6), 16, 1, 2, 0, 1, False),
        (1, (3, 4, 5), 5, 1, 1, 1, 1, True),
        (7, (16, 8, 7), 33, 3, 1, 1, 1, True),
        (7, (33, 9, 8), 16, 3, 2, 1, 1, False),
        (1, (1, 5, 4), 5, 3, 1, 0, 1, False),
        (7, (5, 7, 8), 3, 3, 2, 0, 1, True),
        (7, (3, 5, 6), 16, 3, 1, 2, 1, False),
        (1, (3, 2, 2), 5, 3, 1, 3, 1, False),
        (7, (16, 1, 1), 16, 3, 1, 1, 1, False),
        (7, (33, 2, 2), 33, 3, 2, 1, 1, False),
        (7, (1, 9, 10), 16, 5, 1, 0, 1, True),
        (7, (3, 8, 9), 33, 5, 2, 2, 1, False),
        (7, (3, 11, 9), 16, 7, 2, 3, 1, False),
        (1, (5, 4, 9), 5, 7, 1, 3, 1, True),
        (7, (5, 5, 6), 16, [1, 3], 1, 1, 1, False),
        (1, (16, 9, 7), 5, [5, 3], 2, 1, 1, True),
        (7, (16, 6, 5), 8, 3, 1, 1, 4, True),
        (7, (33, 5, 6), 33, 3, 2, 1, 3, False),
        (1, (5, 7, 7), 10, 5, 1, 2, 5, True),
        (7, (16, 4, 4), 16, 1, 1, 0, 2, False),
        # Depthwise.
        (7, (1, 6, 5), 1, 3, 1, 1, 1, False),
        (7, (3, 6, 7), 3, 3, 2, 1, 3, False),
        (7, (16, 7, 6), 16, 3, 1, 1, 16, False),
        (7, (33, 8, 8), 33, 3, 2, 1, 33, False),
        (1, (33, 7, 9), 33, 3, 1, 0, 33, True),
        (7, (16, 9, 8), 16, 5, 2, 2, 16, False),
        (7, (33, 1, 1), 33, 3, 1, 1, 33, False),
        (7, (33, 2, 2), 33, 3, 2, 1, 33, False),
    ]:
        shape = "x".join(map(str, kernel)) if isinstance(kernel, list) else kernel
        name = f"conv k{shape} s{stride} p{padding} g{groups} {chw[0]}-{c_out} {chw[1]}x{chw[2]} n{n}"
        add(name, n, chw, conv("layer", [chw[0], c_out], kernel, stride, padding, groups, bias))
    for n, chw in [(7, (5, 4, 3)), (1, (16, 3, 5)), (7, (33, 1, 1)), (7, (1, 6, 7)), (2, (16, 1, 1))]:
        add(f"batch norm {chw[0]} {chw[1]}x{chw[2]} n{n}", n, chw, norm("layer", chw[0]))
    add("batch norm far from 0", 7, (5, 4, 3), norm("layer", 5), scale=0.1, shift=3.0)
    for n, chw, groups, affine in [(7, (6, 4, 3), 2, True), (1, (16, 3, 5), 16, True), (7, (48, 1, 1), 2, True),
                                   (7, (64, 5, 4), 2, False), (3, (40, 6, 7), 1, True), (7, (33, 3, 2), 3, False),
                                   (1, (80, 9, 9), 20, True)]:
        name = f"group norm {chw[0]} in {groups} {chw[1]}x{chw[2]} n{n}{'' if affine else ' plain'}"
        add(name, n, chw, group_norm("layer", chw[0], groups, affine))
    add("group norm far from 0", 7, (6, 4, 3), group_norm("layer", 6, 2), scale=0.1, shift=3.0)
    add("conv gn relu", 7, (3, 7, 6), conv("conv", [3, 32], 3, 1, 1), group_norm("gn", 32, 2), RELU)
    add("conv gn relu6 wide", 2, (3, 7, 6), conv("conv", [3, 48], 3, 1, 1), group_norm("gn", 48, 1), RELU6)
    for groups in (1, 2, 8):
        add(f"residual of group norms in {groups}", 7, (5, 6, 5),
            *basic_block(5, 32, 2, lambda name, channels: group_norm(name, channels, groups)))
        add(f"residual of input and group norm in {groups}", 3, (32, 5, 4),
            *basic_block(32, 32, 1, lambda name, channels: group_norm(name, channels, groups)))
    for n, chw in [(7, (5, 4, 3)), (1, (33, 2, 5))]:
        add(f"relu {chw[0]} n{n}", n, chw, RELU)
        add(f"relu6 {chw[0]} n{n}", n, chw, RELU6, scale=12.0)
    for kernel, stride, padding, c, h, w, n in [(2, 2, 0, 5, 6, 8, 7), (2, 2, 0, 33, 7, 5, 1), (3, 2, 1, 16, 7, 8, 7),
                                                (3, 2, 1, 5, 6, 6, 1), (3, 1, 1, 3, 4, 5, 7), (2, 1, 0, 1, 5, 4, 7)]:
        name = f"max pool k{kernel} s{stride} p{padding} {c} {h}x{w} n{n}"
        add(name, n, (c, h, w), pool(kernel, stride, padding))
        add(f"{name} ties", n, (c, h, w), pool(kernel, stride, padding), levels=2)
    add("global average pool n7", 7, (33, 4, 5), AVERAGE)
    add("global average pool n1", 1, (5, 7, 3), AVERAGE)
    add("flatten linear n7", 7, (5, 4, 3), FLATTEN, linear("layer", 60, 33))
    add("flatten linear n1", 1, (16, 3, 3), FLATTEN, linear("layer", 144, 5))
    add("linear linear", 7, (33, 1, 1), linear("layer", 33, 16), RELU, linear("layer2", 16, 5))
    add("average pool flatten linear", 7, (16, 3, 2), AVERAGE, FLATTEN, linear("layer", 16, 33))
    add("residual", 7, (16, 5, 4), *basic_block(16, 16, 1))
    add("residual projection", 7, (5, 6, 5), *basic_block(5, 16, 2))
    add("residual projection n1", 1, (3, 5, 5), *basic_block(3, 33, 2))
    add("residual of pools", 7, (5, 5, 4), residual([pool(3, 1, 1)], []))
    add("residual twice", 7, (5, 4, 4), conv("first", [5, 16], 3, 1, 1),
        residual([conv("a", [16, 16], 3, 1, 1), RELU], []), residual([], [conv("b", [16, 16], 1)]), RELU)
    add("conv bn relu", 7, (3, 7, 6), conv("conv", [3, 33], 3, 1, 1), norm("bn", 33), RELU)
    add("conv bn relu6 n1", 1, (16, 6, 6), conv("conv", [16, 16], 3, 2, 1), norm("bn", 16), RELU6)
    add("conv bias bn", 7, (3, 7, 6), conv("conv", [3, 5], 3, 1, 1, bias=True), norm("bn", 5), RELU)
    add("conv bias relu max pool", 7, (1, 9, 9), conv("conv", [1, 16], 5, bias=True), RELU, pool(2, 2))
    add("stem", 7, (3, 11, 10), conv("conv", [3, 16], 7, 2, 3), norm("bn", 16), RELU, pool(3, 2, 1))
    add("separable", 7, (33, 6, 6), conv("dw", [33, 33], 3, 2, 1, 33), norm("bn1", 33), RELU6,
        conv("pw", [33, 16], 1), norm("bn2", 16), RELU6)
    add("cross-entropy of large logits", 7, (5, 1, 1), linear("layer", 5, 33), scale=300.0)
    for name in ["conv k3 s1 p1 g4 16-8 6x5 n7", "conv k3 s1 p0 g33 33-33 7x9 n1", "batch norm 5 4x3 n7", "stem",
                 "flatten linear n7", "residual projection", "conv bias bn", "separable", "group norm 6 in 2 4x3 n7",
                 "residual of group norms in 2"]:
        found[name]["steps"] = True
    return found


class Ops(nn.Module):
    """The operations of a case, with each parameter under its operation's name."""

    def __init__(self, ops):
        super().__init__()
        self.ops = ops
        self.register(ops)

    def register(self, ops):
        for op in ops:
            if op["op"] == "conv2d":
                self.add_module(op["name"], nn.Conv2d(op["in_channels"], op["out_channels"], op["kernel"], op["stride"],
                                                      op["padding"], groups=op["groups"], bias=op["bias"]))
            elif op["op"] == "batch_norm2d":
                self.add_module(op["name"], nn.BatchNorm2d(op["channels"]))
            elif op["op"] == "group_norm":
                self.add_module(op["name"], nn.GroupNorm(op["groups"], op["channels"], affine=op["affine"]))
            elif op["op"] == "linear":
                self.add_module(op["name"], nn.Linear(op["in_features"], op["out_features"]))
            elif op["op"] == "residual":
                self.register(op["main"] + op["shortcut"])

    def forward(self, x, ops=None):
        for op in self.ops if ops is None else ops:
            kind = op["op"]
            if "name" in op:
                x = getattr(self, op["name"])(x.flatten(1) if kind == "linear" else x)
            elif kind == "residual":
                x = self(x, op["main"]) + self(x, op["shortcut"])
            elif kind == "max_pool":
                x = nn.functional.max_pool2d(x, op["kernel"], op["stride"], op["padding"])
            else:
                x = {"relu": nn.functional.relu, "relu6": nn.functional.relu6, "flatten": lambda x: x.flatten(1),
                     "global_avg_pool": lambda x: x.mean((2, 3), keepdim=True)}[kind](x)
        return x


def compute(name, case, dtype, execution):
    c, n = case["channels"], case["batch"]
    shape = (c, n, case["height"], case["width"])
    # Channel first, as the parameter that stands for the input in the engine's test.
    values = formula.unit(f"{name}/input", c * n * shape[2] * shape[3])
    values = formula.spread(values, case.get("scale", 1.0), case.get("shift", 0.0), case.get("levels"))
    source = torch.from_numpy(values.reshape(shape)).to(dtype).requires_grad_()
    x = source.transpose(0, 1)
    if execution[0]:
        x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(formula.labels(name, n, CLASSES))
    ops = Ops(case["ops"])
    reference.fill(ops, name)
    ops = reference.prepared(ops, dtype, execution)
    with torch.no_grad():
        output = ops.eval()(x)
    case["features"] = output[0].numel()
    head = nn.Linear(output[0].numel(), CLASSES)
    reference.fill(head, f"{name}/head")
    head = head.to(dtype)
    trained = ops.train()(x)
    loss = cross_entropy(head(trained.flatten(1)), y)
    loss.backward()
    results = {"output/eval": output, "output/train": trained, "loss": loss, "gradient/input": source.grad}
    results |= {f"gradient/{key}": p.grad for key, p in ops.named_parameters()}
    results |= {f"gradient/head.{key}": p.grad for key, p in head.named_parameters()}
    results |= {f"buffer/{key}": p for key, p in ops.named_buffers() if "running" in key}
    results = {key: reference.numpy(value) for key, value in results.items()}
    if case.get("steps"):
        optimizer = torch.optim.SGD([source, *ops.parameters(), *head.parameters()], **SGD)
        optimizer.step()
        for _ in range(STEPS - 1):
            optimizer.zero_grad()
            cross_entropy(head(ops(source.transpose(0, 1)).flatten(1)), y).backward()
            optimizer.step()
        results["stepped/input"] = reference.numpy(source)
        results |= {f"stepped/{key}": value for key, value in reference.state(ops).items()}
        results |= {f"stepped/head.{key}": value for key, value in reference.state(head).items()}
    return results


def golden():
    every, described = {}, cases()
    distances = {}
    for name, case in described.items():
        limits = {"gradient": 256, "output": 256, "stepped": 256}
        tensors, scalars = reference.compared(lambda *how: compute(name, case, *how), limits)
        every |= {f"{name}/{key}": value for key, value in tensors.items()}
        distances |= {f"{name}/{key}": value for key, value in scalars["distances"].items()}
    scalars = {"cases": described, "sgd": SGD, "steps": STEPS, "distances": distances}
    reference.write("layers.safetensors", every, scalars)


if __name__ == "__main__":
    golden()
