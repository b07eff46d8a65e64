"""An evaluation gives the record of the run again, and agrees with scikit-learn on what it adds to it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inference_networks import class_folders, network, trained
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from sqzlab.errors import ConfigError, SqzlabError, UnavailableError
from sqzlab.inference.checkpoint import Network, open_network
from sqzlab.inference.evaluate import confusion_csv, evaluate, predictions_csv
from sqzlab.inference.validation import open_validation
from sqzlab.run import CORRECT, METRICS


def ignored(text: str) -> None:
    raise AssertionError(text)


def all_logits(net: Network, images: torch.Tensor) -> torch.Tensor:
    return net.logits(images, torch.arange(len(images)))


@pytest.mark.parametrize(
    ("squeeze", "values"),
    [
        ("gap", {}),
        ("random", {}),
        ("baseline", {"train__limit_batches": 2}),
        ("gap", {"train__limit_batches": 2, "train__precision": "bf16"}),
        ("gap", {"train__limit_batches": 2, "train__precision": "fp64", "train__channels_last": False}),
    ],
)
def test_on_its_own_data_a_run_gives_its_record_to_the_last_digit(squeeze: str, values: dict[str, Any]) -> None:
    run = trained(squeeze, **values)
    net = open_network(str(run))
    found = evaluate(net, open_validation(net), bad=ignored)
    metrics = json.loads((run / METRICS).read_text())
    recorded = [metrics[key] for key in ("top1", "top5", "val_loss", "val_images")]
    assert [float(found.top1.mean()), float(found.top5.mean()), found.loss, len(found.labels)] == recorded
    with np.load(run / CORRECT) as correct:
        assert np.array_equal(np.packbits(found.top1), correct["top1"])
        assert np.array_equal(np.packbits(found.top5), correct["top5"])


@pytest.mark.parametrize(("squeeze", "values"), [("random", {}), ("baseline", {"train__limit_batches": 2})])
def test_another_batch_size_changes_no_more_than_last_digits(squeeze: str, values: dict[str, Any]) -> None:
    net = open_network(str(trained(squeeze, **values)))
    data = open_validation(net)
    one, other = evaluate(net, data, batch_size=450, bad=ignored), evaluate(net, data, batch_size=7, bad=ignored)
    assert np.array_equal(one.index, other.index)
    assert np.array_equal(one.predicted, other.predicted)
    assert np.allclose(one.scores, other.scores, atol=1e-6, rtol=0)


def test_images_that_the_run_was_not_evaluated_on_are_not_its_own(tmp_path: Path) -> None:
    run = shutil.copytree(trained(), tmp_path / trained().name)
    assert open_validation(open_network(str(run))).own
    with np.load(run / CORRECT) as correct:
        arrays = {**correct, "order_hash": np.array("0" * 64)}
    np.savez_compressed(run / CORRECT, **arrays)
    assert not open_validation(open_network(str(run))).own


def test_scikit_learn_finds_the_same(tmp_path: Path) -> None:
    net = network(classes=7)
    data = open_validation(net, "imagefolder", str(class_folders(tmp_path, list("gabcdef"), images=5)))
    found = evaluate(net, data, bad=ignored, batch_size=8)
    logits = torch.cat([all_logits(net, batch.images) for batch in data.batches(35, ignored)]).double().numpy()
    labels, scores = data.labels.numpy(), torch.from_numpy(logits).softmax(1).numpy()
    every = list(range(7))
    assert 0 < found.top1.mean() < found.top5.mean() < 1
    assert np.array_equal(found.confusion(7), confusion_matrix(labels, logits.argmax(1), labels=every))
    assert found.top1.mean() == top_k_accuracy_score(labels, logits, k=1, labels=every)
    assert found.top5.mean() == top_k_accuracy_score(labels, logits, k=5, labels=every)
    assert found.loss == pytest.approx(log_loss(labels, scores, labels=every), rel=1e-5)
    assert np.allclose(found.scores, scores.max(1), atol=1e-6)


def test_a_tie_with_the_label_is_a_miss() -> None:
    net = open_network(str(trained()))
    net.model.get_submodule("fc").requires_grad_(False).weight.zero_()  # type: ignore[operator]
    net.model.get_submodule("fc").bias.zero_()  # type: ignore[operator]
    found = evaluate(net, open_validation(net), bad=ignored)
    assert (found.top1.any(), found.top5.any(), np.trace(found.confusion(10))) == (False, False, 0)
    assert found.confusion(10).sum() == 450


def test_images_that_cannot_be_read_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant", "bee"])
    (root / "val/ant/1.png").write_bytes(b"")
    net, bad = network(classes=2), []
    data = open_validation(net, "imagefolder", str(root))
    found = evaluate(net, data, bad=bad.append)
    assert bad == [f"{str(root / 'val/ant/1.png')!r}: is empty"]
    assert [data.names[index] for index in found.index] == [
        *("val/ant/0.png", "val/ant/2.png", "val/bee/0.png", "val/bee/1.png", "val/bee/2.png")
    ]
    assert found.labels.tolist() == [0, 0, 1, 1, 1]


def test_without_any_image_there_is_no_result(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant"], images=1)
    (root / "val/ant/0.png").write_bytes(b"")
    net = network(classes=1)
    with pytest.raises(ConfigError, match=r"^data set 'imagefolder': none of the images can be used$"):
        evaluate(net, open_validation(net, "imagefolder", str(root)), bad=lambda text: None)


def test_a_network_that_is_not_finite_has_no_result() -> None:
    net = open_network(str(trained()))
    net.model.get_submodule("fc").requires_grad_(False).bias.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(SqzlabError, match="its output for '0' is not finite"):
        evaluate(net, open_validation(net), bad=ignored)


# ---- data sets ---------------------------------------------------------------------------------


def test_a_list_is_evaluated_without_a_list_of_training_images(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "my images", ["ant", "bee"])
    text = tmp_path / "val.txt"
    text.write_text("val/bee/0.png 1\nval/ant/0.png 0\nval/ant/gone.png 0\n")
    net, bad = network(classes=2), []
    found = evaluate(net, open_validation(net, "imagelist", str(root), str(text)), bad=bad.append)
    assert found.labels.tolist() == [1, 0]
    assert bad == [f"{str(root / 'val/ant/gone.png')!r}: no such file or directory"]


@pytest.mark.parametrize(
    ("classes", "given", "line"),
    [
        (10, {}, "tiny: a file of weights has no data set of its own; name one with --data"),
        (3, {"data": "digits"}, "tiny has 3 classes, data set 'digits' has 10; valid: a data set of as many classes"),
        (3, {"data": "imagefolder", "root": "."}, "tiny has 3 classes, data set 'imagefolder' has 2; valid: a data "),
        (10, {"data": "digits", "root": "."}, "--root: does not apply to data set 'digits', which is embedded"),
        (10, {"data": "digits", "val_list": "x"}, "--val-list: does not apply to data set 'digits'; it applies to 'im"),
        (10, {"data": "imagelist", "root": "."}, "data set 'imagelist' needs --val-list: a text file with `name labe"),
        (2, {"data": "imagelist", "root": ".", "val_list": "val.txt"}, "val.txt:2: the label is not one of the 2 clas"),
    ],
)
def test_what_does_not_fit_the_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, given: dict[str, str], line: str
) -> None:
    class_folders(tmp_path, ["ant", "bee"])
    (tmp_path / "val.txt").write_text("val/ant/0.png 0\nval/bee/0.png 2\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_validation(network(classes=classes), **given)
    assert str(caught.value).startswith(line)


def test_images_of_a_fixed_size_are_not_for_a_network_of_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"valid: --image-size 32$"):
        open_validation(network(size=24), "cifar10", str(tmp_path))


def test_a_folder_without_a_validation_part_is_lacking(tmp_path: Path) -> None:
    shutil.rmtree(class_folders(tmp_path, ["ant"]) / "val")
    with pytest.raises(UnavailableError, match=r"/val' cannot be read \(no such file or directory\)$"):
        open_validation(network(classes=1), "imagefolder", str(tmp_path))


# ---- as text -----------------------------------------------------------------------------------


def test_the_tables_hold_every_image_and_every_class(tmp_path: Path) -> None:
    net = network(classes=2)
    data = open_validation(net, "imagefolder", str(class_folders(tmp_path, ['an "ant", red', "bee"])))
    found = evaluate(net, data, bad=ignored)
    assert data.class_names is not None
    rows = list(csv.DictReader(io.StringIO(predictions_csv(found, data, data.class_names).decode())))
    assert [row["image"] for row in rows] == list(data.names)
    assert [float(row["score"]) for row in rows] == found.scores.tolist()
    assert [row["correct"] for row in rows] == [str(int(hit)) for hit in found.top1]
    assert {row["label_name"] for row in rows} == set(data.class_names)
    matrix = list(csv.reader(io.StringIO(confusion_csv(found, data.class_names).decode())))
    assert matrix[0] == ["label", *data.class_names]
    assert [[int(value) for value in row[1:]] for row in matrix[1:]] == found.confusion(2).tolist()


def test_a_name_that_is_not_utf8_is_written_as_it_is(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant"], images=1)
    (root / "val/ant/0.png").rename(
        Path(str(root / "val/ant").encode().decode(), b"\xff.png".decode(errors="surrogateescape"))
    )
    net = network(classes=1)
    data = open_validation(net, "imagefolder", str(root))
    assert b"val/ant/\xff.png,0" in predictions_csv(evaluate(net, data, bad=ignored), data, ["ant"])
