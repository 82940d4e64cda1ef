import configparser
import fnmatch
import importlib
import importlib.machinery
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

from dib_jax import settings
from dib_jax.commands import command_line, evaluate, run, surroundings
from dib_jax.commands import config as configs

ROOT = pathlib.Path(command_line.__file__).parents[2]
COMMANDS = sorted((ROOT / "experiments").glob("[a-z]*.py"))

CONFIG = '''"""An example for tests.

More words.
"""

import ml_collections


def get_config(arg: str = ""):
    if arg not in ("", "quick"):
        raise ValueError(f'unknown variant {arg!r}: use ":quick", or none')
    return ml_collections.ConfigDict(
        dict(
            seed=3,
            workdir="",
            dataset=dict(name="pictures"),
            model=dict(name="OWN:network", depth=3),
            head=dict(name="OWN:readout"),
            task=dict(name="OWN:sorting"),
            objective=dict(name="OWN:penalty", alpha=1.5, beta=0.1),
            algorithm=dict(name="sequential"),
            optimizer=dict(name="sgd", learning_rate=0.1, schedule="constant"),
            epochs=1 if arg == "quick" else 20,
            batch_size=32,
        )
    )
'''.replace("OWN", __name__)


def network(*, depth: int = 2, bias: bool = True):
    """A network.

    Args:
        depth: number of stages.
        bias: whether it has one.
    """
    return (bias,) * depth


def readout(*, num_outputs: int, pool: int = 2):
    """A head.

    Args:
        pool: side of the grid.
    """
    return num_outputs * pool


def sorting(*, num_classes: int):
    """A task."""
    return num_classes


