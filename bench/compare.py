"""fedper against its peers, in turn on one machine.

`python bench/compare.py train`                 a training step, against PyTorch
`python bench/compare.py round --pfllib DIR`    a FedPer round on Fashion-MNIST, against PFLlib's own code

train: PyTorch runs in both memory layouts (contiguous, channels last) and both ways to use the cores (one process with a thread
a core, one process a core), with the fastest of its implementations of SGD. Each round measures all four and fedper, one
after the other, in rotating order; PyTorch's best is the one with the highest median. Both sides train the same network
from the same weights on the same batch in memory; before anything is measured, their losses are compared. With
`--precision bf16` ours computes in bf16, and PyTorch in float32 as well as with autocast to bf16.

round: DIR is a checkout of https://github.com/TsingZ0/PFLlib, --python an interpreter that has what it imports (torch,
torchvision, scikit-learn, h5py, cvxpy, matplotlib, calmsize). Both train the same network on 20 devices with 2 classes
each, 52,500 images in batches of 10. Evaluation differs, so training is compared alone too: PFLlib tests every device
on its test images and on its training images, fedper on its test images after training and after the average.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import safetensors.numpy

HERE = pathlib.Path(__file__).parent
CLASSES, MOMENTUM = 10, 0.9

# The first loss agrees to float32 rounding. What a step adds to it is compared as a change, so that a wrong learning
# rate, momentum or statistic shows. Deep networks get a learning rate at which a step changes the loss by a few percent
# and rounding stays small: PyTorch's own two layouts then differ by up to 0.1 % of the change, at 0.01 by all of it.
# In bf16 PyTorch's own ways differ by half of the change, so only first losses are compared; that ours is right is for the
# engine's tests.
TOLERANCES = {"fp32": {"first_loss": 1e-4, "change": 1e-2}, "bf16": {"first_loss": 5e-2, "change": float("inf")}}


@dataclasses.dataclass
class Case:
    model: str
    batch: int
    size: int
    channels: int
    lr: float
    stem: str = "imagenet"

    def flags(self):
        flags = {"model": self.model, "stem": self.stem, "batch-size": self.batch, "image-size": self.size,
                 "channels": self.channels, "classes": CLASSES, "lr": self.lr, "momentum": MOMENTUM}
        return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


CASES = {
    "resnet34": Case("resnet34", 128, 32, 3, 1e-4),
    "mobilenet_v1": Case("mobilenet_v1", 128, 32, 3, 1e-4),
    "cnn": Case("cnn", 10, 28, 1, 1e-2),
    "resnet34-224": Case("resnet34", 4, 224, 3, 1e-4),
}


class PyTorch:
    """Processes that train at the same time, each with so many threads."""

    def __init__(self, case, check, processes, threads, bf16):
        self.name = f"{processes} x {threads} thread{'s' if threads > 1 else ''}"
        self.batch = case.batch
        command = [sys.executable, HERE / "pytorch.py", "--model", case.model, "--stem", case.stem, "--check", check,
                   "--classes", str(CLASSES), "--lr", str(case.lr), "--momentum", str(MOMENTUM), "--threads", str(threads)]
        command += ["--bf16"] * bf16
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                           env=environment) for _ in range(processes)]
        self.ready = [self.read(process) for process in self.processes][0]

    @staticmethod
    def read(process):
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"a PyTorch process ended with code {process.wait()}")
        return json.loads(line)

    def images_per_second(self, way, seconds):
        """The sum over processes of batch size / median step time, while all of them are busy."""
        step = self.ready["step_seconds"][way]
        # A step to warm up, whole steps to measure, and time for the request to arrive.
        start = time.monotonic() + 0.1 + step
        request = {"way": way, "start": start, "end": start + max(seconds, 5 * step)}
        for process in self.processes:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        return sum(self.batch / statistics.median(self.read(process)) for process in self.processes)

    def close(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait()


def fedper(binary, case, *flags):
    command = [binary, "bench", "train", *case.flags(), *map(str, flags)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def agree(name, file, peers, tolerances):
    """Ends the program unless all of PyTorch's losses are ours."""
    ours = safetensors.numpy.load_file(file)["losses"].tolist()
    furthest = {"first_loss": 0.0, "change": 0.0}
    for peer in peers:
        for way, theirs in peer.ready["losses"].items():
            first = abs(ours[0] - theirs[0]) / abs(theirs[0])
            change = max(abs((a - ours[0]) - (b - theirs[0])) / abs(b - theirs[0])
                         for a, b in zip(ours[1:], theirs[1:], strict=True))
            if not (first <= tolerances["first_loss"] and change <= tolerances["change"]):
                raise SystemExit(f"{name}: losses {ours} here and {theirs} in PyTorch ({peer.name}, {way}): "
                                 "not the same computation, so nothing is measured")
            furthest = {"first_loss": max(first, furthest["first_loss"]), "change": max(change, furthest["change"])}
    print(f"{name}: losses {', '.join(f'{loss:.4f}' for loss in ours)} agree; furthest: first "
          f"{furthest['first_loss']:.0e}, change {furthest['change']:.0e}", file=sys.stderr)
    return {"losses": ours, "furthest": furthest}


