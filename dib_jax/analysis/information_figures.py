"""Figures of what probes measured: information arrays in, a matplotlib figure out.

As `dib_jax.analysis.figures`: the width is in inches, and nothing is written. A group
is one or more runs that were probed at the same epochs; what is drawn is the mean over
its runs, with the 95 % interval of Student's t where it says so. Colours of
amounts are cividis and viridis, which keep their order for colour-blind eyes and in
grey print.

`drawings` is the list of all, with a caption and a table of its numbers for each.
"""

import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dib_jax.analysis.findings import COLUMNS, Probed, name_of
from dib_jax.analysis.statistics import chain, chain_names, chosen, mean_interval
from dib_jax.tasks import style
from dib_jax.tasks.exhibits import Cell, Drawing, Table
from dib_jax.tasks.style import DOTTED, INK, RULE, WIDE

Information = Mapping[str, np.ndarray]
"""Of one run, as `dib_jax.analysis.recording.read_information` gives it."""
Group = Sequence[Information]

_DASHES = ((None, None), (5, 2), (1.5, 1.5), (5, 1.5, 1.5, 1.5))
_MOST_STAGES = 8  # panels of one method; of more stages some are taken
_MANY_CELLS = 400  # of a map, beyond which it is drawn in pixels
# Else white paper shows between the cells of an SVG.
_SEAMLESS: dict[str, Any] = {"edgecolors": "face", "linewidth": 0.4}
_MOST_FRAMES = 40
_SHOWN = {
    "input_stage": "$I(X;T_k)$ (bits)",
    "stage_target": "$I(T_k;Y)$ (bits)",
    "previous_stage": "$I(T_{k-1};T_k)$ (bits)",
    "cka_final": "CKA with the last probe",
    "linear_cka_final": "Linear CKA with the last probe",
}
_BITS = ("input_stage", "stage_target", "previous_stage")
_NHSIC = ("nhsic_input", "nhsic_target")


def drawings(
    runs: Sequence[Probed],
    beside: Sequence[Sequence[Probed]] = (),
    *,
    split: str = "train",
) -> list[Drawing]:
    """All figures of a group of probed runs.

    Args:
        runs: of one group (`dib_jax.analysis.findings.groups`), one or more.
        beside: other groups to be drawn with it; those on another data set or with
            another number of stages are left out.
        split: "train" or "validation".

    Returns:
        In the order in which to show them; without a map of one stage, and without a
        comparison where there is nothing to compare with.
    """
    methods = _comparable([runs, *beside], split)
    made = [*_planes(runs, split), *_courses(runs, split)]
    return made + (_side_by_side(methods, split) if len(methods) > 1 else [])


def _some(stages: int) -> str:
    """What a caption adds where not all stages are drawn."""
    shown = len(chosen(stages, _MOST_STAGES))
    return f" {shown} of {stages} stages." if shown < stages else ""


def _over(group: Group) -> str:
    return f", means over {len(group)} runs" if len(group) > 1 else ""


def _planes(runs: Sequence[Probed], split: str) -> list[Drawing]:
    """The planes of one group."""
    group = [run.information for run in runs]
    probes, stages = group[0][f"{split}/sigma"].shape
    samples, over = int(group[0][f"{split}/samples"]), _over(group)
    draw = functools.partial(information_plane, {name_of(runs[0]): group}, split=split)
    course = f"The course of {stages} stages in the"
    return [
        Drawing(
            "information_plane",
            draw,
            f"{course} information plane.",
            f"I(X;T) against I(T;Y) of each stage, {probes} probes from dark to light; "
            f"{samples} samples of the {split} split{over}. Hollow: the stage was not "
            f"trained yet. The square is the last probe.{_some(stages)}",
            "Information plane",
            _every_probe(group, split),
        ),
        Drawing(
            "information_plane_modified",
            functools.partial(draw, modified=True),
            f"{course} modified information plane.",
            "What a stage holds of the one before it, I(Tₖ₋₁;Tₖ), against "
            "I(Tₖ;Y); before stage 0 comes the input. So a stage is seen by what it "
            "makes of its own input, which is what a local objective can act on. That "
            f"this is the modified plane is this package’s reading.{_some(stages)}",
            "Modified information plane",
        ),
        Drawing(
            "nhsic_plane",
            functools.partial(draw, measure="nhsic"),
            f"{course} plane of normalised HSIC.",
            "The same with the normalised HSIC between a stage and input or target in "
            f"place of information; it has no unit{over}.{_some(stages)}",
            "Plane of normalised HSIC",
        ),
    ]


