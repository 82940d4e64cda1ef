"""Figures of what probes measured: information arrays in, a matplotlib figure out.

As `dib_jax.analysis.figures`: the width is in inches, and but for `save` nothing is
written. A group is one or more runs that were probed at the same epochs; what is drawn
is the mean over its runs, with the percentile bootstrap's 95 % interval where it says
so. Colours of amounts are cividis and viridis, which keep their order for colour-blind
eyes and in grey print.

`drawings` is the list of all, with a caption and a table of its numbers for each.
"""

import functools
import io
import math
import pathlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dib_jax.analysis import figures
from dib_jax.analysis.findings import Run, Table, name_of
from dib_jax.analysis.statistics import chain
from dib_jax.training.workdir import write_atomically

Information = Mapping[str, np.ndarray]
"""Of one run, as `dib_jax.analysis.recording.read_information` gives it."""
Group = Sequence[Information]

_INK, _RULE = "#222222", "#C8C8C8"
_TITLE, _LABEL, _TICK = 9, 9, 8  # points
_DASHES = ((None, None), (5, 2), (1.5, 1.5), (5, 1.5, 1.5, 1.5))
_LETTER = 0.075  # inches of a title, about
_MOST_STAGES = 8  # panels of one method; of more stages some are taken
_MANY_CELLS = 400  # of a map, beyond which it is drawn in pixels
# Else white paper shows between the cells of an SVG.
_SEAMLESS: dict[str, Any] = {"edgecolors": "face", "linewidth": 0.4}
_MOST_FRAMES = 40
_RESAMPLES = 2000
_SHOWN = {
    "input_stage": "$I(X;T_k)$ (bits)",
    "stage_target": "$I(T_k;Y)$ (bits)",
    "previous_stage": "$I(T_{k-1};T_k)$ (bits)",
    "cka_final": "CKA with the last probe",
}


class Drawing(NamedTuple):
    """A figure that can be drawn in any width.

    Attributes:
        name: of its file, without an ending.
        title: its heading.
        draw: with the option `width`, inches, gives the figure.
        alt: what there is to see, for those who cannot.
        caption: below it.
        table: its numbers; None where another drawing's table has them.
        animate: makes an animated GIF of it; None where there is none.
    """

    name: str
    title: str
    draw: Callable[..., Figure]
    alt: str
    caption: str
    table: Table | None = None
    animate: Callable[[], bytes] | None = None


class Rendered(NamedTuple):
    """A drawing as files.

    Attributes:
        drawing: what was drawn.
        png: for a wide page.
        svg: the same.
        page: media type, and contents for a wide page and for a phone.
        width: of the wide one, inches.
        gif: its animation; None where it has none.
    """

    drawing: Drawing
    png: bytes
    svg: bytes
    page: tuple[str, bytes, bytes]
    width: float
    gif: bytes | None


