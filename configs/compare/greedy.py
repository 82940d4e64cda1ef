"""What brings GreedyDIB up: one change at a time, with heads of two convolutions.

The network and the 10,000 pictures of cifar10.py, where these heads (k = 3) are ahead
of all others; two seeds, each method at the better of two learning rates on the
validation split. All pass over the data nine times: end to end and stages at once for
nine epochs, stages in turn for three each unless their name says otherwise.
:long gives every method 27 passes, stages in turn nine each.

Command:  python -m experiments.compare --config=configs/compare/greedy.py
    --data_dir=DIR      (or greedy.py:long)
"""

from dib_jax.commands.config import ConfigDict, variant

_K3 = ("head.name=conv", "head.layers=2")
_AUGMENTED = "head.name=augmented"
_AT_ONCE = "algorithm.name=parallel"
_BLOCKS = "algorithm.blocks=2"
_SMOOTHED = "task.label_smoothing=0.1"
# Stages are paid for entropy.
_ENTROPY = (
    "objective.compress=entropy",
    "objective.beta=-0.1",
    "objective.relative=False",
)
# The same by the joint kernel of the channels, each in units of its own scale.
_JOINT = (
    "objective.compress=entropy",
    "objective.beta=-1",
    "objective.per_channel=True",
)
_RATES = ("optimizer.learning_rate=0.2", "optimizer.learning_rate=0.4")


def get_config(arg: str = "") -> ConfigDict:
    """The comparison; `arg` may be "long"."""
    passes = 27 if variant(arg, "long") else 9
    end_to_end = ("algorithm.name=end_to_end", *_K3, f"epochs={passes}")
    at_once = (_AT_ONCE, f"epochs={passes}")
    in_turn = (f"epochs={passes // 3}",)
    config = ConfigDict()
    config.like = "configs/compare/cifar10.py"
    config.methods = {
        "end_to_end_k3": end_to_end,
        "at_once": (*_K3, *at_once),
        "at_once_blocks": (*_K3, _BLOCKS, *at_once),
        "at_once_augmented": (_AUGMENTED, *at_once),
        "in_turn": (*_K3, *in_turn),
        "in_turn_augmented": (_AUGMENTED, *in_turn),
    }
    if not arg:
        config.methods.update(
            {
                "at_once_no_term": (*_K3, "objective.beta=0", *at_once),
                "at_once_entropy": (*_K3, *_ENTROPY, *at_once),
                "at_once_joint_entropy": (*_K3, *_JOINT, *at_once),
                "at_once_smoothed": (*_K3, _SMOOTHED, *at_once),
                "at_once_smoothed_blocks": (*_K3, _SMOOTHED, _BLOCKS, *at_once),
                "end_to_end_k3_smoothed": (*end_to_end, _SMOOTHED),
                "in_turn_entropy": (*_K3, *_ENTROPY, *in_turn),
                "in_turn_blocks": (*_K3, _BLOCKS, "epochs=(4, 5)"),
                "in_turn_long_last": (*_K3, "epochs=(2, 2, 5)"),
                "in_turn_longest_last": (*_K3, "epochs=(1, 1, 7)"),
            }
        )
    config.search = {
        method: tuple((rate,) for rate in _RATES) for method in config.methods
    }
    config.seeds = (0, 1)
    config.reference = "end_to_end_k3"
    return config
