"""Losses by hand and against PyTorch's and torchvision's formulas."""

import math

import numpy as np
import pytest
from keras import ops

from kmlp.detection import detection_losses

DRAWS = np.random.default_rng(0)
LOGITS = np.concatenate([DRAWS.normal(0, 4, 60), [-90, 90, 0, 40]]).astype("float32")
TARGETS = DRAWS.integers(0, 2, LOGITS.shape).astype("float32")


def host(values):
    return ops.convert_to_numpy(values)


def tensors(*values):
    return [ops.convert_to_tensor(np.asarray(v, "float32")) for v in values]


@pytest.mark.parametrize(
    ("logit", "target", "value"),
    [
        (0, 1, 0.25 * 0.25 * math.log(2)),
        (0, 0, 0.75 * 0.25 * math.log(2)),
        # A probability of 0.8.
        (math.log(4), 1, 0.25 * 0.04 * -math.log(0.8)),
        (math.log(4), 0, 0.75 * 0.64 * -math.log(0.2)),
        (100, 0, 75),
        (100, 1, 0),
    ],
)
def test_focal_by_hand(logit, target, value):
    found = detection_losses.focal(*tensors([logit], [target]))
    assert host(found)[0] == pytest.approx(value, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(("gamma", "alpha"), [(2, 0.25), (1.5, 0.4), (0, 0.5)])
def test_focal_by_torchvisions_formula(gamma, alpha):
    torch = pytest.importorskip("torch")
    x, t = torch.tensor(LOGITS).double(), torch.tensor(TARGETS).double()
    p = torch.sigmoid(x)
    ce = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    wanted = (alpha * t + (1 - alpha) * (1 - t)) * ce * (1 - p_t) ** gamma
    found = host(detection_losses.focal(*tensors(LOGITS, TARGETS), gamma, alpha))
    assert found == pytest.approx(wanted.numpy(), rel=2e-5, abs=1e-9)


def test_cross_entropies():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, t = torch.tensor(LOGITS).double(), torch.tensor(TARGETS).double()
    wanted = functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    found = host(detection_losses.binary(*tensors(LOGITS, TARGETS)))
    assert found == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-9)
    rows, labels = LOGITS[:60].reshape(3, 4, 5), DRAWS.integers(0, 5, (3, 4))
    wanted = functional.cross_entropy(
        torch.tensor(rows).double().reshape(12, 5),
        torch.tensor(labels).reshape(12),
        reduction="none",
    )
    found = host(
        detection_losses.softmax(tensors(rows)[0], ops.convert_to_tensor(labels))
    )
    assert found.reshape(12) == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-6)


def test_distances_by_hand():
    a, b = tensors([0, 1, -2, 0.05], [0, 2, 1, 0])
    assert host(detection_losses.smooth_l1(a, b, 0.0)) == pytest.approx([0, 1, 3, 0.05])
    wanted = [0, 1 - 1 / 18, 3 - 1 / 18, 0.5 * 0.05**2 * 9]
    assert host(detection_losses.smooth_l1(a, b)) == pytest.approx(wanted)
    assert host(detection_losses.smooth_l1(a, b, 2.0)) == pytest.approx(
        [0, 0.25, 2, 0.000625]
    )


def test_giou_by_hand():
    a = tensors([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])[0]
    b = tensors([[1, 1, 3, 3], [0, 0, 2, 2], [3, 0, 4, 1], [0, 0, 0, 0]])[0]
    # Hull 9, union 7; the same box; hull 4, union 2, nothing shared.
    wanted = [1 - 1 / 7 + 2 / 9, 0, 1 + 2 / 4]
    found = host(detection_losses.giou(a, b))
    assert found[:3] == pytest.approx(wanted, abs=1e-6)
    assert np.isfinite(found[3])