def drawings(
    runs: Sequence[Run],
    beside: Sequence[Sequence[Run]] = (),
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
    group = [run.information for run in runs]
    over = f", means over {len(runs)} runs" if len(runs) > 1 else ""
    pictures = f"{int(group[0][f'{split}/samples'])} pictures of the {split} split"
    probes, stages = group[0][f"{split}/sigma"].shape
    chosen = _chosen(stages, _MOST_STAGES)
    some = f" {len(chosen)} of {stages} stages." if len(chosen) < stages else ""
    own = {name_of(runs[0]): group}
    hollow = " Hollow: the stage was not trained yet. The square is the last probe."
    made = [
        Drawing(
            "information_plane",
            "Information plane",
            functools.partial(information_plane, own, split=split),
            f"The course of {stages} stages in the information plane.",
            f"I(X;T) against I(T;Y) of each stage, {probes} probes from dark to light; "
            f"{pictures}{over}.{hollow}{some}",
            _table_of(group, split),
        ),
        Drawing(
            "information_plane_modified",
            "Modified information plane",
            functools.partial(information_plane, own, split=split, modified=True),
            f"The course of {stages} stages in the modified information plane.",
            "What a stage holds of the one before it, I(Tₖ₋₁;Tₖ), against "
            "I(Tₖ;Y); before stage 0 comes the input. So a stage is seen by what it "
            "makes of its own input, which is what a local objective can act on. That "
            f"this is the modified plane is this package’s reading.{some}",
        ),
        Drawing(
            "nhsic_plane",
            "Plane of normalised HSIC",
            functools.partial(information_plane, own, split=split, measure="nhsic"),
            f"The course of {stages} stages in the plane of normalised HSIC.",
            "The same with the normalised HSIC between a stage and input or target in "
            f"place of information; it has no unit{over}.{some}",
        ),
        Drawing(
            "information_curves",
            "Convergence",
            functools.partial(convergence_curves, group, split=split),
            f"Information and alignment of {stages} stages over the epochs.",
            "Thin where the stage was not trained yet. "
            + (
                f"Means over {len(runs)} runs, the band is their 95 % bootstrap "
                "interval."
                if len(runs) > 1
                else "One run, so without an interval."
            )
            + " The line at 0.95 is what counts as near the end.",
        ),
        Drawing(
            "information_map",
            "Stages and epochs",
            functools.partial(stage_epoch_map, group, split=split),
            "Maps with a row for each stage and a column for each probe.",
            f"Every stage at every probe{over}; each map has its own scale.",
        ),
        Drawing(
            "information_matrices",
            "Information between all variables",
            functools.partial(matrices, group, split=split),
            "Matrices of mutual information, epoch by epoch.",
            "I(A;B) between target Y, input X and the stages"
            + (
                ", and below what has changed since the first probe"
                if probes > 1
                else ""
            )
            + f"{over}.",
            _last_matrix(group, split),
            functools.partial(matrices_animation, group, split=split)
            if probes > 1
            else None,
        ),
    ]
    methods = _comparable([runs, *beside], split)
    if len(methods) > 1:
        names = " and ".join(methods)
        for modified in (False, True):
            made.append(
                Drawing(
                    f"beside_plane{'_modified' * modified}",
                    f"{'Modified i' if modified else 'I'}nformation planes "
                    "side by side",
                    functools.partial(
                        information_plane, methods, split=split, modified=modified
                    ),
                    f"The courses of {names}, stage by stage.",
                    f"{names}, with the same axes for a stage. The colour is the share "
                    f"of each one’s epochs.{some}",
                )
            )
        made.append(
            Drawing(
                "beside_nhsic",
                "Planes of normalised HSIC side by side",
                functools.partial(
                    information_plane, methods, split=split, measure="nhsic"
                ),
                f"The courses of {names} by normalised HSIC, stage by stage.",
                f"{names}, with the same axes for a stage. Whether stages take "
                "different roles, and more so in one method, is a number in the table "
                f"of roles.{some}",
                _roles_table(methods, split),
            )
        )
        made.append(
            Drawing(
                "beside_depth",
                "By depth, side by side",
                functools.partial(depth_profiles, methods, split=split),
                f"Information by stage at the last probe of {names}.",
                "The last probe; dotted the untrained network. A band is the 95 % "
                "bootstrap interval, where there are several runs.",
                _depth_table(methods, split),
            )
        )
    return made


def _comparable(groups: Sequence[Sequence[Run]], split: str) -> dict[str, Group]:
    """Those on the first one's data set with as many stages, by their names."""

    def kind(run: Run) -> tuple[Any, ...]:
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


def render(drawing: Drawing) -> Rendered:
    """Draw it, once for all folders and pages that it goes to.

    Args:
        drawing: one of `drawings`.
    """
    wide = drawing.draw(width=figures.WIDE)
    png, svg = figures.png(wide), figures.svg(wide)
    narrow = drawing.draw(width=figures.NARROW)
    return Rendered(
        drawing,
        png,
        svg,
        figures.for_page(png, svg, narrow),
        wide.get_figwidth(),
        drawing.animate() if drawing.animate else None,
    )


def save(workdir: pathlib.Path, rendered: Sequence[Rendered]) -> None:
    """Write figures/NAME.png, .svg and, of an animation, .gif.

    Args:
        workdir: of a run, finished or not.
        rendered: of `render`.

    Raises:
        OSError: the workdir cannot be written.
    """
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    for made in rendered:
        files = {"png": made.png, "svg": made.svg, "gif": made.gif}
        for ending, content in files.items():
            if content is not None:
                write_atomically(folder / f"{made.drawing.name}.{ending}", content)


def information_plane(
    methods: Mapping[str, Group],
    *,
    split: str = "train",
    modified: bool = False,
    measure: str = "information",
    width: float = 8.3,
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
    if measure not in ("information", "nhsic"):
        raise ValueError(f"measure must be 'information' or 'nhsic', got {measure!r}")
    by_nhsic = measure == "nhsic"
    if by_nhsic and modified:
        raise ValueError("modified: the plane of normalised HSIC is not modified")
    x_key = "previous_stage" if modified else "input_stage"
    keys = ("nhsic_input", "nhsic_target") if by_nhsic else (x_key, "stage_target")
    first = next(iter(methods.values()))
    stages = _chosen(first[0][f"{split}/sigma"].shape[1], _MOST_STAGES)
    columns = min(len(stages), 4 if width > 5 else 2)
    if len(stages) in (5, 6) and width > 5:
        columns = 3
    blocks = math.ceil(len(stages) / columns)
    lines = blocks * len(methods)
    size = (width, 0.75 + (2.15 if width > 5 else 1.9) * lines)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    colors = _truncated("viridis", 0.9)
    several = len(methods) > 1
    last = max(int(own[0][f"{split}/epoch"][-1]) for own in methods.values())
    norm = Normalize(0, 100 if several else max(last, 1))
    for place, stage in enumerate(stages):
        block, column = divmod(place, columns)
        here = []
        for number, (name, group) in enumerate(methods.items()):
            axes = panels[block * len(methods) + number, column]
            here.append(axes)
            axes.set_visible(True)
            _trajectory(axes, group, split, keys, stage, norm, colors, several)
            title = f"stage {stage}"
            if several:
                room = int((width / columns - 0.3) / _LETTER)
                title += "\n" + textwrap.fill(name, room)
            axes.set_title(title, fontsize=_TITLE, color=_INK, loc="left")
            before = "X" if stage == 0 else f"T_{{{stage - 1}}}"
            x_name = f"({before if modified else 'X'};T_{{{stage}}})"
            y_name = f"(T_{{{stage}}};Y)"
            words = [
                f"nHSIC${own}$" if by_nhsic else f"$I{own}$ (bits)"
                for own in (x_name, y_name)
            ]
            figures.finish(axes, *words)
            axes.grid(axis="x", color="#EDEDED", lw=0.7)
        _same_limits(here, ticks=4 if width > 5 else 3)
    bar = _color_bar(figure, panels, norm, colors)
    bar.set_label(
        "Share of the epochs (%)" if several else "Epoch", fontsize=_LABEL, color=_INK
    )
    bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure


def _trajectory(
    axes: Axes,
    group: Group,
    split: str,
    keys: tuple[str, str],
    stage: int,
    norm: Normalize,
    colors: Colormap,
    as_share: bool,
) -> None:
    x, y = (_mean(group, f"{split}/{key}")[:, stage] for key in keys)
    epochs = group[0][f"{split}/epoch"].astype(float)
    if as_share:
        epochs = 100 * epochs / max(epochs[-1], 1)
    drawn = colors(norm(epochs))
    trained = group[0][f"{split}/trained"][:, stage] > 0
    axes.plot(x, y, color="#9A9A9A", lw=0.7, zorder=2)
    axes.scatter(
        x, y, s=20, edgecolors=drawn, linewidths=1.0, zorder=3,
        facecolors=np.where(trained[:, None], drawn, (1, 1, 1, 1)),
    )  # fmt: skip
    axes.plot(x[-1:], y[-1:], "s", ms=6.5, mfc=drawn[-1], mec=_INK, mew=0.9, zorder=4)


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
    group: Group, *, split: str = "train", width: float = 8.3
) -> Figure:
    """Information and alignment with the last probe over the epochs, a line a stage.

    Args:
        group: one or more runs.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure, with 95 % bootstrap intervals as bands for several runs.
    """
    keys = ("input_stage", "stage_target", "cka_final", "linear_cka_final")
    epochs = group[0][f"{split}/epoch"]
    trained = group[0][f"{split}/trained"] > 0  # (p, s)
    columns = 2 if width > 5 else 1
    size = (width, 0.5 + 2.3 * len(keys) / columns)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(keys) // columns, columns, squeeze=False)
    stages = trained.shape[1]
    colors = figures.stage_colors(stages)
    for axes, key in zip(panels.flat, keys, strict=True):
        values = np.stack([own[f"{split}/{key}"] for own in group])
        mean, (low, high) = values.mean(axis=0), interval(values)
        for stage, color in enumerate(colors):
            style: dict[str, Any] = {
                "color": color, "dashes": _DASHES[stage % len(_DASHES)],
                "marker": "." if len(epochs) <= 15 else None, "ms": 4,
            }  # fmt: skip
            # From its untrained state on it is drawn as one that learns.
            start = max(0, int((~trained[:, stage]).sum()) - 1)
            before = slice(start + 1)
            axes.plot(epochs[before], mean[before, stage], lw=0.7, zorder=2, **style)
            axes.plot(
                epochs[start:], mean[start:, stage], lw=1.6, zorder=3,
                label=f"stage {stage}", **style,
            )  # fmt: skip
            if len(group) > 1:
                axes.fill_between(
                    epochs, low[:, stage], high[:, stage], color=color, alpha=0.2,
                    lw=0, zorder=1,
                )  # fmt: skip
        label = _SHOWN.get(key, "Linear CKA with the last probe")
        if "cka" in key:
            axes.axhline(0.95, color="#666666", lw=0.8, ls=(0, (1, 2)), zorder=1)
        figures.finish(axes, "Epoch", label)
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10])
        )
    if stages <= 7:
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper right", frameon=False, ncols=4,
            fontsize=_TICK, labelcolor=_INK, borderaxespad=0.2,
        )  # fmt: skip
    else:
        norm = Normalize(-0.5, stages - 0.5)
        bar = _color_bar(figure, panels, norm, ListedColormap(colors))
        bar.set_label("Stage", fontsize=_LABEL, color=_INK)
        bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    return figure