def penalty(*, alpha: float = 1.0, beta: float | tuple[float, ...] = 0.01):
    """A loss.

    Args:
        alpha: the order.
        beta: a number or one per stage.
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be > 0, got {alpha!r}")
    return alpha, beta


def other(*, alpha: float = 7.0, width: int = 5):
    """Another loss.

    Args:
        alpha: something else of the same name.
        width: of something.
    """
    return alpha, width


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "example.py").write_text(CONFIG)
    return tmp_path


def read(*arguments: str) -> command_line.Request:
    help = command_line.documented("run", run.__doc__, summary=False)
    return command_line.read_request(arguments, help=help)


def refusal(capsys, *arguments: str) -> str:
    """The one line that a mistake gives; it must leave the folder as it was."""
    before = sorted(pathlib.Path().rglob("*"))
    status = command_line.main(
        lambda given: read(*given) and 0, command="experiments.run", arguments=arguments
    )
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert sorted(pathlib.Path().rglob("*")) == before
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.startswith("experiments.run: ")
    return err.removeprefix("experiments.run: ").rstrip()


EXAMPLE = "--config=configs/example.py"


def test_a_config_file_is_read_checked_and_completed():
    experiment = read(EXAMPLE)
    assert experiment.config_name == "example"
    assert experiment.variant == "full"
    assert experiment.config.epochs == 20
    assert experiment.config.objective.alpha == 1.5
    assert experiment.config.head.pool == 2
    assert experiment.config.precision.compute == "float32"
    assert configs.complete(experiment.config) == experiment.config


def test_reading_a_command_line_writes_nothing(folder):
    read(EXAMPLE)
    assert [path.name for path in folder.rglob("*")] == ["configs", "example.py"]


def test_the_variant_stands_behind_a_colon():
    experiment = read(EXAMPLE + ":quick")
    assert experiment.variant == "quick"
    assert experiment.config.epochs == 1
    assert str(experiment.workdir) == "runs/example-quick-seed3"


def test_a_colon_in_a_folders_name_is_no_variant(folder):
    (folder / "a:b").mkdir()
    (folder / "a:b" / "example.py").write_text(CONFIG)
    assert read("--config=a:b/example.py").variant == "full"
    assert read("--config=a:b/example.py:quick").variant == "quick"


@pytest.mark.parametrize(
    ("flags", "workdir"),
    [
        ([], "runs/example-full-seed3"),
        (["--config.seed=5"], "runs/example-full-seed5"),
        (["--config.algorithm.name=end_to_end"], "runs/example-full-seed3-end_to_end"),
        (["--config.algorithm.name=sequential"], "runs/example-full-seed3"),
        (["--workdir=here"], "here"),
        (["--workdir", "here"], "here"),
        (["--config.workdir=here"], "here"),
        (["--workdir=~/here"], str(pathlib.Path("~/here").expanduser())),
    ],
)
def test_the_workdir_is_the_given_one_or_named_after_the_run(flags, workdir):
    experiment = read(EXAMPLE, *flags)
    assert str(experiment.workdir) == workdir
    assert experiment.config.workdir == workdir


def test_a_file_with_another_algorithm_has_the_plain_workdir(folder):
    path = folder / "configs" / "baseline.py"
    path.write_text(CONFIG.replace("sequential", "end_to_end"))
    assert str(read("--config=configs/baseline.py").workdir) == (
        "runs/baseline-full-seed3"
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("seed", "5", 5),
        ("epochs", "7", 7),
        ("epochs", "1,2,3", (1, 2, 3)),
        ("objective.beta", "-0.5", -0.5),
        ("objective.beta", "(0.1, 0.2, 0)", (0.1, 0.2, 0.0)),
        ("objective.alpha", "2", 2.0),
        ("objective.alpha", "inf", float("inf")),
        ("model.bias", "false", False),
        ("dataset.name", "7", "7"),
        ("dataset.augment", "crop,flip", "crop,flip"),
        ("dataset.data_dir", "a=b", "a=b"),
        ("precision.compute", "bfloat16", "bfloat16"),
    ],
)
@pytest.mark.parametrize("separate", [False, True])
def test_a_field_is_set_by_its_dotted_name(field, text, value, separate):
    flag = f"--config.{field}"
    given = [flag, text] if separate else [f"{flag}={text}"]
    config = read(EXAMPLE, *given).config
    found = settings.flatten(config.to_dict())[field]
    assert found == value
    assert type(found) is type(value)


def test_flags_may_stand_in_any_order():
    before = read("--config.seed=9", "--workdir=here", EXAMPLE)
    after = read(EXAMPLE, "--workdir=here", "--config.seed=9")
    assert before.config.to_dict() == after.config.to_dict()


def test_another_factory_does_not_inherit_the_options_of_the_files_own():
    name = f"--config.objective.name={__name__}:other"
    objective = read(EXAMPLE, name, "--config.objective.width=6").config.objective
    assert objective.to_dict() == {
        "name": f"{__name__}:other",
        "alpha": 7.0,
        "width": 6,
    }
    same = read(EXAMPLE, f"--config.objective.name={__name__}:penalty").config
    assert same.objective.alpha == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing: give --config=PATH, one of configs/example.py"),
        (["--workdir=x"], "--config is missing"),
        (["--config"], "--config needs a value"),
        (["--config", "--workdir=x"], "--config needs a value"),
        (["--confg=configs/example.py"], "unknown flag --confg; the flags are"),
        (["--confg=configs/example.py"], "did you mean --config?"),
        (["-config=configs/example.py"], "did you mean --config?"),
        ([EXAMPLE, "--wrokdir=x"], "did you mean --workdir?"),
        ([EXAMPLE, "--seed=1"], "unknown flag --seed"),
        ([EXAMPLE, "--seed=1"], "did you mean --config.seed?"),
        ([EXAMPLE, "--data-dir=x"], "did you mean --config.dataset.data_dir?"),
        ([EXAMPLE, "--placement=x"], "did you mean --config.dataset.placement?"),
        ([EXAMPLE, "extra"], "'extra' is no flag"),
        ([EXAMPLE, EXAMPLE], "--config is given twice"),
        ([EXAMPLE, "--workdir=x", "--workdir=y"], "--workdir is given twice, as 'x'"),
        ([EXAMPLE, "--workdir=x", "--config.workdir=y"], "the workdir is given twice"),
        ([EXAMPLE, "--workdir="], "--workdir is empty"),
        ([EXAMPLE, "--config.seed=1", "--config.seed=2"], "--config.seed is given twi"),
        ([EXAMPLE, "--config.seed"], "--config.seed needs a value"),
        (["--config=configs/exmaple.py"], "--config: configs/exmaple.py is not there"),
        (["--config=configs/exmaple.py"], "did you mean configs/example.py?"),
        (["--config=configs/exmaple.py:quick"], "did you mean configs/example.py?"),
        (["--config=nowhere/example.py"], "did you mean configs/example.py?"),
        (["--config=example"], "did you mean configs/example.py?"),
        (["--config=configs"], "configs is a folder, not a config file"),
        ([EXAMPLE + ":quik"], "configs/example.py: unknown variant 'quik': use"),
    ],
)
def test_a_wrong_flag_or_file_is_one_line(capsys, arguments, message):
    assert message in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.aplha=2", "objective.aplha: unknown field (with value '2'); the"),
        ("objective.aplha=2", "did you mean objective.alpha?"),
        ("objectve.alpha=2", "did you mean objective.alpha?"),
        ("batchsize=2", "did you mean batch_size?"),
        ("objective=dib", "objective: got 'dib'; set its fields: name, alpha, beta"),
        ("seed.x=1", "seed.x: unknown field"),
        ("=1", "unknown flag --config."),
        ("seed=abc", "seed: got 'abc'; must be an integer from 0"),
        ("seed=1.5", "seed: got '1.5'; must be an integer from 0"),
        ("seed={{seed}}", "seed: got '{{seed}}'; must be an integer from 0"),
        ("seed=", "seed: got ''; must be an integer from 0"),
        ("batch_size=0", "batch_size: got '0'; must be an integer from 1"),
        ("model.bias=yes", "model.bias: got 'yes'; must be True or False"),
        ("objective.alpha=nan", "objective.alpha: got 'nan'; must be a number"),
        ("objective.alpha=-1", "objective.alpha: alpha must be > 0, got -1.0"),
        ("objective.beta=1,2", "2 numbers for 3 stages"),
        ("algorithm.name=sequental", "did you mean 'sequential'?"),
        ("objective.name=no_such_loss", "objective.name: unknown objective"),
    ],
)
def test_a_wrong_field_is_one_line(capsys, override, message):
    assert message in refusal(capsys, EXAMPLE, f"--config.{override}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "configs/broken.py:1: SyntaxError: invalid syntax"),
        ("import no_such_module_", "configs/broken.py:1: ModuleNotFoundError: No mod"),
        ("x = 1\n\n{}['a']", "configs/broken.py:3: KeyError: 'a'"),
        (
            "import json\ndef get_config():\n    return json.dumps(set())",
            "configs/broken.py:3: TypeError: Object of type set is not JSON",
        ),
        ("raise ValueError('two\\nlines')", "configs/broken.py: two lines"),
        ("raise SystemExit(0)", "configs/broken.py:1: SystemExit: 0"),
        ("open('no_such_file')", "No such file or directory: no_such_file"),
        ("x = 1", "configs/broken.py: there is no function get_config in it"),
        (
            "def get_config(size): pass",
            "it needs a variant: --config=configs/broken.py:",
        ),
        (
            "from base import get_config",  # whose fault it is
            "configs/base.py:2: KeyError: 'a'",
        ),
        ("def get_config():\n    return 3", "get_config returned 3; it must return"),
        ("def get_config():\n    return {'model': 3}", "model: got 3; "),
        (
            CONFIG.replace("batch_size", "batchsize"),
            "batchsize: unknown field (with value 32); ",
        ),
    ],
)
def test_a_broken_config_file_is_one_line(capsys, folder, text, message, monkeypatch):
    monkeypatch.syspath_prepend(folder / "configs")
    (folder / "configs" / "base.py").write_text("def get_config():\n    {}['a']\n")
    (folder / "configs" / "broken.py").write_text(text)
    assert message in refusal(capsys, "--config=configs/broken.py")


def test_a_config_without_variants_says_so(capsys, folder):
    (folder / "configs" / "plain.py").write_text("def get_config():\n    return {}\n")
    line = refusal(capsys, "--config=configs/plain.py:quick")
    assert line == "configs/plain.py: it has no variants, so no 'quick' either"


def saved_run(folder: pathlib.Path, **changes: object) -> pathlib.Path:
    config = read(EXAMPLE).config.to_dict() | changes
    workdir = folder / "run"
    workdir.mkdir()
    saved = settings.plain(configs.complete(config))
    (workdir / "config.json").write_text(json.dumps(saved))
    return workdir


def test_a_workdir_of_the_same_config_goes_on_wherever_it_was_moved(folder):
    workdir = saved_run(folder, workdir="elsewhere")
    assert read(EXAMPLE, f"--workdir={workdir}").workdir == workdir


def test_a_workdir_of_another_config_names_what_differs(capsys, folder):
    workdir = saved_run(folder, seed=4, epochs=(1, 2, 3))
    before = (workdir / "config.json").read_bytes()
    line = refusal(capsys, EXAMPLE, f"--workdir={workdir}")
    assert f"{workdir} belongs to another config" in line
    assert "seed is 4 there and 3 here" in line
    assert "epochs is [1, 2, 3] there and 20 here" in line
    assert "batch_size" not in line
    assert (workdir / "config.json").read_bytes() == before


def test_an_option_that_is_newer_than_the_run_counts_as_its_default(capsys, folder):
    workdir = saved_run(folder)
    saved = json.loads((workdir / "config.json").read_text())
    del saved["model"]["bias"]
    (workdir / "config.json").write_text(json.dumps(saved))
    assert read(EXAMPLE, f"--workdir={workdir}").workdir == workdir
    line = refusal(capsys, EXAMPLE, f"--workdir={workdir}", "--config.model.bias=False")
    assert "model.bias is True there and False here" in line


def test_a_run_whose_loss_is_gone_is_still_another_config(capsys, folder):
    workdir = saved_run(folder)
    saved = json.loads((workdir / "config.json").read_text())
    saved["objective"] = {"name": "no_such_loss", "tau": 1}
    (workdir / "config.json").write_text(json.dumps(saved))
    line = refusal(capsys, EXAMPLE, f"--workdir={workdir}")
    assert "objective.tau is 1 there and absent here" in line


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"seed": NaN}', ""])
def test_a_workdir_with_a_damaged_config_is_refused(capsys, folder, text):
    workdir = saved_run(folder)
    (workdir / "config.json").write_text(text)
    line = refusal(capsys, EXAMPLE, f"--workdir={workdir}")
    assert "choose another --workdir" in line


@pytest.mark.parametrize("name", ["taken", "taken/inside", "taken/deep/inside"])
def test_a_workdir_that_is_or_lies_in_a_file_is_refused(capsys, folder, name):
    (folder / "taken").write_text("precious")
    line = refusal(capsys, EXAMPLE, f"--workdir={name}")
    assert f"--workdir: {name} cannot be used, for taken is a file" in line
    assert (folder / "taken").read_text() == "precious"


@pytest.mark.parametrize("name", ["locked", "locked/inside"])
def test_a_workdir_that_cannot_be_written_is_refused(capsys, folder, monkeypatch, name):
    locked = folder / "locked"
    locked.mkdir()
    allowed = os.access
    # By its own word, for a superuser may write anywhere.
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: pathlib.Path(path).name != "locked" and allowed(path, mode),
    )
    line = refusal(capsys, EXAMPLE, f"--workdir={name}")
    assert f"--workdir: {name} cannot be used, for locked cannot be written" in line


def test_a_workdir_whose_name_is_no_text_is_refused(capsys):
    said = refusal(capsys, "--config=configs/example.py", "--workdir=x\udcff")
    assert "is no UTF-8" in said


def test_a_workdir_with_an_impossible_name_is_refused(capsys):
    assert "File name too long" in refusal(capsys, EXAMPLE, f"--workdir={'x' * 999}")


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        read(*arguments)
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_alone_lists_the_configs_with_their_first_line(capsys, folder, flag):
    (folder / "configs" / "broken.py").write_text("def get_config(:")
    (folder / "configs" / "helper.py").write_text('"""Not a config."""')
    text = help_of(capsys, flag)
    assert "python -m experiments.run --config=" in text
    assert "configs/example.py  An example for tests.\n" in text
    assert "configs/broken.py   (cannot be read)" in text
    assert "Not a config" not in text


def test_help_with_a_config_describes_every_field_as_it_is_set(capsys):
    text = help_of(capsys, EXAMPLE, "--config.seed=8", "--help")
    unwrapped = " ".join(text.split())
    for field in settings.flatten(read(EXAMPLE).config.to_dict()):
        assert f"\n{field} " in text
    assert "seed 8 all random numbers" in unwrapped
    assert "model.depth 3 number of stages" in unwrapped
    assert "runs/example-full-seed8" in text


def test_every_config_of_the_repository_is_sound_complete_and_has_a_quick_variant(
    capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    paths = sorted(pathlib.Path("configs").glob("*.py"))
    assert paths
    for path in paths:
        for variant in ("", ":quick"):
            file = command_line.load_config(f"{path}{variant}")
            assert file.config.to_dict() == configs.complete(file.config).to_dict()
        assert f"{path} " in help_of(capsys, "--help")


def split(*words: str, **options) -> command_line.Arguments:
    flags = ("--out=OUT", "--workdir=DIR", "--fast")
    return command_line.split_arguments(words, flags, **options)


def test_flags_and_the_rest_are_told_apart():
    given = split("a.png", "--out", "x", "b.png", "--workdir=y=z", rest="pictures")
    assert given.flags == {"out": "x", "workdir": "y=z"}
    assert given.rest == ["a.png", "b.png"]
    assert not given.help


PLACEHOLDERS = """
import ml_collections
from ml_collections import config_dict

