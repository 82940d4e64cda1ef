"""Sections on the test pictures: boxes, precision, confusions, examples."""

import functools
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from dib_jax.analysis import figures, page
from dib_jax.analysis.drawing import outlined
from dib_jax.analysis.page import Section, escape
from dib_jax.analysis.report import wording
from dib_jax.analysis.report.material import (
    MANY,
    Maker,
    Material,
    Predictions,
    save_figure,
)
from dib_jax.training.workdir import write_atomically

_EXAMPLES, _PAIRS = 12, 10
_NOTHING = "nothing found"
_TRUE, _FOUND = figures.GREEN, figures.VERMILION
_BOX_KEY = (
    f'<p class="note"><b style="color: {_TRUE}">Green</b> is a true box, '
    f'<b style="color: {_FOUND}">red</b> a found one.</p>'
)


def _overlaps(material: Material) -> Section | None:
    """Boxes against the mean training box: overlaps and average precisions."""
    if material.worth is None:
        return None
    run, mean = material.worth
    there = ~np.isnan(run.iou)
    lines = [("this run", run), ("the mean training box", mean)]
    recorded = [{}, material.run.results.get("mean_box") or {}]
    table = page.table(
        ["Boxes of", "Mean IoU", "IoU ≥ 0.5", "AP50", "Mean AP"],
        [
            [
                name,
                wording.decimal(known.get("mean_iou", worth.mean_iou)),
                wording.percent(float(np.mean(worth.iou[there] >= 0.5))),
                wording.percent(known.get("ap50", worth.ap50)),
                wording.percent(known.get("map", worth.mean_ap)),
            ]
            for (name, worth), known in zip(lines, recorded, strict=True)
            if there.any()
        ],
        text={0},
    )
    drawn = save_figure(
        material,
        "overlaps",
        functools.partial(
            figures.overlap_histogram,
            {name: worth.iou[there] for name, worth in lines},
        ),
        alt="Histogram of the overlap of the found and the true box.",
        caption="Of the largest object of each test picture; 0 where nothing was "
        "found. The mean training box is where the training pictures have their "
        "largest object on average; it has the run’s own classes and scores.",
    )
    return Section("boxes", "Boxes", table + drawn)


def _precisions(material: Material) -> Section | None:
    """Average precision of each class."""
    boxes = material.predictions.boxes
    if material.worth is None or boxes is None:
        return None
    precisions = material.worth[0].precisions
    rows = [
        [
            name,
            f"{int((boxes.true_labels == label).sum()):,}",
            *(
                None if np.isnan(value) else wording.percent(float(value))
                for value in (precisions[0, label], precisions[:, label].mean())
            ),
        ]
        for label, name in enumerate(material.predictions.class_names)
    ]
    table = page.table(["Class", "Test objects", "AP50", "Mean AP"], rows, text={0})
    note = (
        '<p class="note">COCO’s average precision of each class; the mean is over IoU '
        "thresholds 0.5, 0.55, …, 0.95.</p>"
    )
    return Section("precisions", "Average precision by class", table + note)


def _confusion(material: Material) -> Section | None:
    names, labels = material.predictions.class_names, material.predictions.labels
    predicted = material.predictions.predicted
    if predicted.min() < 0:  # a column of its own; no picture is truly of that class
        names = (*names, _NOTHING)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, predicted), 1)
    drawn = save_figure(
        material,
        "confusion",
        functools.partial(figures.confusion_matrix, counts, names),
        alt=f"Confusion matrix of {len(names)} classes on the test split.",
        caption=(
            f"Test split: {np.trace(counts):,} of {len(labels):,} pictures are on the "
            "diagonal."
        ),
        vector=len(names) <= MANY,
    )
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(flat), len(names)) for flat in order if wrong.flat[flat] > 0]
    if not pairs:
        return Section("confusion", "Confusions", drawn)
    totals = counts.sum(axis=1)
    table = page.table(
        ["True class", "Predicted as", "Pictures", "Of the class"],
        [
            [
                names[true],
                names[other],
                f"{wrong[true, other]:,}",
                wording.percent(wrong[true, other] / totals[true], digits=1),
            ]
            for true, other in pairs
        ],
        text={0, 1},
        caption="Most frequent confusions",
    )
    html = f'<div class="beside">{drawn}<div>{table}</div></div>'
    return Section("confusion", "Confusions", html)


