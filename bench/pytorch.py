"""One PyTorch process that trains: started by `compare.py`, driven by JSON lines on standard input.

`python pytorch.py --model M --stem S --classes N --check FILE --lr RATE --momentum FACTOR
--threads N [--bf16]`

FILE is what `fedper bench train --check` wrote: initial weights, a batch and the losses of its first steps. The process
prints one JSON line when it is ready, and one for each request `{"way": W, "start": T, "end": T}`: the seconds of
each step that began after `start`, on the system's monotonic clock. It is busy from the request on until after `end`.
A way is a memory layout; with `--bf16` there are two more, with autocast to bf16.
"""

import argparse
import json
import pathlib
import sys
import time

import safetensors.numpy
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "crates/fedper-nn/tests/golden"))
import models  # noqa: E402

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
OPTIMIZERS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
MIN_STEPS = 3


class Trainer:
    """A network with the file's weights and batch, in one memory layout and precision."""

    def __init__(self, args, check, layout, bf16, optimizer="for-loop"):
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
        images = torch.from_numpy(check["batch.images"]).permute(0, 3, 1, 2)
        self.images = images.contiguous(memory_format=LAYOUTS[layout])
        self.labels = torch.from_numpy(check["batch.labels"]).long()
        self.net = models.build(args.model, args.stem, tuple(images.shape[1:]), args.classes)
        state = {name: torch.from_numpy(value) for name, value in check.items()
                 if not name.startswith("batch.") and name != "losses"}
        missing, unexpected = self.net.load_state_dict(state, strict=False)
        assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
        self.net.to(memory_format=LAYOUTS[layout]).train()
        self.sgd = {"lr": args.lr, "momentum": args.momentum}
        self.use(optimizer)

    def use(self, optimizer):
        self.optimizer = torch.optim.SGD(self.net.parameters(), **self.sgd, **OPTIMIZERS[optimizer])

    def step(self):
        """One step of SGD; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = cross_entropy(self.net(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def fastest_optimizer(self):
        """The implementation of SGD whose step alone takes least, with gradients and momentum in place."""
        seconds = {}
        for name in OPTIMIZERS:
            self.use(name)
            self.step()
            seconds[name] = min(timed(self.optimizer.step) for _ in range(5))
        best = min(seconds, key=seconds.get)
        self.use(best)
        return best


def timed(step):
    start = time.monotonic()
    step()
    return time.monotonic() - start


def measure(trainer, start, end):
    seconds = []
    while True:
        now = time.monotonic()
        if now >= end and len(seconds) >= MIN_STEPS:
            return seconds
        took = timed(trainer.step)
        if now >= start:
            seconds.append(took)


def main():
    parser = argparse.ArgumentParser()
    for name in "model", "stem", "check":
        parser.add_argument(f"--{name}", required=True)
    for name, kind in ("classes", int), ("lr", float), ("momentum", float), ("threads", int):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Subnormal velocities and gradients slow a step down several times; ours makes them 0 too.
    torch.set_flush_denormal(True)
    check = safetensors.numpy.load_file(args.check)
    ready = {"torch": torch.__version__, "losses": {}, "optimizer": {}, "step_seconds": {}}
    trainers = {}
    ways = {f"{layout}, bf16" if bf16 else layout: (layout, bf16)
            for bf16 in ([False, True] if args.bf16 else [False]) for layout in LAYOUTS}
    for way, (layout, bf16) in ways.items():
        trainer = Trainer(args, check, layout, bf16)
        ready["losses"][way] = [trainer.step().item() for _ in check["losses"]]
        ready["optimizer"][way] = trainer.fastest_optimizer()
        ready["step_seconds"][way] = timed(trainer.step)
        trainers[way] = trainer
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = measure(trainers[request["way"]], request["start"], request["end"])
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