def _courses(runs: Sequence[Probed], split: str) -> list[Drawing]:
    """What one group does over the epochs."""
    group = [run.information for run in runs]
    probes, stages = group[0][f"{split}/sigma"].shape
    band = "One run, so without an interval."
    if len(group) > 1:
        band = f"Means over {len(group)} runs, the band is their 95 % interval."
    change = ", and below what has changed since the first probe" * (probes > 1)
    animate = functools.partial(matrices_animation, group, split=split)
    return [
        Drawing(
            "information_curves",
            functools.partial(convergence_curves, group, split=split),
            f"Information and alignment of {stages} stages over the epochs.",
            f"Thin where the stage was not trained yet. {band} The line at 0.95 is "
            "what counts as near the end.",
            "Convergence",
        ),
        Drawing(
            "information_map",
            functools.partial(stage_epoch_map, group, split=split),
            "Maps with a row for each stage and a column for each probe.",
            f"Every stage at every probe{_over(group)}; each map has its own scale.",
            "Stages and epochs",
        ),
        Drawing(
            "information_matrices",
            functools.partial(matrices, group, split=split),
            "Matrices of mutual information, epoch by epoch.",
            f"I(A;B) between target Y, input X and the stages{change}{_over(group)}.",
            "Information between all variables",
            _last_matrix(group, split),
            animate if probes > 1 else None,
        ),
    ]


def _side_by_side(methods: Mapping[str, Group], split: str) -> list[Drawing]:
    """Several groups beside each other."""
    names = " and ".join(methods)
    some = _some(next(iter(methods.values()))[0][f"{split}/sigma"].shape[1])
    same = f"{names}, with the same axes for a stage."
    planes = functools.partial(information_plane, methods, split=split)
    made = [
        Drawing(
            f"beside_plane{'_modified' * modified}",
            functools.partial(planes, modified=modified),
            f"The courses of {names}, stage by stage.",
            f"{same} The colour is the share of each one’s epochs.{some}",
            f"{'Modified i' if modified else 'I'}nformation planes side by side",
        )
        for modified in (False, True)
    ]
    return [
        *made,
        Drawing(
            "beside_nhsic",
            functools.partial(planes, measure="nhsic"),
            f"The courses of {names} by normalised HSIC, stage by stage.",
            f"{same} Whether stages take different roles, and more so in one method, "
            f"is a number in the table of roles.{some}",
            "Planes of normalised HSIC side by side",
            _first_and_last(methods, split, _NHSIC, "normalised HSIC"),
        ),
        Drawing(
            "beside_depth",
            functools.partial(depth_profiles, methods, split=split),
            f"Information by stage at the last probe of {names}.",
            "The last probe; dotted the untrained network. A band is the 95 % "
            "interval, where there are several runs.",
            "By depth, side by side",
            _first_and_last(methods, split, _BITS, "in bits"),
        ),
    ]


def _comparable(groups: Sequence[Sequence[Probed]], split: str) -> dict[str, Group]:
    """Those on the first one's data set with as many stages, by their names."""

    def kind(run: Probed) -> tuple[Any, ...]:
        sigma = run.information.get(f"{split}/sigma", np.zeros((0, 0)))
        return run.config["dataset.name"], sigma.shape[1]

    found: dict[str, Group] = {}
    for runs in groups:
        if kind(runs[0]) == kind(groups[0][0]):
            name = name_of(runs[0]).partition(", ")[2]
            if name in found:  # they differ in something else
                name = f"{name} ({runs[0].workdir.name})"
            found[name] = [run.information for run in runs]
    return found