def stage_epoch_map(
    group: Group, *, split: str = "train", width: float = 8.3
) -> Figure:
    """Every stage at every probe: information and alignment, a map each.

    Args:
        group: one or more runs.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure; stage 0 is the lowest row.
    """
    epochs = group[0][f"{split}/epoch"].astype(float)
    stages = group[0][f"{split}/sigma"].shape[1]
    columns = 2 if width > 5 else 1
    height = 1.0 + min(2.4, 0.28 * stages)
    size = (width, 0.2 + height * len(_SHOWN) / columns)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(_SHOWN) // columns, columns, squeeze=False)
    middle = (epochs[1:] + epochs[:-1]) / 2
    # The first and last probe reach as far outwards as inwards.
    ends = (
        (2 * epochs[0] - middle[0], 2 * epochs[-1] - middle[-1])
        if len(epochs) > 1
        else (epochs[0] - 0.5, epochs[0] + 0.5)
    )
    edges = np.array([ends[0], *middle, ends[1]])
    for axes, (key, label) in zip(panels.flat, _SHOWN.items(), strict=True):
        values = _mean(group, f"{split}/{key}").T
        mesh = axes.pcolormesh(
            edges, np.arange(stages + 1) - 0.5, values, cmap="cividis",
            rasterized=values.size > _MANY_CELLS, **_SEAMLESS,
        )  # fmt: skip
        figures.finish(axes, "Epoch", "Stage")
        axes.grid(visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10])
        )
        bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=16)
        bar.ax.tick_params(labelsize=_TICK, length=2, color=_RULE)
        bar.outline.set_visible(False)
        axes.set_title(label, fontsize=_TITLE, color=_INK, loc="left")
    return figure


