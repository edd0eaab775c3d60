"""A device that knows nothing of FedPer: it adds one to every weight, as if that were training."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    arrays = ArrayRecord({name: Array(array.numpy() + 1) for name, array in msg.content["arrays"].items()})
    metrics = MetricRecord({"num-examples": 40, "train_loss": 0.5})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 8, "accuracy": 0.75, "loss": 2.0})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
