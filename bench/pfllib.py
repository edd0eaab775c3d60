"""One run of PFLlib's own FedPer, timed: started by `compare.py round`.

`python pfllib.py --pfllib DIR --data DIR --rounds N [--threads N]`

DIR is a checkout of https://github.com/TsingZ0/PFLlib, which stays as it is: its `main.py` runs in a temporary folder
with `-dev cpu`. The data are Fashion-MNIST's IDX files (gzip), all 70,000 images, dealt as PFLlib's own script deals
them: 20 clients with 2 classes each, every class to 4 clients in equal parts, 75 % of a client's images for training.
The first round warms up. The last line of the output is JSON: for each other round the seconds of the whole round, as
PFLlib measures it, and of its parts.
"""

import argparse
import contextlib
import gzip
import json
import os
import pathlib
import runpy
import sys
import tempfile
import time

import numpy as np

CLIENTS, CLASSES, PER_CLIENT, TRAIN = 20, 10, 2, 0.75
NAME = "FashionMNIST"
# Method of PFLlib: what it is part of. Loading happens inside of the two others.
PARTS = {"clientPer.train": "train", "FedPer.evaluate": "evaluate", "FedPer.aggregate_parameters": "average",
         "clientPer.load_train_data": "load", "clientPer.load_test_data": "load"}


def idx(path, offset):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)


def write_data(source, target):
    """Each client's images, normalised to [-1, 1], in the files PFLlib reads."""
    x = np.concatenate([idx(source / f"{part}-images-idx3-ubyte.gz", 16) for part in ("train", "t10k")])
    y = np.concatenate([idx(source / f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]).astype(np.int64)
    x = (x.reshape(-1, 1, 28, 28).astype(np.float32) / 255 - 0.5) / 0.5
    random = np.random.default_rng(1)
    holders = CLIENTS * PER_CLIENT // CLASSES
    shares = [np.array_split(random.permutation(np.flatnonzero(y == label)), holders) for label in range(CLASSES)]
    for part in "train", "test":
        (target / part).mkdir(parents=True)
    for client in range(CLIENTS):
        labels = [(PER_CLIENT * client + k) % CLASSES for k in range(PER_CLIENT)]
        mine = np.concatenate([shares[label][PER_CLIENT * client // CLASSES] for label in labels])
        mine = random.permutation(mine)
        cut = round(TRAIN * len(mine))
        for part, chosen in ("train", mine[:cut]), ("test", mine[cut:]):
            np.savez_compressed(target / part / f"{client}.npz", data={"x": x[chosen], "y": y[chosen]})


def time_methods():
    """Wraps PFLlib's methods so that a dictionary a round collects their seconds."""
    from flcore.clients.clientper import clientPer
    from flcore.servers.serverper import FedPer

    rounds = []

    def timed(part, method):
        def wrapper(*args, **kwargs):
            start = time.monotonic()
            try:
                return method(*args, **kwargs)
            finally:
                rounds[-1][part] = rounds[-1].get(part, 0.0) + time.monotonic() - start
        return wrapper

    classes = {"clientPer": clientPer, "FedPer": FedPer}
    for name, part in PARTS.items():
        owner, method = name.split(".")
        setattr(classes[owner], method, timed(part, getattr(classes[owner], method)))

    # A round begins with sending the models; its whole time is PFLlib's own figure.
    send, train = FedPer.send_models, FedPer.train

    def send_models(self):
        rounds.append({})
        send(self)

    def train_all(self):
        try:
            train(self)
        finally:
            for record, seconds in zip(rounds, self.Budget):
                record["round"] = seconds

    FedPer.send_models, FedPer.train = send_models, train_all
    return rounds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pfllib", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--threads", type=int, help="[default: as PyTorch chooses]")
    args = parser.parse_args()
    system = args.pfllib.resolve() / "system"
    with tempfile.TemporaryDirectory() as folder:
        write_data(args.data, pathlib.Path(folder) / "dataset" / NAME)
        os.mkdir(os.path.join(folder, "system"))
        os.chdir(os.path.join(folder, "system"))
        sys.path.insert(0, str(system))
        if args.threads:
            import torch
            torch.set_num_threads(args.threads)
        rounds = time_methods()
        sys.argv = ["main.py", "-dev", "cpu", "-algo", "FedPer", "-data", NAME, "-m", "CNN", "-ncl", str(CLASSES),
                    "-nc", str(CLIENTS), "-lbs", "10", "-lr", "0.005", "-ls", "1", "-gr", str(args.rounds)]
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(str(system / "main.py"), run_name="__main__")
        os.chdir("/")
    print(json.dumps(rounds[1:]))


if __name__ == "__main__":
    main()
