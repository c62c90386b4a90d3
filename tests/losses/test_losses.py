"""Losses against slow loops written from their equations, by hand, and on degenerate batches."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import CircleLoss
from torch.nn import functional as F

from ynet_lite.config import Config
from ynet_lite.hashing import hadamard_targets
from ynet_lite.losses.centres import centre_loss
from ynet_lite.losses.circle import circle_loss
from ynet_lite.losses.common import same_class
from ynet_lite.losses.overlap import graded
from ynet_lite.losses.pairwise import pairwise_loss
from ynet_lite.losses.quantisation import quantisation_loss
from ynet_lite.losses.segmentation import segmentation_loss
from ynet_lite.losses.unified import UnifiedLoss
from ynet_lite.model import Output
from ynet_lite.overlap import centred_iou


def randn(*shape, seed=0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def finite_with_gradient(loss: torch.Tensor, *leaves: torch.Tensor) -> None:
    assert loss.shape == () and loss.isfinite()
    for leaf in leaves:
        leaf.grad = None
    loss.backward()
    for leaf in leaves:
        assert leaf.grad is not None and leaf.grad.isfinite().all()


# ---------------------------------------------------------------- which pairs are alike


def test_same_class_equal():
    same = same_class(torch.tensor([0, 0, 1]))
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_same_class_product_calls_two_benign_images_different():
    same = same_class(torch.tensor([0, 0, 1, 1]), "product")
    assert same.tolist() == [[False] * 4, [False] * 4, [False, False, True, True], [False, False, True, True]]


def test_same_class_unknown_rule():
    with pytest.raises(ValueError, match="same_class.*'equal' and 'product'"):
        same_class(torch.tensor([0, 1]), "sum")


# ---------------------------------------------------------------- circle loss


def slow_circle(features, same, margin, gamma):
    o_p, o_n, delta_p, delta_n = 1 + margin, -margin, 1 - margin, margin
    positive, negative = [], []
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            a, b = features[i].tolist(), features[j].tolist()
            s = sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))
            if same[i, j]:
                positive.append(-gamma * max(0, o_p - s) * (s - delta_p))
            else:
                negative.append(gamma * max(0, s - o_n) * (s - delta_n))
    # log(1 + sum_n exp(.) sum_p exp(.)), equation 6
    return math.log(1 + sum(map(math.exp, negative)) * sum(map(math.exp, positive)))


@pytest.mark.parametrize("margin, gamma", [(0.25, 32.0), (0.25, 1.0), (0.4, 8.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_circle_against_a_slow_loop(margin, gamma, seed):
    features = randn(7, 5, seed=seed)
    same = same_class(torch.tensor([0, 1, 0, 2, 2, 1, 0]))
    # the function works in single precision
    assert circle_loss(features, same, margin, gamma).item() == pytest.approx(
        slow_circle(features, same, margin, gamma), rel=1e-4
    )


def test_circle_by_hand():
    # three unit vectors: s(0, 1) = 1 (same class), s(0, 2) = s(1, 2) = 0 (other class); margin 1/4, scale 1
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = same_class(torch.tensor([0, 0, 1]))
    positive = math.exp(-(1 / 4) * (1 / 4))  # -(5/4 - 1) (1 - 3/4)
    negative = 2 * math.exp((1 / 4) * (-1 / 4))  # twice (0 + 1/4) (0 - 1/4)
    assert circle_loss(features, same, 0.25, 1.0).item() == pytest.approx(math.log(1 + positive * negative), abs=1e-6)


@pytest.mark.parametrize("margin, gamma", [(0.25, 32.0), (0.4, 80.0)])
def test_circle_agrees_with_pytorch_metric_learning(margin, gamma):
    """Theirs has one anchor per row: the anchor (1, 0) against unit vectors with the cosines of all our pairs."""
    features = randn(8, 6, dtype=torch.float32)
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
    i, j = torch.triu_indices(8, 8, 1)
    s = F.cosine_similarity(features[i], features[j])
    anchor, others = torch.tensor([[1.0, 0.0]]), torch.stack([s, (1 - s * s).sqrt()], 1)
    theirs = CircleLoss(m=margin, gamma=gamma)(
        anchor, torch.tensor([1]), ref_emb=others, ref_labels=(labels[i] == labels[j]).long()
    )
    assert circle_loss(features, same_class(labels), margin, gamma).item() == pytest.approx(theirs.item(), rel=1e-4)


def test_circle_gradient_agrees_with_pytorch_metric_learning():
    """Weights a_p, a_n carry no gradient: seen where a batch has one anchor only (two images of a class, one other)."""
    labels = torch.tensor([0, 0, 1])
    ours, theirs = (randn(3, 4, dtype=torch.float32).requires_grad_() for _ in range(2))
    circle_loss(ours, same_class(labels), 0.25, 8.0).backward()
    i, j = torch.triu_indices(3, 3, 1)
    unit = F.normalize(theirs, dim=1)
    s = (unit[i] * unit[j]).sum(1)
    others = torch.stack([s, (1 - s * s).sqrt()], 1)
    CircleLoss(m=0.25, gamma=8.0)(
        torch.tensor([[1.0, 0.0]]), torch.tensor([1]), ref_emb=others, ref_labels=(labels[i] == labels[j]).long()
    ).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_circle_pulls_alike_together_and_pushes_others_apart():
    features = randn(4, 3, dtype=torch.float32).requires_grad_()
    same = same_class(torch.tensor([0, 0, 1, 1]))
    before = circle_loss(features, same)
    before.backward()
    assert circle_loss(features - 0.01 * features.grad / features.grad.norm(), same) < before


@pytest.mark.parametrize("labels", [[1], [0, 0, 0], [0, 1], [0, 1, 2, 3]])
def test_circle_without_both_kinds_of_pairs_is_zero(labels):
    features = randn(len(labels), 4).requires_grad_()
    loss = circle_loss(features, same_class(torch.tensor(labels)))
    assert loss == 0
    finite_with_gradient(loss, features)
    assert (features.grad == 0).all()


def test_circle_product_rule_makes_benign_pairs_negative():
    features = torch.ones(2, 3)  # two equal benign images: as far apart as can be wished, but never alike
    labels = torch.tensor([0, 0, 1, 1])
    features = torch.cat([features, -features]).requires_grad_()
    good, odd = (circle_loss(features, same_class(labels, rule)) for rule in ("equal", "product"))
    assert good < 1 and odd > 20  # gamma (1 + m) (1 - m) = 32 * 15 / 16 = 30
    finite_with_gradient(odd, features)


def test_circle_of_zero_vectors_and_of_huge_ones_is_finite():
    same = same_class(torch.tensor([0, 0, 1, 1]))
    for features in (torch.zeros(4, 3), 1e10 * randn(4, 3, dtype=torch.float32)):
        finite_with_gradient(circle_loss(features.requires_grad_(), same), features)


# ---------------------------------------------------------------- pairwise likelihood


@pytest.mark.parametrize("sharpness", [0.5, 0.1])
def test_pairwise_against_a_slow_loop(sharpness):
    u, labels = torch.tanh(randn(6, 8)), [0, 1, 0, 2, 2, 0]
    total, count = 0.0, 0
    for i in range(6):
        for j in range(i + 1, 6):
            t = sharpness * sum(a * b for a, b in zip(u[i].tolist(), u[j].tolist(), strict=True))
            p = 1 / (1 + math.exp(-t))
            total -= math.log(p if labels[i] == labels[j] else 1 - p)
            count += 1
    assert count == 15
    loss = pairwise_loss(u, same_class(torch.tensor(labels)), sharpness)
    assert loss.item() == pytest.approx(total / 15, rel=1e-9)


def test_pairwise_by_hand():
    u = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    # t = 1 for the equal pair, -1 for the two unequal ones: each log(1 + 1/e)
    assert pairwise_loss(u, same_class(torch.tensor([0, 0, 1]))).item() == pytest.approx(math.log(1 + math.exp(-1)))
    # orthogonal: log 2 whatever the labels
    assert pairwise_loss(torch.eye(2), same_class(torch.tensor([0, 1]))).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [0, 1, 2]])
def test_pairwise_degenerate_batches(labels):
    u = torch.tanh(randn(len(labels), 8)).requires_grad_()
    loss = pairwise_loss(u, same_class(torch.tensor(labels)))
    finite_with_gradient(loss, u)
    assert (loss == 0) == (len(labels) == 1)


def test_pairwise_does_not_overflow():
    u = torch.ones(4, 256, requires_grad=True)
    loss = pairwise_loss(u, same_class(torch.tensor([0, 1, 2, 3])), 10.0)
    assert loss.item() == pytest.approx(2560)
    finite_with_gradient(loss, u)


# ---------------------------------------------------------------- pairs graded by overlap


@pytest.mark.parametrize("scale", [0.5, 0.03125])
def test_graded_pairs_against_a_slow_loop(scale):
    output, masks, known, labels = batch(n=6, size=9)
    known[4] = False
    cfg = Config(bits=16, loss="overlap", pair_sharpness=scale)
    _, terms = UnifiedLoss(cfg, 2)(output, masks, known, labels)
    u, total, count = torch.tanh(output.code).tolist(), 0.0, 0
    for i in range(6):
        for j in range(i + 1, 6):
            t = scale * sum(a * b for a, b in zip(u[i], u[j], strict=True))
            grade = 0.0
            if labels[i] == labels[j]:
                one, other = masks[i : i + 1].numpy(), masks[j : j + 1].numpy()
                grade = (1 + centred_iou(one, other).item()) / 2 if known[i] and known[j] else 1.0
            total += math.log(1 + math.exp(t)) - grade * t
            count += 1
    assert terms["classification"].item() == pytest.approx(total / count, rel=1e-5)


def test_graded_pairs_by_hand():
    same = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    overlap = torch.tensor([[1.0, 0.5, 0.9], [0.5, 1.0, torch.nan], [0.9, torch.nan, 1.0]])
    assert graded(same, overlap).tolist() == [[1.0, 0.75, 0.0], [0.75, 1.0, 1.0], [0.0, 1.0, 1.0]]


def test_without_outlines_graded_pairs_are_plain_pairs():
    output, masks, known, labels = batch()
    plain, other = (
        UnifiedLoss(Config(bits=16, loss=name), 2)(output, masks, ~known, labels)[1] for name in ("pairwise", "overlap")
    )
    assert torch.equal(plain["classification"], other["classification"])


def test_a_better_match_of_lesions_asks_for_nearer_codes():
    """The least loss of one pair of a class lies at <u_i, u_j> = logit(grade) / sharpness."""
    grade, sharpness = torch.tensor([[1.0, 0.9], [0.9, 1.0]]), 0.125
    wanted = math.log(0.9 / 0.1) / sharpness

    def at(inner):
        return pairwise_loss(torch.tensor([[inner, 0.0], [1.0, 0.0]]), grade, sharpness)

    assert at(wanted) < at(wanted + 0.5) and at(wanted) < at(wanted - 0.5)


# ---------------------------------------------------------------- class centres


def test_centres_against_a_slow_loop():
    u, labels, scale = torch.tanh(randn(5, 16)), [0, 2, 1, 1, 0], 8.0
    centres = torch.from_numpy(hadamard_targets(3, 16))
    total = 0.0
    for row, label in zip(u.tolist(), labels, strict=True):
        cosines = []
        for centre in centres.tolist():
            dot = sum(a * b for a, b in zip(row, centre, strict=True))
            cosines.append(dot / math.sqrt(sum(a * a for a in row) * 16))
        total += -scale * cosines[label] + math.log(sum(math.exp(scale * c) for c in cosines))
    loss = centre_loss(u, torch.tensor(labels), centres, scale)
    assert loss.item() == pytest.approx(total / 5, rel=1e-6)


def test_centres_by_hand():
    centres = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    # on its own centre, orthogonal to the other: log(1 + e^-8)
    loss = centre_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), centres, 8.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-8)), rel=1e-3)


def test_centres_degenerate_batches():
    centres = torch.from_numpy(hadamard_targets(3, 16))
    for u, labels in [(randn(1, 16), [2]), (torch.zeros(2, 16), [0, 1]), (randn(4, 16), [1, 1, 1, 1])]:
        u = u.float().requires_grad_()
        finite_with_gradient(centre_loss(u, torch.tensor(labels), centres), u)


# ---------------------------------------------------------------- quantisation


def test_quantisation_against_a_slow_loop_and_by_hand():
    u = torch.tanh(randn(4, 8))
    slow = sum((abs(x) - 1) ** 2 for row in u.tolist() for x in row) / 32
    assert quantisation_loss(u).item() == pytest.approx(slow, rel=1e-12)
    assert quantisation_loss(torch.tensor([[1.0, -1.0]])) == 0
    assert quantisation_loss(torch.zeros(3, 8)) == 1
    assert quantisation_loss(torch.tensor([[0.5, -1.0]])).item() == pytest.approx(1 / 8)  # (1/4 + 0) / 2
    zero = torch.zeros(1, 8, requires_grad=True)
    finite_with_gradient(quantisation_loss(zero), zero)


# ---------------------------------------------------------------- segmentation


def slow_segmentation(logits, masks, known):
    """Cross-entropy per pixel; 1 - soft Dice over the batch per class but 0 (one added above and below)."""
    n_classes = logits.shape[1]
    ce, pixels = 0.0, 0
    overlap, total = [0.0] * n_classes, [0.0] * n_classes
    for n in range(len(logits)):
        if not known[n]:
            continue
        for i in range(logits.shape[2]):
            for j in range(logits.shape[3]):
                z = logits[n, :, i, j].tolist()
                denominator = sum(math.exp(v) for v in z)
                p = [math.exp(v) / denominator for v in z]
                truth = masks[n, i, j].item()
                ce -= math.log(p[truth])
                pixels += 1
                for c in range(n_classes):
                    overlap[c] += p[c] * (truth == c)
                    total[c] += p[c] + (truth == c)
    dice = [1 - (2 * o + 1) / (t + 1) for o, t in zip(overlap[1:], total[1:], strict=True)]
    return ce / pixels, sum(dice) / len(dice)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("known", [[1, 1, 1], [1, 0, 1], [0, 1, 0]])
def test_segmentation_against_a_slow_loop(n_classes, known):
    logits = randn(3, n_classes, 4, 5, seed=n_classes)
    masks = torch.randint(0, n_classes, (3, 4, 5), generator=torch.Generator().manual_seed(1))
    terms = segmentation_loss(logits, masks, torch.tensor(known).bool())
    ce, dice = slow_segmentation(logits, masks, known)
    assert list(terms) == ["seg_ce", "seg_dice"]
    assert terms["seg_ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["seg_dice"].item() == pytest.approx(dice, rel=1e-5)
    assert list(segmentation_loss(logits, masks, torch.tensor(known).bool(), dice=False)) == ["seg_ce"]


def test_segmentation_by_hand():
    logits = torch.zeros(1, 2, 1, 2)  # probability 1/2 everywhere
    terms = segmentation_loss(logits, torch.tensor([[[0, 1]]]), torch.ones(1, dtype=bool))
    assert terms["seg_ce"].item() == pytest.approx(math.log(2))
    assert terms["seg_dice"].item() == pytest.approx(1 - (2 * 1 / 2 + 1) / (1 + 1 + 1))  # = 1/3


def test_segmentation_of_a_perfect_mask_is_near_zero():
    masks = torch.tensor([[[0, 1], [1, 0]]])
    logits = 50.0 * F.one_hot(masks, 2).movedim(-1, 1).float()
    terms = segmentation_loss(logits, masks, torch.ones(1, dtype=bool))
    assert terms["seg_ce"] < 1e-6 and abs(terms["seg_dice"]) < 1e-6


@pytest.mark.parametrize("dice", [True, False])
def test_segmentation_with_no_outline_in_the_batch(dice):
    logits = randn(2, 2, 4, 4).requires_grad_()
    terms = segmentation_loss(logits, torch.ones(2, 4, 4).long(), torch.zeros(2, dtype=bool), dice)
    assert set(terms) == ({"seg_ce", "seg_dice"} if dice else {"seg_ce"})
    assert all(value == 0 for value in terms.values())
    finite_with_gradient(sum(terms.values()), logits)
    assert (logits.grad == 0).all()


def test_segmentation_of_empty_masks_is_finite_and_teaches_background():
    logits = randn(2, 2, 4, 4).requires_grad_()
    terms = segmentation_loss(logits, torch.zeros(2, 4, 4).long(), torch.ones(2, dtype=bool))
    finite_with_gradient(sum(terms.values()), logits)
    assert (logits.grad[:, 1] > 0).all()  # less lesion everywhere
    sure = torch.stack([torch.full((2, 4, 4), 50.0), torch.full((2, 4, 4), -50.0)], 1)
    assert segmentation_loss(sure, torch.zeros(2, 4, 4).long(), torch.ones(2, dtype=bool))["seg_dice"] < 1e-6


def test_images_without_outline_get_no_gradient():
    logits = randn(3, 2, 4, 4).requires_grad_()
    masks = torch.ones(3, 4, 4).long()
    sum(segmentation_loss(logits, masks, torch.tensor([True, False, True])).values()).backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[0] != 0).any()


# ---------------------------------------------------------------- the unified loss


def batch(n=6, bits=16, size=8, seed=0):
    code = randn(n, bits, seed=seed, dtype=torch.float32).requires_grad_()
    descriptor = F.normalize(randn(n, 12, seed=seed + 1, dtype=torch.float32), dim=1).requires_grad_()
    logits = randn(n, 2, size, size, seed=seed + 2, dtype=torch.float32).requires_grad_()
    masks = (torch.rand(n, size, size, generator=torch.Generator().manual_seed(seed)) < 0.3).long()
    return Output(code, descriptor, logits), masks, torch.ones(n, dtype=bool), torch.arange(n) % 2


CLASSIFICATION = {
    "pairwise": lambda u, y: pairwise_loss(u, same_class(y), 0.5),
    "circle": lambda u, y: circle_loss(u, same_class(y), 0.25, 32.0),
    "centres": lambda u, y: centre_loss(u, y, torch.from_numpy(hadamard_targets(2, 16)), 8.0),
}
ALL_LOSSES = [*CLASSIFICATION, "overlap", "ce", "none"]


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("a", [0.5, 0.2, 1.0, 0.0])
@pytest.mark.parametrize("dice", [True, False])
def test_unified_terms_sum_as_stated(name, a, dice):
    cfg = Config(bits=16, loss=name, balance=a, cls_scale=0.7, quant_weight=0.03, dice=dice, centre_scale=8.0)
    output, masks, known, labels = batch()
    total, terms = UnifiedLoss(cfg, 2)(output, masks, known, labels)
    u = torch.tanh(output.code)
    expected = {"classification": CLASSIFICATION[name](u, labels), "quantisation": quantisation_loss(u)}
    if a < 1:
        expected |= segmentation_loss(output.logits, masks, known, dice)
    assert set(terms) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(terms[key], value)  # unweighted
    segmentation = sum(value for key, value in expected.items() if key.startswith("seg"))
    by_hand = a * 0.7 * expected["classification"] + (1 - a) * segmentation + 0.03 * expected["quantisation"]
    torch.testing.assert_close(total, by_hand)
    finite_with_gradient(total, output.code)


def test_unified_cross_entropy_uses_the_classifier():
    cfg = Config(bits=16, loss="ce")
    output, masks, known, labels = batch()
    classifier = torch.nn.Linear(16, 2)
    _, terms = UnifiedLoss(cfg, 2)(output, masks, known, labels, classifier)
    torch.testing.assert_close(terms["classification"], F.cross_entropy(classifier(torch.tanh(output.code)), labels))


def test_unified_on_the_descriptor_leaves_the_code_alone():
    cfg = Config(bits=16, loss="circle", cls_target="descriptor", quant_weight=0.0)
    output, masks, known, labels = batch()
    total, terms = UnifiedLoss(cfg, 2)(output, masks, known, labels)
    torch.testing.assert_close(terms["classification"], circle_loss(output.descriptor, same_class(labels)))
    total.backward()
    assert output.code.grad is None and output.descriptor.grad.abs().sum() > 0


def test_ablations_are_weights_of_zero():
    output, masks, known, labels = batch()
    for changes, names in [
        ({"loss": "none", "balance": 0.0}, {"seg_ce", "seg_dice", "quantisation"}),
        ({"balance": 1.0}, {"classification", "quantisation"}),
        ({"quant_weight": 0.0}, {"classification", "seg_ce", "seg_dice"}),
    ]:
        assert set(UnifiedLoss(Config(bits=16, **changes), 2)(output, masks, known, labels)[1]) == names


def test_without_masks_no_logits_are_needed():
    output, masks, known, labels = batch()
    cfg = Config(bits=16, balance=1.0)
    total, _ = UnifiedLoss(cfg, 2)(output._replace(logits=None), masks, known, labels)
    assert total.isfinite()


def test_fixed_balance_is_no_parameter_and_a_trained_one_is():
    fixed, trained = (UnifiedLoss(Config(balance=0.3, balance_trainable=t), 2) for t in (False, True))
    assert list(fixed.parameters()) == []
    assert [name for name, _ in trained.named_parameters()] == ["a"]
    assert fixed.a.item() == trained.a.item() == pytest.approx(0.3)


def test_trained_balance_gets_the_difference_of_the_losses_as_gradient():
    cfg = Config(bits=16, balance=0.5, balance_trainable=True, cls_scale=0.7)
    output, masks, known, labels = batch()
    loss = UnifiedLoss(cfg, 2)
    total, terms = loss(output, masks, known, labels)
    total.backward()
    difference = 0.7 * terms["classification"] - (terms["seg_ce"] + terms["seg_dice"])
    torch.testing.assert_close(loss.a.grad, difference.detach())


def test_trained_balance_runs_to_the_smaller_loss():
    cfg = Config(bits=16, balance=0.5, balance_trainable=True, loss="pairwise", quant_weight=0.0)
    output, masks, known, labels = batch()
    loss = UnifiedLoss(cfg, 2)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        total, terms = loss(output, masks, known, labels)
        total.backward()
        optimizer.step()
    segmentation = (terms["seg_ce"] + terms["seg_dice"]).item()
    smaller = 1.0 if terms["classification"].item() < segmentation else 0.0
    assert abs(loss.a.item() - smaller) < 0.1


@pytest.mark.parametrize("name", ALL_LOSSES)
@pytest.mark.parametrize("case", ["one image", "one class", "no outline", "empty masks", "zero code"])
def test_unified_on_degenerate_batches(name, case):
    output, masks, known, labels = batch(n=1 if case == "one image" else 4)
    if case == "one class":
        labels = torch.ones_like(labels)
    if case == "no outline":
        known = torch.zeros_like(known)
    if case == "empty masks":
        masks = torch.zeros_like(masks)
    if case == "zero code":
        output = output._replace(code=torch.zeros(4, 16, requires_grad=True))
    classifier = torch.nn.Linear(16, 2)
    total, terms = UnifiedLoss(Config(bits=16, loss=name), 2)(output, masks, known, labels, classifier)
    assert all(value.isfinite() for value in terms.values())
    finite_with_gradient(total, output.code, output.logits)


def test_unified_product_rule():
    output, masks, known, labels = batch()
    cfg = Config(bits=16, loss="pairwise", same_class="product")
    _, terms = UnifiedLoss(cfg, 2)(output, masks, known, labels)
    expected = pairwise_loss(torch.tanh(output.code), same_class(labels, "product"))
    torch.testing.assert_close(terms["classification"], expected)
    _, usual = UnifiedLoss(cfg.but(same_class="equal"), 2)(output, masks, known, labels)
    assert not torch.allclose(terms["classification"], usual["classification"])


def test_unknown_classification_loss_is_named():
    output, masks, known, labels = batch()
    with pytest.raises(ValueError, match="Config.loss: 'triplet'.*pairwise"):
        UnifiedLoss(Config(bits=16, loss="triplet"), 2)(output, masks, known, labels)