def _pictures(material: Material) -> Section | None:
    predictions, seed = material.predictions, material.run.results.get("seed") or 0
    count = len(predictions.labels)
    predicted, confidence = predictions.predicted, predictions.confidence
    chosen = np.sort(
        np.random.default_rng(seed).choice(count, min(_EXAMPLES, count), replace=False)
    )
    html = (
        f'<p class="note">{len(chosen)} pictures, drawn at random with seed '
        f"{escape(seed)}: the true class, the predicted one and its probability.</p>"
        + _cards(predictions, chosen)
    )
    _save_pictures(material, "examples", chosen)
    if material.worth is not None:
        html = _BOX_KEY + html + _extremes(material)
    mistakes = np.flatnonzero(predicted != predictions.labels)
    if len(mistakes):
        order = np.argsort(-confidence[mistakes], kind="stable")[:_EXAMPLES]
        worst = mistakes[order]
        html += (
            "<h3>The most confident mistakes</h3>"
            f'<p class="note">{len(worst)} of {len(mistakes):,} mistakes among '
            f"{count:,} test pictures.</p>" + _cards(predictions, worst)
        )
        _save_pictures(material, "mistakes", worst)
    return Section("pictures", "Test pictures", html)


def _extremes(material: Material) -> str:
    """The pictures with the best and the worst boxes."""
    iou = material.worth[0].iou if material.worth else np.zeros(0)
    there = np.flatnonzero(~np.isnan(iou))
    order = there[np.argsort(iou[there], kind="stable")]
    html = ""
    for name, title, chosen in (
        ("best", "The best boxes", order[::-1][:_EXAMPLES]),
        ("worst", "The worst boxes", order[:_EXAMPLES]),
    ):
        html += f"<h3>{title}</h3>" + _cards(material.predictions, chosen, iou)
        _save_pictures(material, name, chosen)
    return html


def _save_pictures(material: Material, name: str, chosen: np.ndarray) -> None:
    predictions = material.predictions
    captions = [
        f"true {true}\npredicted {predicted}\n{confidence}"
        for true, predicted, confidence, _ in _said_of(predictions, chosen)
    ]
    images = predictions.images[chosen]
    if predictions.boxes is not None:
        images = np.stack([_with_boxes(predictions, index) for index in chosen])
    drawn = figures.picture_grid(images, captions, width=figures.WIDE)
    path = material.run.workdir / "figures" / f"{name}.png"
    write_atomically(path, figures.png(drawn))


def _cards(
    predictions: Predictions, chosen: np.ndarray, iou: np.ndarray | None = None
) -> str:
    boxed = predictions.boxes is not None
    small = max(predictions.images.shape[1:3]) < 96 and not boxed
    cards = []
    for index, said in zip(chosen, _said_of(predictions, chosen), strict=True):
        true, predicted, confidence, right = said
        image = _with_boxes(predictions, index) if boxed else predictions.images[index]
        picture = page.data_uri("image/png", _thumbnail(image))
        overlap = "" if iou is None else f"<span>IoU {iou[index]:.3f}</span>"
        cards.append(
            f'<div class="card"><img{" class=small" * small} src="{picture}" '
            f'alt="Test picture {index}"><span>true <b>{escape(true)}</b></span>'
            f"<span{'' if right else ' class=wrong'}>{'' if right else '✗ '}"
            f"predicted <b>{escape(predicted)}</b></span>"
            f"<span>{escape(confidence)}</span>{overlap}</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _said_of(
    predictions: Predictions, chosen: Iterable[int]
) -> list[tuple[str, str, str, bool]]:
    """True class, predicted class, confidence, whether right, of each sample."""
    said = []
    for index in chosen:
        true = int(predictions.labels[index])
        predicted = int(predictions.predicted[index])
        confidence = float(predictions.confidence[index])
        names = (*predictions.class_names, _NOTHING)  # for −1, too
        # 99.97 % is not certainty, and rounds to 100 %.
        shown = "> 99.9 %" if 0.999 < confidence < 1 else f"{100 * confidence:.1f} %"
        said.append((names[true], names[predicted], shown, true == predicted))
    return said


def _with_boxes(predictions: Predictions, index: int) -> np.ndarray:
    """A test picture with its true and its found boxes, uint8 (h, w, 3)."""
    boxes = predictions.boxes
    marks: list[tuple[Sequence[float], str]] = []
    if boxes is not None and boxes.objects.boxes is not None:
        true = boxes.true_boxes[index][boxes.true_labels[index] >= 0]
        found = np.asarray(boxes.objects.boxes[index])[boxes.objects.found[index]]
        marks = [(box, _TRUE) for box in true] + [(box, _FOUND) for box in found]
    picture = Image.fromarray(figures.viewable(predictions.images[index]))
    return np.asarray(outlined(picture, marks, side=192))


def _thumbnail(image: np.ndarray) -> bytes:
    """A PNG of the picture, at most 192 pixels a side."""
    picture = Image.fromarray(figures.viewable(image))
    picture.thumbnail((192, 192))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


SECTIONS: tuple[Maker, ...] = (_overlaps, _precisions, _confusion, _pictures)
