"""Flower's stock FedAvg, knowing nothing of FedPer: it begins with the base layers it is given and averages them."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    with open(config["begin"], encoding="utf-8") as file:
        begin = json.load(file)
    arrays = ArrayRecord(
        {name: Array(np.array(values, np.float32).reshape(shape)) for name, shape, values in begin}
    )
    nodes = int(config["nodes"])
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(config["rounds"]),
        train_config=ConfigRecord({"lr": 0.01}),
    )
    end = [[name, array.numpy().ravel().tolist()] for name, array in result.arrays.items()]
    metrics = {
        str(number): {key: float(value) for key, value in record.items()}
        for number, record in result.evaluate_metrics_clientapp.items()
    }
    with open(config["end"], "w", encoding="utf-8") as file:
        json.dump({"arrays": end, "metrics": metrics}, file)
