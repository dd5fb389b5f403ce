"""At a site. Flower starts a new process with this for every message; `seconds` is the computing alone."""

import time
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from round_overhead_app import records, work

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch from the server's weights."""
    started = time.perf_counter()
    network = records.unpack(message.content["arrays"], work.build())
    images, labels = work.load(Path(str(context.node_config["data"])), "train")
    loss = work.train(network, images, labels)
    arrays = records.pack(network)
    metrics = {"num-examples": len(labels), "loss": loss, "seconds": time.perf_counter() - started}
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy on the validation cases."""
    started = time.perf_counter()
    network = records.unpack(message.content["arrays"], work.build())
    images, labels = work.load(Path(str(context.node_config["data"])), "validation")
    loss, accuracy = work.evaluate(network, images, labels)
    metrics = {"num-examples": len(labels), "loss": loss, "accuracy": accuracy}
    metrics["seconds"] = time.perf_counter() - started
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