def matrices(group: Group, *, split: str = "train", width: float = 8.3) -> Figure:
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
    frames = _chosen(len(whole), 5 if width > 5 else 3)
    lines = 1 + (len(whole) > 1)
    size = (width, 0.4 + lines * (0.85 * width / len(frames) + 0.1))
    figure = Figure(figsize=size if len(frames) > 1 else (3.7, 3.1))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(lines, len(frames), squeeze=False)
    _matrix_panels(figure, panels, whole, frames, group[0][f"{split}/epoch"])
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
    meshes = _matrix_panels(figure, panels, whole, [len(whole) - 1], epochs)
    frames = []
    chosen = _chosen(len(whole), _MOST_FRAMES)
    for probe in (chosen[-1], *chosen):
        for mesh, values in zip(meshes, (whole, whole - whole[0]), strict=False):
            mesh.set_array(np.ma.masked_invalid(values[probe]))
        panels[0, 0].set_title(f"epoch {epochs[probe]}", fontsize=_TITLE, loc="left")
        canvas.draw()
        figure.set_layout_engine("none")  # all frames alike
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # Colours of the last frame, which has most of them, for all: else they flicker.
    palette = frames[0].quantize(256, dither=Image.Dither.NONE)
    reduced = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames[1:]
    ]
    buffer = io.BytesIO()
    reduced[0].save(
        buffer, format="GIF", save_all=True, append_images=reduced[1:], loop=0,
        duration=[400] * (len(reduced) - 1) + [2000],
    )  # fmt: skip
    return buffer.getvalue()


