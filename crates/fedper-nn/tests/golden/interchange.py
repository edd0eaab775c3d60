"""Weight files as PyTorch writes them: a whole `mlp`, and a small network with every kind of parameter.

The weights are PyTorch's own random initialisation and a training step away from it, not the formula's: only the file
can tell them.
"""

import safetensors.torch
import torch
from torch.nn.functional import cross_entropy

import formula
import layers
import models
import reference

OPS = [layers.conv("stem.conv", [3, 8], 3, 1, 1), layers.norm("stem.bn", 8), layers.RELU6,
       layers.conv("dw", [8, 8], 3, 2, 1, 8), layers.conv("pw", [8, 12], 1, bias=True), layers.norm("bn", 12),
       layers.RELU, layers.FLATTEN, layers.linear("fc", 108, 4)]


class Nested(layers.Ops):
    """`Ops` with the dotted names of nested modules."""

    def add_module(self, name, module):
        if "." in name:
            parent, name = name.split(".")
            if not hasattr(self, parent):
                super().add_module(parent, torch.nn.Module())
            getattr(self, parent).add_module(name, module)
        else:
            super().add_module(name, module)

    def forward(self, x):
        for op in self.ops:
            x = self.get_submodule(op["name"])(x.flatten(1) if op["op"] == "linear" else x) if "name" in op else \
                super().forward(x, [op])
        return x


def golden():
    torch.manual_seed(1912_00818)
    torch.set_num_threads(1)
    tensors = {}
    for name, net, (c, h, w), classes in [("mlp", models.build("mlp", None, (1, 4, 4), 10), (1, 4, 4), 10),
                                          ("small", Nested(OPS), (3, 6, 5), 4)]:
        x = torch.from_numpy(formula.images(f"interchange-{name}", 5, h, w, c)).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(formula.labels(f"interchange-{name}", 5, classes))
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        cross_entropy(net.train()(x), y).backward()
        optimizer.step()
        path = reference.HERE / f"pytorch-{name}.safetensors"
        safetensors.torch.save_file(net.state_dict(), path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB,", list(net.state_dict()))
        with torch.no_grad():
            tensors[name] = net.eval()(x).numpy()
    reference.write("interchange.safetensors", tensors, {"ops": OPS})


if __name__ == "__main__":
    golden()