def information_plane(
    methods: Mapping[str, Group],
    *,
    split: str = "train",
    modified: bool = False,
    measure: str = "information",
    width: float = WIDE,
) -> Figure:
    """The course of each stage in the information plane, a panel each.

    Args:
        methods: name → group; panels of one stage have the same axes, and with several
            the colour is the share of a method's epochs.
        split: "train" or "validation".
        modified: I(T_{k−1};T_k) in place of I(X;T_k) on the horizontal axis. So this
            package reads the modified plane: each stage against its own input.
        measure: "information", or "nhsic", the normalised HSIC with X and Y.
        width: inches.

    Returns:
        The figure; of more than eight stages, eight.

    Raises:
        ValueError: `measure` is neither, or is "nhsic" and the plane to be modified.

    Source: Shwartz-Ziv & Tishby, arXiv 1703.00810, for the plane that is not modified;
        Sakamoto & Sato, arXiv 2402.09050, for that of normalised HSIC.
    """
    keys, form = _quantities(measure, modified=modified)
    several = len(methods) > 1
    first = next(iter(methods.values()))[0]
    stages = chosen(first[f"{split}/sigma"].shape[1], _MOST_STAGES)
    figure, panels = _panels_of_stages(len(stages), len(methods), width=width)
    colors = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))
    last = max(int(group[0][f"{split}/epoch"][-1]) for group in methods.values())
    paint = ScalarMappable(Normalize(0, 100 if several else max(last, 1)), colors)
    room = width / panels.shape[2] - 0.3
    # Stages fill line by line, each line once for every method.
    by_stage = panels.swapaxes(1, 2).reshape(-1, len(methods)).tolist()
    for stage, here in zip(stages, by_stage, strict=False):
        for axes, (name, group) in zip(here, methods.items(), strict=True):
            x, y = (_mean(group, f"{split}/{key}")[:, stage] for key in keys)
            epochs = group[0][f"{split}/epoch"].astype(float)
            share = 100 * epochs / max(epochs[-1], 1)
            drawn = paint.to_rgba(share if several else epochs)
            trained = group[0][f"{split}/trained"][:, stage] > 0
            _trajectory(axes, x, y, drawn, trained)
            below = f"\n{style.wrapped(name, room, style.TITLE)}" if several else ""
            style.heading(axes, f"stage {stage}{below}")
            before = f"T_{{{stage - 1}}}" if modified and stage else "X"
            pairs = f"({before};T_{{{stage}}})", f"(T_{{{stage}}};Y)"
            style.finish(axes, *map(form.format, pairs))
            axes.grid(axis="x", color=style.GRID, lw=0.7)
        _same_limits(here, ticks=4 if width > 5 else 3)
    label = "Share of the epochs (%)" if several else "Epoch"
    _bar_below(figure, panels.ravel().tolist(), paint, label, most=6)
    return figure


def _quantities(measure: str, *, modified: bool) -> tuple[tuple[str, str], str]:
    """What a plane has on its axes, and the form of their labels."""
    if measure not in ("information", "nhsic"):
        raise ValueError(f"measure must be 'information' or 'nhsic', got {measure!r}")
    if measure == "information":
        x = "previous_stage" if modified else "input_stage"
        return (x, "stage_target"), "$I{}$ (bits)"
    if modified:
        raise ValueError("modified: the plane of normalised HSIC is not modified")
    return _NHSIC, "nHSIC${}$"