def get_config():
    config = ml_collections.ConfigDict()
    config.batch_size = config_dict.FieldReference(16)
    config.seed = config_dict.required_placeholder(int)
    config.optimizer = {"learning_rate": config_dict.required_placeholder(float)}
    return config
"""


def test_what_a_config_leaves_open_is_asked_for(folder, capsys):
    (folder / "configs" / "open.py").write_text(PLACEHOLDERS)
    given = ("--config=configs/open.py", "--config.optimizer.learning_rate=0.5")
    said = refusal(capsys, *given)
    assert "seed is left to you by configs/open.py: give --config.seed=VALUE" in said
    config = read(*given, "--config.seed=3").config
    assert (config.seed, config.batch_size) == (3, 16)
    assert config.optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    "flag", ["--workdir", "--config.workdir", "--config.dataset.data_dir"]
)
def test_an_address_is_refused(capsys, flag):
    config = "--config=configs/example.py"
    said = refusal(capsys, config, f"{flag}=gs://bucket/run")
    assert "got 'gs://bucket/run'; only folders and files of this machine" in said


def test_a_switch_stands_alone():
    given = split("a.png", "--fast", "b.png", rest="pictures")
    assert given.flags == {"fast": ""}
    assert given.rest == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="--fast has no value: write it alone"):
        split("--fast=True")


def test_devices_are_flags_and_no_field_of_a_config(capsys):
    config = "--config=configs/example.py"
    given = read(config, "--devices=2")
    assert (given.devices, given.distributed) == (2, False)
    assert given.config == read(config, "--distributed").config
    both = read(config, "--distributed")
    assert (both.devices, both.distributed) == (None, True)
    assert "whole number ≥ 1, got '0'" in refusal(capsys, config, "--devices=0")
    both = refusal(capsys, config, "--devices=2", "--distributed")
    assert "--devices and --distributed exclude each other" in both


def test_behind_two_dashes_nothing_is_a_flag():
    given = split("--out=x", "--", "--workdir", "-", rest="pictures")
    assert given == ({"out": "x"}, {}, ["--workdir", "-"], False)


def test_overrides_are_flags_only_of_commands_that_have_a_config():
    with pytest.raises(ValueError, match="unknown flag --config.seed"):
        split("--config.seed=1")


def test_a_command_on_a_run_wants_the_folder_of_one(folder, capsys):
    workdir = saved_run(folder)
    assert command_line.find_workdir({"workdir": str(workdir)}) == workdir
    for given, message in (
        ([], "--workdir is missing"),
        (["--workdir=nowhere"], "nowhere is no folder; give the folder of a run"),
        (["--workdir=configs"], "configs holds no config.json; give the folder of a"),
        (["--workdri=x"], "did you mean --workdir?"),
    ):
        assert run_main(capsys, evaluate.main, arguments=given)[0] == 2
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate.main(given)
    with pytest.raises(SystemExit, match="0"):
        evaluate.main(["--help"])
    assert "python -m experiments.evaluate --workdir=DIR" in capsys.readouterr().out


def run_main(capsys, function, **options) -> tuple[int, str]:
    options = {"command": "experiments.run", "arguments": ["a"], **options}
    status = command_line.main(function, **options)
    return status, capsys.readouterr().err


def raising(error: BaseException):
    def function(arguments):
        raise error

    return function


def test_the_exit_status_is_the_functions_own(capsys):
    assert run_main(capsys, lambda given: None) == (0, "")
    assert run_main(capsys, lambda given: 3 if given == ["a"] else 4) == (3, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("seed: two\n  lines"), "seed: two lines"),
        (FileNotFoundError("no data set there"), "no data set there"),
        (OSError(28, "No space left on device", "x"), "No space left on device: x"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, error, line):
    assert run_main(capsys, raising(error)) == (2, f"experiments.run: {line}\n")


def test_a_failure_of_our_own_is_one_line_and_status_1(capsys):
    class NonFiniteError(ArithmeticError):
        pass

    NonFiniteError.__module__ = "dib_jax.training.train"
    error = NonFiniteError("stage 1, step 3: loss is nan")
    status, err = run_main(capsys, raising(error))
    assert (status, err) == (1, "experiments.run: stage 1, step 3: loss is nan\n")


def test_an_own_kind_of_value_error_is_bad_input(capsys):
    class WorkdirError(ValueError):
        pass

    WorkdirError.__module__ = "dib_jax.training.workdir"
    assert run_main(capsys, raising(WorkdirError("x")))[0] == 2


def test_an_interrupt_says_whether_the_same_command_goes_on(capsys):
    status, err = run_main(capsys, raising(KeyboardInterrupt()), goes_on=True)
    assert status == 130
    assert err.startswith("experiments.run: interrupted; the same command goes on")
    assert err.count("\n") == 1
    status, err = run_main(capsys, raising(KeyboardInterrupt()))
    assert (status, err) == (130, "experiments.run: interrupted\n")


@pytest.mark.parametrize("error", [TypeError("t"), RuntimeError("r"), KeyError("k")])
def test_a_defect_keeps_its_traceback(capsys, error):
    with pytest.raises(type(error)):
        command_line.main(raising(error), command="experiments.run", arguments=[])
    assert capsys.readouterr().err == ""


def test_a_value_error_from_inside_a_library_is_a_defect():
    # By the library's own `raise`, and by a call of ours that fails in C.
    for mistake in (lambda given: json.loads("{"), lambda given: int("x")):
        with pytest.raises(ValueError, match="Expecting|invalid literal"):
            command_line.main(mistake, command="experiments.run", arguments=[])


def test_an_error_of_jax_is_a_defect_though_it_hides_its_own_frames():
    import jax
    import jax.numpy as jnp

    with pytest.raises(ValueError, match="at least one array"):
        command_line.main(
            lambda given: jax.jit(lambda: jnp.concatenate([]))() and 0,
            command="experiments.run",
            arguments=[],
        )


def test_a_value_error_of_ours_below_a_jitted_function_is_bad_input(capsys):
    import jax

    def refuse(x):
        raise ValueError("the picture is too small")

    status, err = run_main(capsys, lambda given: jax.jit(refuse)(1.0))
    assert (status, err) == (2, "experiments.run: the picture is too small\n")


def test_installed_the_package_is_still_our_own(tmp_path, capsys):
    # Installed, its files lie among the libraries; the module's name tells.
    path = tmp_path / "site-packages" / "somewhere.py"
    path.parent.mkdir()
    path.write_text("def fail(given):\n    raise ValueError('mine')\n")
    module = types.ModuleType("dib_jax.somewhere")
    exec(compile(path.read_text(), path, "exec"), vars(module))
    assert run_main(capsys, module.fail) == (2, "experiments.run: mine\n")
    module.__name__ = "library.somewhere"
    with pytest.raises(ValueError, match="mine"):
        command_line.main(module.fail, command="experiments.run", arguments=[])


@pytest.mark.parametrize("package", ["experiments", "dib_jax.commands"])
def test_a_command_goes_by_the_name_that_it_was_called_by(package, capsys, monkeypatch):
    main = types.ModuleType("__main__")
    main.__spec__ = importlib.machinery.ModuleSpec(f"{package}.evaluate", None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(surroundings, "settle", list)
    for given, status in ((["--help"], 0), ([], 2)):
        monkeypatch.setattr(sys, "argv", ["evaluate", *given])
        with pytest.raises(SystemExit) as caught:
            command_line.start("evaluate")
        assert caught.value.code == status
    out, err = capsys.readouterr()
    assert out.startswith(f"python -m {package}.evaluate --workdir=DIR ")
    assert err.startswith(f"{package}.evaluate: --workdir is missing")


@pytest.mark.parametrize("name", [path.stem for path in COMMANDS])
def test_every_command_of_the_checkout_is_one_of_the_package(name):
    text = (ROOT / "experiments" / f"{name}.py").read_text()
    assert f'command_line.start("{name}")' in text
    assert f"python -m experiments.{name}" in text
    module = importlib.import_module(f"dib_jax.commands.{name}")
    assert inspect.signature(module.main).parameters.keys() == {"arguments"}
    assert f'command_line.start("{name}")' in inspect.getsource(module)


PROGRAM = """
import sys
from dib_jax import settings
from dib_jax.commands import command_line

