"""Mixed batches against the formulas of mixup and CutMix."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from botvision.errors import BotvisionError
from botvision.tasks.classification.mixing import Mixing


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 10, 8, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])


def mixed(batch, first=(0, 0), **alphas):
    images, labels = batch
    mixing = Mixing(4, **{"mixup": 0.0, "cutmix": 0.0, "seed": 0, **alphas})
    return mixing(images.clone(), labels, first)


def test_mixup_is_the_weighted_mean_of_images_and_labels(batch):
    images, labels = batch
    seen, targets = mixed(batch, mixup=1.0)
    truth = F.one_hot(labels, 4).float()
    share = float(((seen - images.flip(0)) / (images - images.flip(0))).median())
    assert 0.02 < share < 0.98
    assert torch.allclose(seen, share * images + (1 - share) * images.flip(0), atol=1e-5)
    assert torch.allclose(targets, share * truth + (1 - share) * truth.flip(0), atol=1e-5)


def test_cutmix_replaces_a_box_and_counts_its_area(batch):
    images, labels = batch
    for index in range(20):
        seen, targets = mixed(batch, (0, index), cutmix=1.0)
        other = (seen == images.flip(0)).all(dim=1)
        assert torch.equal(other[0], other[5])
        rows, columns = torch.nonzero(other[0], as_tuple=True)
        assert torch.equal(seen.flip(0)[~other.flip(0)[:, None].expand_as(seen)],
                           images.flip(0)[~other.flip(0)[:, None].expand_as(seen)])  # fmt: skip
        if len(rows):
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert box == len(rows)
        truth, share = F.one_hot(labels, 4).float(), 1 - len(rows) / 80
        assert torch.allclose(targets, share * truth + (1 - share) * truth.flip(0), atol=1e-6)


def test_the_loss_of_a_mixed_batch_is_the_mixed_loss(batch):
    # Zhang et al. 2018: share * loss(label) + (1 - share) * loss(other label).
    _, labels = batch
    _, targets = mixed(batch, mixup=1.0)
    share = float(targets[0, 0])  # of label 0, mixed with label 1
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    logs = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True))
    rows, smoothing = np.arange(6), 0.1
    plain = -(share * logs[rows, labels] + (1 - share) * logs[rows, labels.flip(0)])
    smooth = (1 - smoothing) * plain - smoothing * logs.mean(axis=1)
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(smooth.mean(), rel=1e-5)


def test_draws_follow_from_the_seed_and_the_first_image_alone(batch):
    one = mixed(batch, (3, 5), mixup=0.8, cutmix=1.0)
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    again = mixed(batch, (3, 5), mixup=0.8, cutmix=1.0)
    assert np.random.rand() == expected  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for other in ({"first": (3, 6)}, {"first": (4, 5)}, {"first": (3, 5), "seed": 1}):
        assert not torch.equal(mixed(batch, mixup=0.8, cutmix=1.0, **other)[1], one[1])


def test_an_odd_batch_cannot_be_mixed(batch):
    with pytest.raises(BotvisionError, match=r"even number.*got 5"):
        Mixing(4, mixup=1.0, cutmix=0.0, seed=0)(batch[0][:5], batch[1][:5], (0, 0))
