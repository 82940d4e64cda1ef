"""Workdirs as finished runs leave them, and stand-ins for an engine's pieces."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from dib_jax.tasks import Task
from dib_jax.tasks.classification import classification


class Kind(NamedTuple):
    name: str
    measured: Callable[[Any, Any], Any] = lambda inputs, common: inputs


class Dataset(NamedTuple):
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    kind: Kind = Kind("pictures")


class Experiment(NamedTuple):
    dataset: Dataset
    task: Task


class Trained(NamedTuple):
    experiment: Experiment
    outputs: np.ndarray


CONFIG: dict[str, Any] = {
    "seed": 0,
    "workdir": "",
    "dataset": {"name": "digits", "data_dir": "", "val_fraction": 0.1, "augment": ""},
    "model": {"name": "cnn", "widths": [32, 64, 128], "convolutions": 1, "pools": 2},
    "head": {"name": "linear", "pool": 2},
    "task": {"name": "classification", "label_smoothing": 0.0},
    "objective": {
        "name": "dib",
        "alpha": 1.01,
        "beta": 0.01,
        "compress": "input",
        "bandwidth": "mean",
    },
    "algorithm": {"name": "sequential", "blocks": 1},
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 0.0005,
        "momentum": 0.9,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
    },
    "epochs": 20,
    "batch_size": 64,
    "precision": {"compute": "float32", "information": "float32"},
}


def make_workdir(
    folder: pathlib.Path,
    *,
    stages: tuple[int, ...] = (0, 1, 2),
    epochs: int = 20,
    validation: bool = True,
    information: bool = True,
    test: tuple[float, ...] | None = None,
    **changes: Any,
) -> pathlib.Path:
    """A finished run's files; `changes` are whole sections of the config."""
    rng = np.random.default_rng(0)
    config = CONFIG | {"epochs": epochs} | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    lines, entries, last = [], [], max(stages)
    for number, stage in enumerate(stages):
        depth = (stage + 1) / (last + 1)
        for epoch in range(1, epochs + 1):
            rate = 1 - np.exp(-epoch / 4)
            accuracy = (0.86 + 0.12 * depth) * rate + 0.1 * (1 - rate)
            task_loss = 2.3 * (1 - rate) + 0.35 - 0.25 * depth
            bits = 5.6 - 1.5 * depth * rate
            step = {"stage": stage, "epoch": epoch, "step": 20 * epoch}
            terms = {"accuracy": accuracy + 0.01 * rng.normal()}
            if information:
                terms |= {"input_information": bits, "sigma": 12.0 - 3 * depth * rate}
            terms["loss"] = task_loss + (0.01 * bits if information else 0.0)
            terms["task_loss"] = task_loss
            lines.append({**step, "split": "train", **terms, "seconds": 0.41})
            if validation:
                seen = {
                    "accuracy": accuracy - 0.01 + 0.008 * rng.normal(),
                    "loss": task_loss + 0.06,
                }
                lines.append({**step, "split": "validation", **seen, "seconds": 0.41})
        measured = test[number] if test else 0.8611 + 0.075 * number / max(1, last)
        held_out = {"accuracy": 0.8542 + 0.08 * depth, "loss": 0.31 - 0.05 * depth}
        entries.append(
            {
                "stage": stage,
                "phase": 0 if config["algorithm"]["name"] == "parallel" else number,
                "validation": held_out if validation else {},
                "test": {"accuracy": measured, "loss": 0.4321 - 0.1 * depth},
                "seconds": 8.25 + 61 * number,
                "epochs": epochs,
                "temp_bytes": 3_300_000 + 1_000_000 * number,
                "peak_bytes": None,
                "flops": 1.31e8 * (number + 1),
            }
        )
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    results = {
        "config_name": "digits_cnn",
        "dataset": config["dataset"]["name"],
        "dataset_description": "scikit-learn's 8 × 8 digits, 1797 pictures",
        "task": "classification",
        "objective": config["objective"]["name"],
        "head": "linear",
        "algorithm": config["algorithm"]["name"],
        "unused": [],
        "algorithm_about": "One stage after the other, each frozen before the next.",
        "seed": config["seed"],
        "metric": "accuracy",
        "measures": {
            "accuracy": {"label": "Accuracy", "unit": "%"},
            "loss": {"label": "Loss", "unit": "nats"},
        },
        "duplicates": {"test": 0, "validation": 0},
        "test": entries[-1]["test"],
        "validation": entries[-1]["validation"],
        "stages": entries,
        "temp_bytes": max(entry["temp_bytes"] for entry in entries),
        "peak_bytes": None,
        "seconds": sum(entry["seconds"] for entry in entries),
        "compile_seconds": 7.4,
        "hardware": "CPU (2 cores, An Example Processor)",
        "versions": {"python": "3.11.9", "dib_jax": "0.1.0", "jax": "0.10.2"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def trained_on(
    task: Task,
    test: dict[str, np.ndarray],
    outputs: np.ndarray,
    *,
    class_names: tuple[str, ...] = (),
    noun: str = "pictures",
) -> Trained:
    dataset = Dataset(test, {}, test, class_names, Kind(noun))
    return Trained(Experiment(dataset, task), np.asarray(outputs, np.float32))


def make_trained(
    *,
    classes: int = 10,
    count: int = 360,
    mistakes: int = 19,
    names: tuple[str, ...] = (),
) -> Trained:
    """Digits (their labels spread over `classes`), of which some are taken wrongly."""
    rng = np.random.default_rng(1)
    digits = load_digits()
    images = np.round(digits.images[:count, :, :, None] * 255 / 16).astype(np.uint8)
    labels = digits.target[:count] if classes == 10 else np.arange(count) % classes
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 9
    wrong = rng.choice(count, mistakes, replace=False)
    taken = (labels[wrong] + rng.integers(1, min(classes, 5), mistakes)) % classes
    logits[wrong, taken] += 9 + 2 * rng.random(mistakes)
    names = names or tuple(
        str(i) if classes == 10 else f"class {i}" for i in range(classes)
    )
    test = {"images": images, "labels": labels}
    task = classification(num_classes=classes)
    return trained_on(task, test, logits, class_names=names)