def _matrix_panels(
    figure: Figure,
    panels: np.ndarray,
    whole: np.ndarray,
    frames: Sequence[int],
    epochs: np.ndarray,
) -> list[Any]:
    change = whole - whole[0]
    names = ["Y", "X", *(f"T{k}" for k in range(whole.shape[1] - 2))]
    step = math.ceil(len(names) / 8)
    ticks = list(range(0, len(names), step))
    meshes: list[Any] = []
    for line, (values, label) in enumerate(
        ((whole, "I(A;B) (bits)"), (change, "Change (bits)"))[: len(panels)]
    ):
        if line == 0:
            low, high = float(np.nanmin(whole)), float(np.nanmax(whole))
            norm = Normalize(low, max(high, low + 0.01))
        else:
            most = max(float(np.nanmax(np.abs(change))), 0.01)
            norm = Normalize(-most, most)
        mesh: Any = None
        for axes, frame in zip(panels[line], frames, strict=True):
            edges = np.arange(len(names) + 1) - 0.5
            mesh = axes.pcolormesh(
                edges, edges, np.ma.masked_invalid(values[frame]), norm=norm,
                cmap=("cividis", "PuOr_r")[line],
                rasterized=len(names) ** 2 * len(frames) > _MANY_CELLS, **_SEAMLESS,
            )  # fmt: skip
            axes.set_facecolor("#E4E4E4")
            axes.set_aspect("equal")
            axes.invert_yaxis()
            shown = [names[tick] for tick in ticks]
            # A strip names its variables once at its left.
            first = axes is panels[line][0]
            axes.set_xticks(ticks, shown, fontsize=7)
            axes.set_yticks(ticks, shown if first else [""] * len(ticks), fontsize=7)
            axes.tick_params(length=1.5, color=_RULE, labelcolor=_INK)
            for spine in axes.spines.values():
                spine.set_color(_RULE)
            if line == 0:
                axes.set_title(
                    f"epoch {epochs[frame]}", fontsize=_TITLE, color=_INK, loc="left"
                )
        bar = figure.colorbar(mesh, ax=list(panels[line]), pad=0.02, aspect=14)
        bar.set_label(label, fontsize=_LABEL, color=_INK)
        bar.ax.tick_params(labelsize=_TICK, length=2, color=_RULE)
        bar.outline.set_visible(False)
        meshes.append(mesh)
    return meshes


def depth_profiles(
    methods: Mapping[str, Group], *, split: str = "train", width: float = 8.3
) -> Figure:
    """Information by stage at the first and the last probe, a line a method.

    Args:
        methods: name → group; the same number of stages in all.
        split: "train" or "validation".
        width: inches.

    Returns:
        The figure: I(X;T_k), I(T_k;Y) and I(T_{k−1};T_k); untrained dotted.
    """
    keys = ("input_stage", "stage_target", "previous_stage")
    columns = 3 if width > 5 else 1
    lines = len(keys) // columns
    size = (width, 0.3 + 0.2 * len(methods) + 2.2 * lines)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    colors = figures.stage_colors(len(methods))
    for axes, key in zip(panels.flat, keys, strict=True):
        for number, (name, group) in enumerate(methods.items()):
            values = np.stack([own[f"{split}/{key}"] for own in group])
            mean, (low, high) = values.mean(axis=0), interval(values)
            depth, color = np.arange(mean.shape[1]), colors[number]
            axes.plot(
                depth, mean[-1], color=color, marker="osD^v"[number % 5], ms=4.5,
                lw=1.6, label=name, zorder=3,
            )  # fmt: skip
            if len(mean) > 1:
                axes.plot(depth, mean[0], color=color, lw=1.1, ls=(0, (1, 2)))
            if len(group) > 1:
                axes.fill_between(
                    depth, low[-1], high[-1], color=color, alpha=0.2, lw=0
                )
        figures.finish(axes, "Stage", _SHOWN[key])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=_INK, lw=1.1, ls=(0, (1, 2))))
    figure.legend(
        handles, [*labels, "untrained"], loc="outside upper left", frameon=False,
        ncols=3 if width > 5 else 1, fontsize=_TICK, labelcolor=_INK,
    )  # fmt: skip
    return figure