def train_case(name, args):
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        check = os.path.join(folder, "check.safetensors")
        precision = ["--precision", args.precision]
        fedper(args.fedper, case, *precision, "--check", check)
        splits = [(1, args.cores)] + [(args.cores, 1)] * (args.cores > 1)
        peers = [PyTorch(case, check, *split, args.precision == "bf16") for split in splits]
        for peer in peers:
            stack.callback(peer.close)
        result = {"case": dataclasses.asdict(case), "torch": peers[0].ready["torch"],
                  "check": agree(name, check, peers, TOLERANCES[args.precision])}
        ours = {"fedper": lambda: json.loads(fedper(
            args.fedper, case, *precision, "--workers", args.cores, "--seconds", args.seconds, "--json"))["images_per_second"]}
        theirs = {f"{peer.name}, {way}, {optimizer}":
                  (lambda peer=peer, way=way: peer.images_per_second(way, args.seconds))
                  for peer in peers for way, optimizer in peer.ready["optimizer"].items()}
        contestants = list((ours | theirs).items())
        rates = {contestant: [] for contestant, _ in contestants}
        for number in range(args.rounds):
            shift = number % len(contestants)
            for contestant, run in contestants[shift:] + contestants[:shift]:
                rates[contestant].append(run())
                print(f"{name}, round {number + 1}: {rates[contestant][-1]:8.1f} images/s  {contestant}",
                      file=sys.stderr)
    medians = {contestant: statistics.median(values) for contestant, values in rates.items()}
    compared = []
    for bf16 in [False, True] if args.precision == "bf16" else [False]:
        best = max((peer for peer in theirs if (", bf16" in peer) == bf16), key=medians.get)
        paired = [a / b for a, b in zip(rates["fedper"], rates[best])]
        compared.append({"best": best, "ratio": medians["fedper"] / medians[best], "paired_ratios": paired})
    return result | {"images_per_second": rates, "compared": compared}


def spread(values):
    digits = 1 if min(values) >= 10 else 3
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def train(args):
    results = {name: train_case(name, args) for name in args.cases}
    rows = [["step", "fedper", "PyTorch", "ratio", "by round", "PyTorch's best"]]
    for name, result in results.items():
        case, rates = CASES[name], result["images_per_second"]
        for compared in result["compared"]:
            ratios = compared["paired_ratios"]
            rows.append([f"{case.model}, {case.batch} x {case.channels}x{case.size}x{case.size}",
                         spread(rates["fedper"]), spread(rates[compared["best"]]), f"{compared['ratio']:.2f}",
                         f"{min(ratios):.2f}..{max(ratios):.2f}", compared["best"]])
    print(f"images/s, median (min..max) of {args.rounds} rounds of {args.seconds:g} s in turn, {args.cores} cores, "
          f"fedper in {args.precision}, "
          f"torch {next(iter(results.values()))['torch']}")
    print_table(rows)
    return results


def fedper_round(args):
    """Seconds of the parts of a round; the whole round is one with evaluation, training is that of one without."""
    command = [args.fedper, "bench", "round", "--dataset", "fashion-mnist", "--data-dir", args.data, "--rounds", "2",
               "--eval-every", "1000", "--workers", str(args.cores), "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    alone, whole = report["rounds"]
    return {"round": sum(whole.values()), "train": alone["train"],
            "evaluate": whole["train"] - alone["train"] + whole["evaluate"], "average": whole["average"],
            "checkpoint": whole["checkpoint"]}


def pfllib_round(args):
    command = [args.python, HERE / "pfllib.py", "--pfllib", args.pfllib, "--data", args.data, "--rounds", "1"]
    command += ["--threads", str(args.threads)] if args.threads else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output.splitlines()[-1])[0]


def federated_round(args):
    results = {"fedper": [], "PFLlib": []}
    for number in range(args.rounds):
        for contestant, run in ("fedper", fedper_round), ("PFLlib", pfllib_round):
            results[contestant].append(run(args))
            print(f"pair {number + 1}: {contestant} {results[contestant][-1]}", file=sys.stderr)
    rows = [["seconds", "fedper", "PFLlib", "ratio"]]
    for part in "round", "train", "evaluate", "average", "checkpoint", "load":
        ours, theirs = ([seconds[part] for seconds in results[contestant] if part in seconds]
                        for contestant in ("fedper", "PFLlib"))
        ratio = f"{statistics.median(theirs) / statistics.median(ours):.2f}" if ours and theirs else ""
        rows.append([part, *(spread(values) if values else "-" for values in (ours, theirs)), ratio])
    print(f"A FedPer round, median (min..max) of {args.rounds} in turn, {args.cores} cores. "
          "PFLlib loads while it trains and evaluates.")
    print_table(rows)
    return results


def print_table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="a training step, against PyTorch")
    command.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE",
                         help=f"of {', '.join(CASES)} [default: all]")
    command.add_argument("--rounds", type=int, default=5, help="[default: 5]")
    command.add_argument("--seconds", type=float, default=4.0, help="length of each measurement [default: 4]")
    command.add_argument("--precision", choices=TOLERANCES, default="fp32", help="ours [default: fp32]")
    command.set_defaults(run=train)
    command = commands.add_parser("round", help="a FedPer round, against PFLlib")
    command.add_argument("--pfllib", required=True, metavar="DIR", help="a checkout of PFLlib")
    command.add_argument("--python", default=sys.executable, help="what runs PFLlib [default: this interpreter]")
    command.add_argument("--threads", type=int, help="PyTorch's threads in PFLlib [default: as PyTorch chooses]")
    command.add_argument("--data", default="/usr/share/datasets/fashion-mnist", metavar="DIR",
                         help="Fashion-MNIST's .gz files [default: where Debian's dataset-fashion-mnist puts them]")
    command.add_argument("--rounds", type=int, default=3, help="[default: 3]")
    command.set_defaults(run=federated_round)
    for command in commands.choices.values():
        command.add_argument("--fedper", default="target/release/fedper", help="[default: target/release/fedper]")
        command.add_argument("--cores", type=int, default=os.cpu_count(), help="[default: all]")
        command.add_argument("--json", metavar="FILE", help="write every figure there")
    args = parser.parse_args()
    results = args.run(args)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
