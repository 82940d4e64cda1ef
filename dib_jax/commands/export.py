"""Write the network of a finished run for programs that do not know dib_jax.

python -m experiments.export --workdir=DIR [--out=OUT]

Leaves in OUT

  weights.safetensors  every array of the network by its place in it, such as
                       stages/0/params/Dense_0/kernel; class names, the shapes of
                       inputs and the config as its metadata
  network.stablehlo    the function with its weights, by `jax.export`: arrays of n
                       samples by name → the outputs of every exit, input side
                       first, the last one being the network's. For CPU, CUDA,
                       ROCm and TPU; n may be any number

  network.onnx         the same for programs that read ONNX, where the packages
                       jax2onnx and onnxruntime are installed

Each is read back and compared with the run. In Python:

  function = jax.export.deserialize(open("network.stablehlo", "rb").read()).call
  *_, outputs = function({"images": images})  # uint8 (n, h, w, c), for pictures

It needs the packages safetensors and flatbuffers: pip install 'dib_jax[export]'.

  --workdir=DIR  the folder of a finished run
  --out=OUT      where the files go; DIR/export where it is left out
  --help         this
"""

import importlib.util
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dib_jax.commands import command_line

if TYPE_CHECKING:
    from dib_jax.commands.trained import Model

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_SAMPLES = 5  # that the files are tried with
WEIGHTS, FUNCTION, ONNX = "weights.safetensors", "network.stablehlo", "network.onnx"
_ONNX = ("jax2onnx", "onnxruntime")


class ExportError(Exception):
    """What was written does not do as the run does; the message says what."""


def export(workdir: pathlib.Path, out: pathlib.Path) -> dict[str, float]:
    """Everything that the command does, for a notebook too.

    Args:
        workdir: of a finished run.
        out: a folder; made where it is missing. The files in it are replaced.

    Returns:
        The largest difference between the outputs of the run and those of what was read
        back, by file.

    Raises:
        ValueError: there is no finished run, or a package is not installed.
        ExportError: a file does not give what the run gives.
        OSError: `out` cannot be written.
    """
    for package in ("safetensors", "flatbuffers"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"the package {package} is not installed, which writes one of the "
                "files: pip install 'dib_jax[export]'"
            )
    # Late, so that a mistake on the command line is answered at once.
    import jax
    import jax.export
    import numpy as np

    from dib_jax.commands.trained import Model
    from dib_jax.training.devices import usual_arithmetic
    from dib_jax.training.workdir import write_atomically

    model = Model(workdir)
    random = np.random.default_rng(0)
    samples = {}
    for name in model.experiment.dataset.kind.content:
        like = model.experiment.dataset.train[name]
        drawn = random.random((_SAMPLES, *like.shape[1:])) * 255
        samples[name] = drawn.astype(like.dtype)
    out.mkdir(parents=True, exist_ok=True)
    with usual_arithmetic():
        write_atomically(out / WEIGHTS, _weights(model))
        write_atomically(out / FUNCTION, _function(model, samples))
        program = jax.jit(lambda network: _outputs(model, network, samples))
        wanted = program(model.network)
        found: dict[str, Sequence[Any]] = {
            WEIGHTS: program(_read_weights(out / WEIGHTS, model.network)),
            FUNCTION: jax.export.deserialize(
                bytearray((out / FUNCTION).read_bytes())
            ).call(samples),
        }
        if all(map(importlib.util.find_spec, _ONNX)):
            write_atomically(out / ONNX, _onnx(model, samples))
            found[ONNX] = _run_onnx(out / ONNX, samples)
    differences = {
        name: max(
            float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
            for a, b in zip(outputs, wanted, strict=True)
        )
        for name, outputs in found.items()
    }
    largest = max(float(np.max(np.abs(np.asarray(each)))) for each in wanted)
    for name, difference in differences.items():
        # Programs may add in another order; more is another function.
        if not difference <= 1e-4 * max(1.0, largest):
            raise ExportError(
                f"{out / name} gives outputs that differ by {difference:.2g} from the "
                "run's; do not use it"
            )
    return differences


def _onnx(model: "Model", samples: Any) -> bytes:
    """The function of samples with its weights, for programs that read ONNX."""
    import jax
    import jax2onnx

    network = jax.device_get(model.network)
    made = jax2onnx.to_onnx(
        lambda *arrays: _outputs(
            model, network, dict(zip(samples, arrays, strict=True))
        ),
        inputs=[
            jax.ShapeDtypeStruct(("n", *array.shape[1:]), array.dtype)
            for array in samples.values()
        ],
    )
    return bytes(made.SerializeToString())


def _run_onnx(path: pathlib.Path, samples: Any) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    return list(session.run(None, dict(zip(names, samples.values(), strict=True))))


def _outputs(model: "Model", network: Any, samples: Any) -> tuple[Any, ...]:
    import jax

    experiment = model.experiment

    def predicted(samples: Any) -> tuple[Any, ...]:
        batch = experiment.prepare_inputs(samples, experiment.common)
        return tuple(experiment.algorithm.predict(network, batch))

    if not experiment.views:
        return predicted(samples)
    each = [
        jax.tree.map(lambda x, w=view.weight: w * x, predicted(view.change(samples)))
        for view in experiment.views
    ]
    return jax.tree.map(lambda *parts: sum(parts), *each)


def _names(network: Any) -> list[str]:
    import jax

    paths = jax.tree_util.tree_leaves_with_path(network)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths]


def _weights(model: "Model") -> bytes:
    import jax
    import numpy as np
    from safetensors.numpy import save

    from dib_jax.training.workdir import read_config, read_inputs

    leaves = map(np.asarray, jax.tree.leaves(model.network))
    arrays = dict(zip(_names(model.network), leaves, strict=True))
    inputs = read_inputs(model.workdir)
    about = {
        "class_names": json.dumps(inputs["class_names"]),
        "samples": json.dumps(inputs["samples"]),
        "common": json.dumps(inputs["common"]),
        "config": json.dumps(read_config(model.workdir)),
    }
    return save(arrays, metadata=about)


def _read_weights(path: pathlib.Path, network: Any) -> Any:
    import jax
    from safetensors.numpy import load

    arrays = load(path.read_bytes())
    leaves = [arrays[name] for name in _names(network)]
    return jax.tree.unflatten(jax.tree.structure(network), leaves)


def _function(model: "Model", samples: Any) -> bytes:
    """The function of samples with its weights."""
    import jax

    (count,) = jax.export.symbolic_shape("n")
    like = {
        name: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
        for name, array in samples.items()
    }
    network = jax.device_get(model.network)
    made = jax.export.export(
        jax.jit(lambda samples: _outputs(model, network, samples)),
        platforms=_PLATFORMS,
    )(like)
    return bytes(made.serialize())


def main(arguments: list[str]) -> None:
    """The command."""
    given = command_line.split_arguments(
        arguments,
        ("--workdir=DIR", "--out=OUT"),
        help=command_line.documented("export", __doc__),
    )
    workdir = command_line.find_workdir(given.flags)
    if given.flags.get("out") == "":
        raise ValueError("--out is empty; give a folder, or leave the flag out")
    out = pathlib.Path(given.flags.get("out", workdir / "export")).expanduser()
    for name, difference in export(workdir, out).items():
        print(f"{out / name}: outputs as the run's to {difference:.2g}")


if __name__ == "__main__":
    command_line.start("export")