def interval(values: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean over runs, at each place.

    Args:
        values: (r, …), a run each.
        seed: of the resampling.

    Returns:
        Lower and upper end, (…); NaN for fewer than two runs.
    """
    if len(values) < 2:
        empty = np.full(values.shape[1:], np.nan)
        return empty, empty
    random = np.random.default_rng(seed)
    # How often each run was drawn: a product in place of 2000 gathered copies.
    drawn = random.multinomial(
        len(values), np.full(len(values), 1 / len(values)), size=_RESAMPLES
    )
    means = np.tensordot(drawn / len(values), values.astype(np.float64), axes=1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def _mean(group: Group, key: str) -> np.ndarray:
    return np.stack([own[key] for own in group]).astype(np.float64).mean(axis=0)


def _chains(group: Group, split: str) -> np.ndarray:
    return np.stack([chain(dict(own), split) for own in group]).mean(axis=0)


def _chosen(count: int, most: int) -> list[int]:
    """At most so many of `count` numbers, first and last among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})


def _truncated(name: str, end: float) -> Colormap:
    """A colour map without its end that is too light for white paper."""
    return ListedColormap(matplotlib.colormaps[name](np.linspace(0, end, 256)))


def _color_bar(
    figure: Figure, panels: np.ndarray, norm: Normalize, colors: Colormap
) -> Any:
    bar = figure.colorbar(
        ScalarMappable(norm, colors), ax=list(panels.flat), location="bottom",
        pad=0.02, aspect=40, shrink=0.6,
    )  # fmt: skip
    bar.ax.tick_params(labelsize=_TICK, length=2, color=_RULE)
    bar.outline.set_visible(False)
    return bar


def _table_of(group: Group, split: str) -> Table:
    """What the planes, curves and maps show."""
    columns = {
        "input_stage": "I(X;T)",
        "previous_stage": "I(before;T)",
        "stage_target": "I(T;Y)",
        "stage_target_shuffled": "shuffled Y",
        "cka_final": "CKA to last",
        "linear_cka_final": "linear CKA to last",
    }
    values = [_mean(group, f"{split}/{key}") for key in columns]
    trained = group[0][f"{split}/trained"]
    rows: list[tuple[str | float | None, ...]] = [
        (
            int(epoch),
            stage,
            int(trained[probe, stage]),
            *(float(own[probe, stage]) for own in values),
        )
        for probe, epoch in enumerate(group[0][f"{split}/epoch"])
        for stage in range(trained.shape[1])
    ]
    header = ("epoch", "stage", "trained epochs", *columns.values())
    return Table(f"Every stage at every probe, {split}, bits and CKA", header, rows)


def _last_matrix(group: Group, split: str) -> Table:
    whole = _chains(group, split)[-1]
    names = ("Y", "X", *(f"T{k}" for k in range(len(whole) - 2)))
    rows: list[tuple[str | float | None, ...]] = [
        (name, *(None if math.isnan(x) else float(x) for x in line))
        for name, line in zip(names, whole, strict=True)
    ]
    title = f"I(A;B) at the last probe, {split}, in bits"
    return Table(title, ("", *names), rows)


def _depth_table(methods: Mapping[str, Group], split: str) -> Table:
    keys = {
        "input_stage": "I(X;T)",
        "stage_target": "I(T;Y)",
        "previous_stage": "I(before;T)",
    }
    rows: list[tuple[str | float | None, ...]] = []
    for name, group in methods.items():
        values = [_mean(group, f"{split}/{key}") for key in keys]
        rows += [
            (
                name,
                stage,
                *(float(own[probe, stage]) for own in values for probe in (0, -1)),
            )
            for stage in range(values[0].shape[1])
        ]
    header = [
        f"{label} {when}" for label in keys.values() for when in ("first", "last")
    ]
    title = f"First and last probe by stage, {split}, in bits"
    return Table(title, ("method", "stage", *header), rows)


def _roles_table(methods: Mapping[str, Group], split: str) -> Table:
    rows: list[tuple[str | float | None, ...]] = []
    for name, group in methods.items():
        values = {
            key: _mean(group, f"{split}/nhsic_{key}") for key in ("input", "target")
        }
        rows += [
            (
                name,
                stage,
                *(float(v[p, stage]) for v in values.values() for p in (0, -1)),
            )
            for stage in range(values["input"].shape[1])
        ]
    header = ("nHSIC X first", "nHSIC X last", "nHSIC Y first", "nHSIC Y last")
    title = f"First and last probe by stage, {split}, normalised HSIC"
    return Table(title, ("method", "stage", *header), rows)