def run(arguments):
    command_line.read_request(arguments, help="python -m experiments.run")
    import jax._src.xla_bridge
    assert not jax._src.xla_bridge._backends
    print("sound")

sys.exit(command_line.main(run, command="experiments.run"))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        ([EXAMPLE], 0, "sound\n", ""),
        ([EXAMPLE, "--config.seed=x"], 2, "", "experiments.run: seed: got 'x'; must"),
        (["--help"], 0, "python -m experiments.run", ""),
    ],
)
def test_checking_flags_starts_no_backend(folder, arguments, status, out, err):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)]),
        "JAX_PLATFORMS": "no_such_backend",
    }
    text = (folder / "configs" / "example.py").read_text()
    (folder / "configs" / "example.py").write_text(
        text.replace(__name__, pathlib.Path(__file__).stem)
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.startswith(out)
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") == (status != 0)


def test_help_alone_does_not_wait_for_jax():
    program = (
        "import sys, dib_jax.commands.command_line as c\n"
        "c.main(lambda a: c.read_request(a, help='x'), command='x',"
        " arguments=['--epochs=x'])\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True
    )


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder outside of the checkout, without configs."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_outside_of_the_checkout_its_configs_are_found(elsewhere):
    file = command_line.load_config("configs/digits_cnn.py:quick")
    assert (file.name, file.variant) == ("digits_cnn", "quick")
    # One's own file of that name goes first.
    (elsewhere / "configs").mkdir()
    own = "def get_config():\n    return {'seed': 7}\n"
    (elsewhere / "configs" / "digits_cnn.py").write_text(own)
    assert command_line.load_config("configs/digits_cnn.py").config.seed == 7


def test_a_wheel_holds_the_package_alone():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = setup["options.packages.find"]["include"].split()
    folders = [path.name for path in ROOT.iterdir() if list(path.glob("*.py"))]
    assert {"experiments", "configs", "tests", "dib_jax"} <= set(folders)
    packed = [
        name for name in folders if any(fnmatch.fnmatch(name, p) for p in patterns)
    ]
    assert packed == ["dib_jax"]


def test_without_a_checkout_the_path_must_exist(elsewhere, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "_CHECKOUT", elsewhere)
    line = refusal(capsys, "--config=configs/digits_cnn.py")
    assert line.startswith("--config: configs/digits_cnn.py is not there; give the pa")
    assert "configs/ of its repository" in line
    assert "give --config=PATH, one of your own" in refusal(capsys)