def _panels_of_stages(
    stages: int, methods: int, *, width: float
) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, (lines of stages, methods, stages beside each other)."""
    most, height = (3 if stages in (5, 6) else 4, 2.15) if width > 5 else (2, 1.9)
    columns = min(stages, most)
    lines = math.ceil(stages / columns)
    count = lines * methods * columns
    figure, grid = style.panels(count, columns, width=width, height=height, margin=0.75)
    panels = np.array(grid).reshape(lines, methods, columns)
    for axes in panels[-1, :, stages - (lines - 1) * columns :].flat:
        axes.set_visible(False)
    return figure, panels


def _trajectory(
    axes: Axes, x: np.ndarray, y: np.ndarray, drawn: Any, trained: np.ndarray
) -> None:
    """Points in their colours, hollow where untrained; a square for the last."""
    axes.plot(x, y, color="#9A9A9A", lw=0.7, zorder=2)
    axes.scatter(
        x, y, s=20, edgecolors=drawn, linewidths=1.0, zorder=3,
        facecolors=np.where(trained[:, None], drawn, (1, 1, 1, 1)),
    )  # fmt: skip
    axes.plot(x[-1:], y[-1:], "s", ms=6.5, mfc=drawn[-1], mec=INK, mew=0.9, zorder=4)


def _same_limits(panels: Sequence[Axes], *, ticks: int) -> None:
    """The same axes for panels, none of them so short that rounding looks like much."""
    for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        limits = np.array([getattr(axes, get)() for axes in panels])
        low, high = limits[:, 0].min(), limits[:, 1].max()
        # Room for the marks at the ends, which are larger than the lines.
        missing = max(0.06 * (high - low), (0.1 - (high - low)) / 2)
        for axes in panels:
            getattr(axes, put)(low - missing, high + missing)
            axes.locator_params(nbins=ticks)


def convergence_curves(
    group: Group, *, split: str = "train", width: float = WIDE
) -> Figure:
    """Information and alignment with the last probe over the epochs, a line a stage.

    Args:
        group: one or more runs.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure, with 95 % intervals as bands for several runs.
    """
    keys = ("input_stage", "stage_target", "cka_final", "linear_cka_final")
    epochs = group[0][f"{split}/epoch"]
    trained = group[0][f"{split}/trained"] > 0  # (p, s)
    figure, panels = style.panels(
        len(keys), 2 if width > 5 else 1, width=width, height=2.3, margin=0.5
    )
    stages = trained.shape[1]
    colors = style.stage_colors(stages)
    marker = "." if len(epochs) <= 15 else None
    for axes, key in zip(panels, keys, strict=True):
        mean, low, high = mean_interval(_values(group, f"{split}/{key}"))
        for stage, color in enumerate(colors):
            dashes = _DASHES[stage % len(_DASHES)]
            look: dict[str, Any] = dict(color=color, dashes=dashes, marker=marker, ms=4)
            course = mean[:, stage]
            # From its untrained state on it is drawn as one that learns.
            start = max(0, int((~trained[:, stage]).sum()) - 1)
            thin, thick = np.s_[: start + 1], np.s_[start:]
            axes.plot(epochs[thin], course[thin], lw=0.7, zorder=2, **look)
            look["label"] = f"stage {stage}"
            axes.plot(epochs[thick], course[thick], lw=1.6, zorder=3, **look)
            _band(axes, epochs, low[:, stage], high[:, stage], color, key)
        if "cka" in key:
            axes.axhline(0.95, color=style.GREY, lw=0.8, ls=DOTTED, zorder=1)
        style.finish(axes, "Epoch", _SHOWN[key])
        style.whole_numbers(axes.xaxis, 7)
    if stages <= len(style.PALETTE):
        style.legend(figure, style.lines_of(panels[0]), columns=4)
    else:
        norm = Normalize(-0.5, stages - 0.5)
        paint = ScalarMappable(norm, ListedColormap(colors))
        _bar_below(figure, panels, paint, "Stage", most=10)
    return figure


def _band(
    axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str, key: str
) -> None:
    """The interval over runs, where there are several, as far as values can be."""
    if not np.isnan(low).any():
        most = 1 if "cka" in key else np.inf
        low, high = (np.clip(end, 0, most) for end in (low, high))
        axes.fill_between(x, low, high, color=color, alpha=0.2, lw=0, zorder=1)


def stage_epoch_map(
    group: Group, *, split: str = "train", width: float = WIDE
) -> Figure:
    """Every stage at every probe: information and alignment, a map each.

    The arguments are those of `convergence_curves`.

    Returns:
        The figure; stage 0 is the lowest row.
    """
    keys = ("input_stage", "stage_target", "previous_stage", "cka_final")
    epochs = group[0][f"{split}/epoch"].astype(float)
    stages = group[0][f"{split}/sigma"].shape[1]
    height = 1.0 + min(2.4, 0.28 * stages)
    figure, panels = style.panels(
        len(keys), 2 if width > 5 else 1, width=width, height=height, margin=0.2
    )
    # No further outwards than an epoch is wide: there are none beyond.
    middles = (epochs[1:] + epochs[:-1]) / 2
    edges = np.array([epochs[0] - 0.5, *middles, epochs[-1] + 0.5])
    for axes, key in zip(panels, keys, strict=True):
        values = _mean(group, f"{split}/{key}").T
        mesh = axes.pcolormesh(
            edges, np.arange(stages + 1) - 0.5, values, cmap="cividis",
            rasterized=values.size > _MANY_CELLS, **_SEAMLESS,
        )  # fmt: skip
        style.finish(axes, "Epoch", "Stage")
        axes.grid(visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        style.whole_numbers(axes.xaxis, 7)
        style.color_bar(figure, mesh, axes, aspect=16)
        style.heading(axes, _SHOWN[key])
    return figure


def matrices(group: Group, *, split: str = "train", width: float = WIDE) -> Figure:
    """Mutual information between all variables at some probes, as a film strip.

    Args:
        group: one or more runs.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure: I(A;B) of target Y, input X and all stages, and in a second line its
        change since the first probe, where there are several. The diagonals are empty.
    """
    whole = _chains(group, split)
    frames = chosen(len(whole), 5 if width > 5 else 3)
    lines = 1 + (len(whole) > 1)
    size = (width, 0.4 + lines * (0.85 * width / len(frames) + 0.1))
    size = size if len(frames) > 1 else (3.7, 3.1)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, len(frames), squeeze=False)
    for axes, frame in zip(panels[0], frames, strict=True):
        style.heading(axes, f"epoch {group[0][f'{split}/epoch'][frame]}")
    _matrix_panels(figure, panels, whole, frames)
    return figure


def matrices_animation(group: Group, *, split: str = "train") -> bytes:
    """The matrices probe by probe, as an animated GIF.

    Args:
        group: one or more runs.
        split: "train" or "validation".

    Returns:
        The file: 0.4 s for each of at most forty probes, 2 s for the last one; it
        begins anew.
    """
    whole, epochs = _chains(group, split), group[0][f"{split}/epoch"]
    lines = 1 + (len(whole) > 1)
    figure = Figure(figsize=(3.5 * lines, 3.1), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, lines, squeeze=False).T
    meshes = _matrix_panels(figure, panels, whole, [len(whole) - 1])
    frames = []
    probes = chosen(len(whole), _MOST_FRAMES)
    for probe in (probes[-1], *probes):
        for mesh, values in zip(meshes, (whole, whole - whole[0]), strict=False):
            mesh.set_array(np.ma.masked_invalid(values[probe]))
        style.heading(panels[0, 0], f"epoch {epochs[probe]}")
        canvas.draw()
        figure.set_layout_engine("none")  # all frames alike
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # Colours of the last frame, which has most of them, for all: else they flicker.
    plain = Image.Dither.NONE
    palette = frames[0].quantize(256, dither=plain)
    reduced = [frame.quantize(palette=palette, dither=plain) for frame in frames[1:]]
    buffer = io.BytesIO()
    reduced[0].save(
        buffer, format="GIF", save_all=True, append_images=reduced[1:], loop=0,
        duration=[400] * (len(reduced) - 1) + [2000],
    )  # fmt: skip
    return buffer.getvalue()


def _matrix_panels(
    figure: Figure, panels: np.ndarray, whole: np.ndarray, frames: Sequence[int]
) -> list[Any]:
    """Fill one line of panels with the matrices, and a second one with the change."""
    change = whole - whole[0]
    low, high = float(np.nanmin(whole)), float(np.nanmax(whole))
    most = max(float(np.nanmax(np.abs(change))), 0.01)
    looks: list[tuple[np.ndarray, str, str, Normalize]] = [
        (whole, "I(A;B) (bits)", "cividis", Normalize(low, max(high, low + 0.01))),
        (change, "Change (bits)", "PuOr_r", Normalize(-most, most)),
    ]
    names = chain_names(whole.shape[1])
    ticks = range(0, len(names), math.ceil(len(names) / 8))
    words = [names[tick] for tick in ticks]
    edges = np.arange(len(names) + 1) - 0.5
    pixels = len(names) ** 2 * len(frames) > _MANY_CELLS
    meshes: list[Any] = []
    for line, (values, label, cmap, norm) in zip(panels, looks, strict=False):
        look = {"cmap": cmap, "norm": norm, "rasterized": pixels, **_SEAMLESS}
        for axes, frame in zip(line, frames, strict=True):
            shown = np.ma.masked_invalid(values[frame])
            mesh = axes.pcolormesh(edges, edges, shown, **look)
            axes.set(facecolor="#E4E4E4", aspect="equal")
            axes.invert_yaxis()
            # A strip names its variables once at its left.
            beside = words if axes is line[0] else [""] * len(words)
            axes.set_xticks(ticks, words, fontsize=7)
            axes.set_yticks(ticks, beside, fontsize=7)
            axes.tick_params(length=1.5, color=RULE, labelcolor=INK)
            axes.spines[:].set_color(RULE)
        style.color_bar(figure, mesh, list(line), label, aspect=14)
        meshes.append(mesh)
    return meshes


def depth_profiles(
    methods: Mapping[str, Group], *, split: str = "train", width: float = WIDE
) -> Figure:
    """Information by stage at the first and the last probe, a line a method.

    Args:
        methods: name → group; the same number of stages in all.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure: I(X;T_k), I(T_k;Y) and I(T_{k−1};T_k); untrained dotted.
    """
    columns, margin = 3 if width > 5 else 1, 0.3 + 0.2 * len(methods)
    figure, panels = style.panels(
        len(_BITS), columns, width=width, height=2.2, margin=margin
    )
    colors = style.stage_colors(len(methods))
    markers = "osD^v" * len(methods)
    for axes, key in zip(panels, _BITS, strict=True):
        for name, color, marker in zip(methods, colors, markers, strict=False):
            mean, low, high = mean_interval(_values(methods[name], f"{split}/{key}"))
            depth = np.arange(mean.shape[1])
            look: dict[str, Any] = dict(color=color, marker=marker, ms=4.5, lw=1.6)
            axes.plot(depth, mean[-1], label=name, zorder=3, **look)
            if len(mean) > 1:
                axes.plot(depth, mean[0], color=color, lw=1.1, ls=DOTTED)
            _band(axes, depth, low[-1], high[-1], color, key)
        style.finish(axes, "Stage", _SHOWN[key])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    untrained = Line2D([], [], color=INK, lw=1.1, ls=DOTTED, label="untrained")
    handles = [*style.lines_of(panels[0]), untrained]
    style.legend(figure, handles, columns=columns, place="outside upper left")
    return figure


def _values(group: Group, key: str) -> np.ndarray:
    return np.stack([run[key] for run in group]).astype(np.float64)


def _mean(group: Group, key: str) -> np.ndarray:
    return _values(group, key).mean(axis=0)


def _chains(group: Group, split: str) -> np.ndarray:
    return np.stack([chain(dict(run), split) for run in group]).mean(axis=0)


def _bar_below(
    figure: Figure, panels: Sequence[Axes], shown: ScalarMappable, label: str, most: int
) -> None:
    below: dict[str, Any] = dict(location="bottom", aspect=40, shrink=0.6)
    bar = style.color_bar(figure, shown, panels, label, **below)
    bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def _every_probe(group: Group, split: str) -> Table:
    """What the planes, curves and maps show."""
    columns = ("input_stage", "previous_stage", "stage_target", "stage_target_shuffled",
               "cka_final", "linear_cka_final")  # fmt: skip
    values = np.stack([_mean(group, f"{split}/{key}") for key in columns], axis=-1)
    epochs, trained = (group[0][f"{split}/{key}"] for key in ("epoch", "trained"))
    rows: list[tuple[Cell, ...]] = [
        (int(epochs[at[0]]), at[1], int(trained[at]), *values[at].tolist())
        for at in np.ndindex(trained.shape)
    ]
    header = ("epoch", "stage", "trained epochs", *(COLUMNS[key] for key in columns))
    return Table(f"Every stage at every probe, {split}, bits and CKA", header, rows)


def _last_matrix(group: Group, split: str) -> Table:
    whole = _chains(group, split)[-1]
    names = chain_names(len(whole))
    rows: list[tuple[Cell, ...]] = [
        (name, *(None if math.isnan(x) else x for x in line.tolist()))
        for name, line in zip(names, whole, strict=True)
    ]
    title = f"I(A;B) at the last probe, {split}, in bits"
    return Table(title, ("", *names), rows)


def _first_and_last(
    methods: Mapping[str, Group], split: str, keys: Sequence[str], unit: str
) -> Table:
    """Some quantities of each stage at the first and the last probe."""
    rows: list[tuple[Cell, ...]] = []
    for name, group in methods.items():
        ends = [_mean(group, f"{split}/{key}")[[0, -1]] for key in keys]
        # (s, columns, first and last)
        values = np.stack(ends).transpose(2, 0, 1)
        rows += [(name, stage, *each.ravel()) for stage, each in enumerate(values)]
    header = [f"{COLUMNS[key]} {when}" for key in keys for when in ("first", "last")]
    title = f"First and last probe by stage, {split}, {unit}"
    return Table(title, ("method", "stage", *header), rows)
