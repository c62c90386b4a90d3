"""Rival losses, aggregations and ITQ against slow loops written from their equations, by hand, and on degenerate input."""

import inspect
import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from ynet_lite.hashing import hadamard_targets
from ynet_lite.losses.ash import ash_loss
from ynet_lite.losses.ath import ath_loss
from ynet_lite.losses.batch import Batch
from ynet_lite.losses.common import same_class
from ynet_lite.losses.csq import csq_loss
from ynet_lite.losses.dpsh import dpsh_loss
from ynet_lite.losses.drh import drh_loss
from ynet_lite.losses.dsh import dsh_loss
from ynet_lite.losses.hashnet import HASHNET, hashnet_loss
from ynet_lite.losses.orthohash import orthohash_loss
from ynet_lite.methods import ALL
from ynet_lite.paper.aggregation import RegionalAttention, cam_pool, crow, crow_channel_weights, itq
from ynet_lite.pooling import SpatialAttention, rmac, rmac_regions

BITS = 16
LABELS = [0, 1, 0, 2, 2, 0, 1]


def randn(*shape, seed=0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dot(a, b) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def squared(a, b) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def pairs_of(z, labels):
    """Rows and label equality of every pair i < j, as plain lists."""
    rows = z.tolist()
    return [(rows[i], rows[j], labels[i] == labels[j]) for i in range(len(rows)) for j in range(i + 1, len(rows))]


def total(terms: dict) -> torch.Tensor:
    return sum(terms.values())


def centres(bits=BITS, classes=3) -> torch.Tensor:
    return torch.from_numpy(hadamard_targets(classes, bits))


# every loss as a function of code and labels only; three classes
def _ath(z, y, **kw):
    # any logits that move with the image will do, and permute with it
    return ath_loss(z, same_class(y), y, z[:, :3] if z.shape[1] >= 3 else torch.zeros(len(z), 3), **kw)


LOSSES = {
    "dsh": lambda z, y, **kw: dsh_loss(z, same_class(y), **kw),
    "dpsh": lambda z, y, **kw: dpsh_loss(z, same_class(y), **kw),
    "drh": lambda z, y, **kw: drh_loss(z, same_class(y), **kw),
    "hashnet": lambda z, y, **kw: hashnet_loss(z, same_class(y), beta=2.0, **kw),
    "csq": lambda z, y, **kw: csq_loss(z, y, centres(z.shape[1]), **kw),
    "orthohash": lambda z, y, **kw: orthohash_loss(z, y, centres(z.shape[1]), **kw),
    "ash": lambda z, y, **kw: ash_loss(z, same_class(y), **kw),
    "ath": _ath,
}
TERMS = {
    "dsh": ["pairs", "quantisation"],
    "dpsh": ["pairs", "quantisation"],
    "drh": ["retrieval", "quantisation", "balance", "orthogonality"],
    "hashnet": ["pairs"],
    "csq": ["centres", "quantisation"],
    "orthohash": ["cosine"],
    "ash": ["pairs", "quantisation"],
    "ath": ["triplets", "classification"],
}
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


# ---------------------------------------------------------------- what all losses share


def test_every_rival_of_the_table_has_a_source():
    sources = {method.name: method.source for method in ALL if method.kind in ("loss", "aggregation")}
    assert len(sources) == 8 + 2 * 6
    assert all("20" in source for source in sources.values())  # a year


@every_loss
def test_terms_are_named_scalars(name):
    terms = LOSSES[name](randn(7, BITS), torch.tensor(LABELS))
    assert list(terms) == TERMS[name]
    assert all(term.shape == () and term.isfinite() and term >= 0 for term in terms.values())


@every_loss
@pytest.mark.parametrize("labels", [[1], [2, 2, 2, 2], [0, 1, 2], [0, 1], [0, 0]])
def test_degenerate_batches(name, labels):
    z = (0.3 * randn(len(labels), BITS, seed=3)).requires_grad_()  # near enough for every margin
    terms = LOSSES[name](z, torch.tensor(labels))
    assert all(term.isfinite() for term in terms.values())
    total(terms).backward()
    assert z.grad.isfinite().all()
    among_images = {"dsh": "pairs", "dpsh": "pairs", "ash": "pairs", "hashnet": "pairs", "drh": "retrieval", "ath": "triplets"}
    if name in among_images:
        one_kind = name == "ath" and len(set(labels)) in (1, len(labels))
        assert (terms[among_images[name]] == 0) == (len(labels) == 1 or one_kind or (name == "drh" and len(set(labels)) == 1))


@every_loss
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e3, 1e6])
def test_finite_gradients_at_zero_and_far_out(name, size):
    z = (size * randn(7, BITS, dtype=torch.float32)).requires_grad_()
    loss = total(LOSSES[name](z, torch.tensor(LABELS)))
    assert loss.isfinite()
    loss.backward()
    assert z.grad.isfinite().all()


@every_loss
def test_far_from_zero_there_is_still_a_gradient_where_the_loss_is_not_bounded(name):
    """Wrong codes of 30 per bit must not be stuck, except where the paper's own tanh has closed the way back."""
    z = torch.full((4, BITS), 30.0)
    z[2:] *= -1
    z[:, BITS // 2 :] *= -1
    z.requires_grad_()
    total(LOSSES[name](z, torch.tensor([0, 1, 0, 1]))).backward()
    assert (z.grad.abs().max() > 1e-6) == (name not in ("drh", "hashnet"))


@every_loss
def test_order_of_the_batch_does_not_matter(name):
    z, labels = randn(7, BITS), torch.tensor(LABELS)
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    one, other = LOSSES[name](z, labels), LOSSES[name](z[order], labels[order])
    for term in one:
        assert other[term].item() == pytest.approx(one[term].item(), rel=1e-10)


@pytest.mark.parametrize("function", [dsh_loss, dpsh_loss, drh_loss, hashnet_loss, ash_loss, ath_loss])
def test_no_image_is_a_pair_with_itself(function):
    """Whatever stands on the diagonal of ``same`` is not read."""
    z, labels = 0.3 * randn(7, BITS), torch.tensor(LABELS)
    more = (labels, torch.zeros(7, 3)) if function is ath_loss else ()
    off = same_class(labels) & ~torch.eye(7).bool()
    assert function(z, same_class(labels), *more) == function(z, off, *more)


@every_loss
def test_names_of_the_classes_do_not_matter_where_no_centre_belongs_to_them(name):
    if name in ("csq", "orthohash", "ath"):
        return
    z = randn(7, BITS)
    renamed = torch.tensor([{0: 2, 1: 0, 2: 1}[label] for label in LABELS])
    assert total(LOSSES[name](z, torch.tensor(LABELS))) == total(LOSSES[name](z, renamed))


@every_loss
def test_twice_the_batch_is_not_twice_the_loss(name):
    """Means, not sums: the loss of many images of the same kind stays about where it was."""
    z, labels = randn(40, BITS), torch.arange(40) % 3
    small, large = total(LOSSES[name](z[:20], labels[:20])), total(LOSSES[name](z, labels))
    assert 0.6 < large / small < 1.5


@every_loss
def test_a_step_against_the_gradient_lowers_the_loss(name):
    z, labels = randn(7, BITS).requires_grad_(), torch.tensor(LABELS)
    before = total(LOSSES[name](z, labels))
    before.backward()
    assert total(LOSSES[name](z - 1e-3 * z.grad / z.grad.norm(), labels)) < before


@every_loss
def test_arguments_are_not_changed(name):
    z, labels = randn(7, BITS), torch.tensor(LABELS)
    LOSSES[name](z, labels)
    assert torch.equal(z, randn(7, BITS)) and labels.tolist() == LABELS


@every_loss
def test_half_precision_is_raised(name):
    z = randn(7, BITS, dtype=torch.float32).bfloat16()
    labels = torch.tensor(LABELS)
    loss = total(LOSSES[name](z, labels))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, total(LOSSES[name](z.float(), labels)))


@every_loss
def test_every_loss_has_one_scale(name):
    function = {"ath": ath_loss, "dsh": dsh_loss, "dpsh": dpsh_loss, "drh": drh_loss, "hashnet": hashnet_loss}.get(name)
    function = function or {"csq": csq_loss, "orthohash": orthohash_loss, "ash": ash_loss}[name]
    assert inspect.signature(function).parameters["scale"].default == 1.0
    z, labels = 0.3 * randn(7, BITS), torch.tensor(LABELS)  # near enough for every margin
    assert total(LOSSES[name](z, labels)) == total(LOSSES[name](z, labels, scale=1.0))
    assert total(LOSSES[name](z, labels)) != total(LOSSES[name](z, labels, scale=1.5))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be a positive number"):
            LOSSES[name](z, labels, scale=wrong)


@every_loss
@pytest.mark.parametrize("z", [torch.zeros(4), torch.zeros(4, BITS).long(), torch.zeros(0, BITS), torch.zeros(4, 2, 2)])
def test_wrong_codes(name, z):
    function = {"csq": csq_loss, "orthohash": orthohash_loss}.get(name)
    with pytest.raises(ValueError, match=r"float tensor \(N, K\)"):
        if function:
            function(z, torch.zeros(4).long(), centres())
        elif name == "ath":
            ath_loss(z, torch.ones(4, 4).bool(), torch.zeros(4).long(), torch.zeros(4, 2))
        else:
            {"dsh": dsh_loss, "dpsh": dpsh_loss, "drh": drh_loss, "hashnet": hashnet_loss, "ash": ash_loss}[name](
                z, torch.ones(4, 4).bool()
            )


@pytest.mark.parametrize("function", [dsh_loss, dpsh_loss, drh_loss, hashnet_loss, ash_loss])
@pytest.mark.parametrize("same", [torch.ones(4, 4), torch.ones(3, 3).bool(), torch.ones(4).bool()])
def test_wrong_pair_labels(function, same):
    with pytest.raises(ValueError, match=r"same must be bool \(4, 4\)"):
        function(torch.zeros(4, BITS), same)


@pytest.mark.parametrize("function", [csq_loss, orthohash_loss])
def test_wrong_labels_and_centres(function):
    z, labels = torch.zeros(4, BITS), torch.tensor([0, 1, 2, 0])
    for wrong in (centres(8), (centres() + 1) / 2, centres()[0]):  # too short, of 0 and 1, one row
        with pytest.raises(ValueError, match="centres must be -1 and"):
            function(z, labels, wrong)
    with pytest.raises(ValueError, match="labels must be int64"):
        function(z, labels[:3], centres())
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        function(z, labels + 1, centres())


# ---------------------------------------------------------------- DSH and ASH


def slow_contrastive(z, labels, margin, alpha, scale=1.0):
    """Equation 4 of DSH, each pair with the regulariser of both of its images; the pull of alike pairs times ``scale``."""
    apart, regular, count = 0.0, 0.0, 0
    for a, b, alike in pairs_of(z, labels):
        d = squared(a, b)
        apart += 0.5 * scale * d if alike else 0.5 * max(margin - d, 0)
        regular += alpha * (sum(abs(abs(v) - 1) for v in a) + sum(abs(abs(v) - 1) for v in b))
        count += 1
    return apart / count, regular / count


@pytest.mark.parametrize("seed", [0, 1])
def test_dsh_against_a_slow_loop(seed):
    z = randn(7, BITS, seed=seed)
    terms = dsh_loss(z, same_class(torch.tensor(LABELS)))
    pairs, quantisation = slow_contrastive(z, LABELS, 2 * BITS, 0.01)
    assert terms["pairs"].item() == pytest.approx(pairs, rel=1e-10)
    assert terms["quantisation"].item() == pytest.approx(quantisation, rel=1e-10)
    terms = dsh_loss(z, same_class(torch.tensor(LABELS)), margin=20.0, scale=0.3)
    pairs, quantisation = slow_contrastive(z, LABELS, 20.0, 0.01, 0.3)
    assert terms["pairs"].item() == pytest.approx(pairs, rel=1e-10)
    assert terms["quantisation"].item() == pytest.approx(quantisation, rel=1e-10)


def test_dsh_by_hand():
    # K = 2, m = 4; alike: d = 1, half of it; unlike to the third: d = 4 (at the margin) and d = 1 (3 short, half of it)
    z = torch.tensor([[1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
    same = same_class(torch.tensor([0, 0, 1]))
    terms = dsh_loss(z, same)
    assert terms["pairs"].item() == pytest.approx((1 / 2 + 0 + 3 / 2) / 3)
    assert terms["quantisation"].item() == pytest.approx(2 * 0.01 * (0 + 1 + 0) / 3)
    assert dsh_loss(z, same, scale=0.25)["pairs"].item() == pytest.approx((1 / 8 + 0 + 3 / 2) / 3)


@pytest.mark.parametrize("scale, outward", [(1.0, False), (0.1, True)])
def test_dsh_pulls_codes_together_where_most_pairs_are_alike_unless_it_is_scaled_down(scale, outward):
    """Codes that say nothing about the class: whether it pays to make all of them larger."""
    z, labels = 0.1 * randn(200, BITS), (torch.arange(200) % 10 < 2).long()
    assert same_class(labels).float().mean() > 0.6
    size = torch.ones((), requires_grad=True, dtype=z.dtype)
    (slope,) = torch.autograd.grad(dsh_loss(size * z, same_class(labels), scale=scale)["pairs"], size)
    assert (slope.item() < 0) == outward


def test_dsh_is_content_with_opposite_codes_of_ones():
    z = torch.ones(4, 8)
    z[2:] *= -1
    assert total(dsh_loss(z, same_class(torch.tensor([0, 0, 1, 1])))) == 0


def test_ash_is_dsh_with_a_quarter_of_the_margin():
    z, same = 0.5 * randn(7, BITS), same_class(torch.tensor(LABELS))
    pairs, quantisation = slow_contrastive(z, LABELS, BITS / 2, 0.01)
    terms = ash_loss(z, same)
    assert terms["pairs"].item() == pytest.approx(pairs, rel=1e-10)
    assert terms["quantisation"].item() == pytest.approx(quantisation, rel=1e-10)
    assert ash_loss(z, same, scale=0.5) == dsh_loss(z, same, margin=BITS / 2, scale=0.5)


def test_ash_by_hand():
    # K = 4, m = 2: unlike codes that agree are 2 short; unlike codes one bit of -1 and +1 apart (d = 4) are far enough
    same = torch.eye(2).bool()
    assert ash_loss(torch.ones(2, 4), same)["pairs"] == 1.0
    assert ash_loss(torch.tensor([[1.0, 1, 1, 1], [-1.0, 1, 1, 1]]), same)["pairs"] == 0.0


# ---------------------------------------------------------------- DPSH


@pytest.mark.parametrize("scale, eta", [(1.0, 0.002), (0.4, 0.1)])
def test_dpsh_against_a_slow_loop(scale, eta):
    z = randn(7, BITS)
    likelihood, count = 0.0, 0
    for a, b, alike in pairs_of(z, LABELS):
        p = 1 / (1 + math.exp(-scale * dot(a, b) / 2))
        likelihood -= math.log(p if alike else 1 - p)
        count += 1
    distance = sum(squared(row, [1.0 if v >= 0 else -1.0 for v in row]) for row in z.tolist()) / 7
    terms = dpsh_loss(z, same_class(torch.tensor(LABELS)), eta=eta, scale=scale)
    assert count == 21
    assert terms["pairs"].item() == pytest.approx(likelihood / 21, rel=1e-9)
    assert terms["quantisation"].item() == pytest.approx(eta * distance, rel=1e-10)


def test_dpsh_by_hand():
    # <a, b> = 2 for the alike pair, so t = 1; -2 and t = -1 for both unlike pairs: three times log(1 + 1/e)
    z = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
    terms = dpsh_loss(z, same_class(torch.tensor([0, 0, 1])))
    assert terms["pairs"].item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert terms["quantisation"].item() == pytest.approx(0.002 * (0 + (1 + 1) + 0) / 3)  # sgn(0) = +1


def test_dpsh_pulls_zero_up():
    """sgn(0) = +1 is what the code will be, so that is where the quantisation pulls."""
    z = torch.zeros(1, 4, requires_grad=True)
    dpsh_loss(z, torch.ones(1, 1).bool())["quantisation"].backward()
    torch.testing.assert_close(z.grad, torch.full((1, 4), -2 * 0.002))


def test_dpsh_does_not_bound_the_code():
    """No tanh: the likelihood of a pair keeps improving as its codes grow."""
    same = same_class(torch.tensor([0, 0, 1]))
    z = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    values = [dpsh_loss(size * z, same, eta=0.0)["pairs"].item() for size in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[-1] < 1e-6


# ---------------------------------------------------------------- DRH


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_drh_against_a_slow_loop(scale):
    z = 0.7 * randn(7, 6)
    n, bits = z.shape
    h = [[math.tanh(v) for v in row] for row in z.tolist()]
    picked = 0.0
    for i in range(n):
        weight = [math.exp(-scale * squared(h[i], h[j])) if j != i else 0.0 for j in range(n)]
        picked += sum(w for j, w in enumerate(weight) if LABELS[j] == LABELS[i]) / sum(weight)
    quantisation = sum(math.log(math.cosh(abs(v) - 1)) for row in h for v in row) / (n * bits)
    columns = list(zip(*h, strict=True))
    variance = sum(sum((v - sum(column) / n) ** 2 for v in column) / n for column in columns) / bits
    correlation = sum((dot(columns[k], columns[m]) / n - (k == m)) ** 2 for k in range(bits) for m in range(bits)) / bits**2
    terms = drh_loss(z, same_class(torch.tensor(LABELS)), scale=scale)
    assert terms["retrieval"].item() == pytest.approx(1 - picked / n, rel=1e-9)
    assert terms["quantisation"].item() == pytest.approx(0.05 * quantisation, rel=1e-9)
    assert terms["balance"].item() == pytest.approx(0.025 * (1 - variance) / 2, rel=1e-9)
    assert terms["orthogonality"].item() == pytest.approx(0.01 * correlation, rel=1e-9)


def test_drh_by_hand():
    # far out tanh is +-1: images 0 and 1 agree, image 2 is 4 away from both in its one other bit
    z = 50.0 * torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    terms = drh_loss(z, same_class(torch.tensor([0, 0, 1])))
    near = 1 / (1 + math.exp(-4))  # exp(0) against exp(-4)
    assert terms["retrieval"].item() == pytest.approx(1 - (near + near + 0) / 3, rel=1e-6)
    assert terms["quantisation"].item() == pytest.approx(0, abs=1e-7)
    # variances: bit 0 is constant, bit 1 has mean 1/3: 1 - 1/9
    assert terms["balance"].item() == pytest.approx(0.025 * (1 - (0 + 8 / 9) / 2) / 2, rel=1e-6)
    # H^T H / 3 = [[1, 1/3], [1/3, 1]]: two of four entries off by 1/3
    assert terms["orthogonality"].item() == pytest.approx(0.01 * 2 / 9 / 4, rel=1e-6)


def test_drh_regularisers_vanish_for_balanced_uncorrelated_codes():
    z = 50.0 * torch.from_numpy(hadamard(8)).double()
    z = torch.cat([z, -z])  # every column sums to zero
    terms = drh_loss(z, torch.eye(16).bool())
    for name in ("quantisation", "balance", "orthogonality"):
        assert terms[name].item() == pytest.approx(0, abs=1e-6)
    assert drh_loss(torch.zeros(4, 8), torch.eye(4).bool())["balance"].item() == pytest.approx(0.025 / 2)


def test_drh_of_images_alone_in_their_class_is_constant():
    z = randn(3, BITS).requires_grad_()
    terms = drh_loss(z, same_class(torch.tensor([0, 1, 2])))
    assert terms["retrieval"] == 1
    terms["retrieval"].backward()
    assert (z.grad == 0).all()


# ---------------------------------------------------------------- HashNet


@pytest.mark.parametrize("beta, scale", [(1.0, 1.0), (3.0, 0.5)])
def test_hashnet_against_a_slow_loop(beta, scale):
    z = 0.5 * randn(7, BITS)
    u = torch.tanh(beta * z)
    pairs = pairs_of(u, LABELS)
    alike_pairs = sum(alike for _, _, alike in pairs)
    likelihood = 0.0
    for a, b, alike in pairs:
        weight = len(pairs) / alike_pairs if alike else len(pairs) / (len(pairs) - alike_pairs)
        p = 1 / (1 + math.exp(-scale * 10 / BITS * dot(a, b)))
        likelihood -= weight * math.log(p if alike else 1 - p)
    terms = hashnet_loss(z, same_class(torch.tensor(LABELS)), beta=beta, scale=scale)
    assert (len(pairs), alike_pairs) == (21, 5)
    assert terms["pairs"].item() == pytest.approx(likelihood / 21, rel=1e-9)


def test_hashnet_by_hand():
    # K = 2, far out u = +-1: t = 5 <u, u> = 10 for the alike pair, -10 for both unlike ones
    z = 100.0 * torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    loss = hashnet_loss(z, same_class(torch.tensor([0, 0, 1])))["pairs"]
    assert loss.item() == pytest.approx(2 * math.log(1 + math.exp(-10)), rel=1e-2)
    # at zero every pair costs log 2; with one kind of pair only, the weight is 1
    zero = torch.zeros(4, 2)
    assert hashnet_loss(zero, same_class(torch.tensor([0, 0, 0, 1])))["pairs"].item() == pytest.approx(2 * math.log(2))
    assert hashnet_loss(zero, same_class(torch.tensor([0, 0, 0, 0])))["pairs"].item() == pytest.approx(math.log(2))
    assert hashnet_loss(zero, same_class(torch.tensor([0, 1, 2, 3])))["pairs"].item() == pytest.approx(math.log(2))


def test_hashnet_weighs_rare_pairs_up():
    """One alike pair among many pulls as hard as all unlike pairs push."""
    z = torch.full((12, 4), 0.1).requires_grad_()
    labels = torch.tensor([0, 0, *range(1, 11)])
    hashnet_loss(z, same_class(labels))["pairs"].backward()
    assert z.grad[0, 0] < 0 < z.grad[2, 0]  # images of the pair grow together, the others shrink


@pytest.mark.parametrize("step", [0, 5000, 10_000])
def test_hashnet_grows_as_the_released_schedule(step):
    z, labels = randn(7, BITS), torch.tensor(LABELS)
    same = same_class(labels)
    at = Batch(z, torch.tanh(z), labels, same, progress=step / 10_000)
    assert HASHNET.terms(at, 0.5) == hashnet_loss(z, same, beta=math.sqrt(1 + 0.005 * step), scale=0.5)


# ---------------------------------------------------------------- CSQ


@pytest.mark.parametrize("scale, weight", [(1.0, 1e-4), (0.5, 0.2)])
def test_csq_against_a_slow_loop(scale, weight):
    z, c = randn(7, BITS), centres()
    centre, quantisation = 0.0, 0.0
    for row, label in zip(z.tolist(), LABELS, strict=True):
        for v, target in zip(row, c[label].tolist(), strict=True):
            u = math.tanh(scale * v)
            h, bit = (1 + u) / 2, (1 + target) / 2
            centre -= bit * math.log(h) + (1 - bit) * math.log(1 - h)
            quantisation += math.log(math.cosh(abs(u) - 1))
    terms = csq_loss(z, torch.tensor(LABELS), c, quantisation=weight, scale=scale)
    assert terms["centres"].item() == pytest.approx(centre / (7 * BITS), rel=1e-9)
    assert terms["quantisation"].item() == pytest.approx(weight * quantisation / (7 * BITS), rel=1e-9)


def test_csq_by_hand():
    c = torch.tensor([[1.0, -1.0]])
    zero = csq_loss(torch.zeros(1, 2), torch.tensor([0]), c)
    assert zero["centres"].item() == pytest.approx(math.log(2))
    assert zero["quantisation"].item() == pytest.approx(1e-4 * math.log(math.cosh(1)))
    # atanh(1/2): h = 3/4 in the bit that should be 1, and 3/4 in the one that should be 0
    loss = csq_loss(torch.full((1, 2), math.atanh(0.5)), torch.tensor([0]), c)["centres"]
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_csq_is_least_on_its_own_centre():
    c, labels = centres(), torch.tensor([0, 1, 2])
    own, other = (total(csq_loss(10 * c[order], labels, c)) for order in ([0, 1, 2], [1, 2, 0]))
    assert own < 1e-6 and other > 5


# ---------------------------------------------------------------- OrthoHash


@pytest.mark.parametrize("margin, scale", [(0.2, 1.0), (0.0, 0.7)])
def test_orthohash_against_a_slow_loop(margin, scale):
    z, c = randn(7, BITS), centres()
    s = scale * 4  # sqrt(16)
    loss = 0.0
    for row, label in zip(z.tolist(), LABELS, strict=True):
        logits = [s * dot(row, centre) / math.sqrt(dot(row, row) * BITS) for centre in c.tolist()]
        logits[label] -= s * margin
        loss += -logits[label] + math.log(sum(map(math.exp, logits)))
    value = orthohash_loss(z, torch.tensor(LABELS), c, margin=margin, scale=scale)["cosine"]
    assert value.item() == pytest.approx(loss / 7, rel=1e-9)


def test_orthohash_by_hand():
    # on its own centre, orthogonal to the other: cosines 1 and 0, s = 2
    c = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    loss = orthohash_loss(3 * c[:1], torch.tensor([0]), c)["cosine"]
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2 * (1 - 0.2))), rel=1e-5)
    # one class: nothing to tell apart
    assert orthohash_loss(randn(3, 4), torch.zeros(3).long(), c[:1])["cosine"] == 0


def test_orthohash_sees_directions_only_and_has_the_released_scale_at_64_bits():
    z, labels = randn(7, 64), torch.tensor(LABELS)
    value = orthohash_loss(z, labels, centres(64))["cosine"]
    assert orthohash_loss(1000 * z, labels, centres(64))["cosine"].item() == pytest.approx(value.item(), rel=1e-9)
    cosine = torch.nn.functional.cosine_similarity(z[:, None], centres(64).double()[None], dim=2)
    expected = nn.functional.cross_entropy(8 * (cosine - 0.2 * nn.functional.one_hot(labels).double()), labels)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


# ---------------------------------------------------------------- ATH


def slow_triplets(z, labels, margin):
    rows, values = z.tolist(), []
    for q in range(len(rows)):
        for p in range(len(rows)):
            for n in range(len(rows)):
                if p != q and labels[p] == labels[q] and labels[n] != labels[q]:
                    values.append(max(0, margin + squared(rows[q], rows[p]) - squared(rows[q], rows[n])))
    return sum(values) / len(values), len(values)


@pytest.mark.parametrize("seed", [0, 1])
def test_ath_against_a_slow_loop(seed):
    z, labels, logits = randn(7, BITS, seed=seed), torch.tensor(LABELS), randn(7, 3, seed=5)
    triplets, count = slow_triplets(z, LABELS, BITS / 2)
    assert count == 3 * 2 * 4 + 2 * 1 * 5 + 2 * 1 * 5
    entropy = 0.0
    for row, label in zip(logits.tolist(), LABELS, strict=True):
        entropy += -row[label] + math.log(sum(map(math.exp, row)))
    terms = ath_loss(z, same_class(labels), labels, logits)
    assert terms["triplets"].item() == pytest.approx(triplets, rel=1e-9)
    assert terms["classification"].item() == pytest.approx(3 * entropy / 7, rel=1e-9)
    terms = ath_loss(z, same_class(labels), labels, logits, scale=2.0)
    assert terms["triplets"].item() == pytest.approx(slow_triplets(z, LABELS, BITS)[0], rel=1e-9)
    assert terms["classification"].item() == pytest.approx(3 * entropy / 7, rel=1e-9)


def test_ath_by_hand():
    # K = 2, m = 1: two triplets, (0, 1, 2) with 1 + 1 - 4 < 0 and (1, 0, 2) with 1 + 1 - 1 = 1
    z = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    terms = ath_loss(z, same_class(labels), labels, torch.zeros(3, 2))
    assert terms["triplets"].item() == pytest.approx((0 + 1) / 2)
    assert terms["classification"].item() == pytest.approx(3 * math.log(2))


def test_ath_takes_no_image_as_its_own_partner():
    """Under the released product rule an image of class 0 is not even alike to itself."""
    z, labels = randn(4, BITS), torch.tensor([0, 0, 1, 1])
    same = same_class(labels, "product")
    rows, values = z.tolist(), []
    for q, p in ((2, 3), (3, 2)):
        values += [max(0, 8 + squared(rows[q], rows[p]) - squared(rows[q], rows[n])) for n in (0, 1)]
    assert ath_loss(z, same, labels, torch.zeros(4, 2))["triplets"].item() == pytest.approx(sum(values) / 4, rel=1e-9)


def test_ath_wrong_logits():
    labels = torch.zeros(3).long()
    with pytest.raises(ValueError, match=r"logits must be \(3, classes\)"):
        ath_loss(torch.zeros(3, BITS), same_class(labels), labels, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="labels must be int64"):
        ath_loss(torch.zeros(3, BITS), same_class(labels), labels.float(), torch.zeros(3, 2))


# ---------------------------------------------------------------- spatial attention


def slow_attention(x, kernel):
    """Mean and maximum over channels, convolved by hand with zeros outside, through the logistic function."""
    n, c, h, w = x.shape
    out = torch.zeros(n, 1, h, w, dtype=x.dtype)
    for i in range(n):
        planes = [x[i].mean(0), x[i].max(0).values]
        for y in range(h):
            for k in range(w):
                value = 0.0
                for plane, weights in zip(planes, kernel[0], strict=True):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < h and 0 <= k + dx < w:
                                value += plane[y + dy, k + dx].item() * weights[dy + 1, dx + 1].item()
                out[i, 0, y, k] = 1 / (1 + math.exp(-value))
    return out


def test_spatial_attention_against_a_slow_loop():
    torch.manual_seed(0)
    module, x = SpatialAttention().double(), randn(2, 5, 3, 4)
    attention = slow_attention(x, module.conv.weight.detach())
    torch.testing.assert_close(module(x), attention * x)
    assert [p.shape for p in module.parameters()] == [(1, 2, 3, 3)]


def test_spatial_attention_of_ath_pools_first():
    torch.manual_seed(0)
    module, x = SpatialAttention(max_pool=True).double(), randn(1, 3, 4, 4)
    pooled = torch.empty_like(x)
    for y in range(4):
        for k in range(4):
            pooled[..., y, k] = x[..., max(y - 1, 0) : y + 2, max(k - 1, 0) : k + 2].amax((2, 3))
    torch.testing.assert_close(module(x), slow_attention(pooled, module.conv.weight.detach()) * pooled)
    assert module(x).shape == x.shape


def test_spatial_attention_by_hand():
    module = SpatialAttention()
    nn.init.zeros_(module.conv.weight)
    assert (module(torch.ones(1, 2, 2, 2)) == 0.5).all()  # sigmoid(0)


# ---------------------------------------------------------------- aggregations


def features(n=3, c=6, h=4, w=5, seed=0) -> torch.Tensor:
    """Like features after a ReLU: about half of them zero, the channels unequally rare."""
    return (randn(n, c, h, w, seed=seed) + torch.linspace(-1, 1, c)[:, None, None]).clamp_min(0)


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(dot(vector, vector))
    return [v / length for v in vector]


def slow_channel_weights(x, eps=1e-6):
    """x (C, H, W) -> C numbers."""
    share = [(plane > 0).sum().item() / plane.numel() for plane in x]
    return [math.log((len(share) * eps + sum(share)) / (eps + q)) for q in share]


def slow_crow(x):
    c, h, w = x.shape
    total_ = [[sum(x[k, y, i].item() for k in range(c)) for i in range(w)] for y in range(h)]
    norm = math.sqrt(sum(v**2 for row in total_ for v in row))
    channel = slow_channel_weights(x)
    pooled = [
        channel[k] * sum(math.sqrt(total_[y][i] / norm) * x[k, y, i].item() for y in range(h) for i in range(w)) for k in range(c)
    ]
    return unit(pooled)


def test_crow_against_a_slow_loop():
    x = features()
    expected = torch.tensor([slow_crow(image) for image in x], dtype=torch.float64)
    torch.testing.assert_close(crow(x), expected)
    weights = torch.tensor([slow_channel_weights(image) for image in x], dtype=torch.float64)
    torch.testing.assert_close(crow_channel_weights(x), weights)


def test_crow_by_hand():
    # two channels, two positions: sums 3 and 1, so S ~ (sqrt 3, 1); channel 0 active at both positions, channel 1 at one
    x = torch.tensor([[[[2.0, 1.0]], [[1.0, 0.0]]]], dtype=torch.float64)
    common, rare = math.log(1.5 / 1), math.log(1.5 / 0.5)
    expected = unit([common * (2 * math.sqrt(3) + 1), rare * math.sqrt(3)])
    assert crow(x)[0].tolist() == pytest.approx(expected, rel=1e-5)


def slow_cam(x, weight, top):
    c, h, w = x.shape
    means = [plane.mean().item() for plane in x]
    logits = [dot(means, row) for row in weight.tolist()]
    likeliest = sorted(range(len(logits)), key=lambda k: -logits[k])[:top]
    channel, summed = slow_channel_weights(x), [0.0] * c
    for cls in likeliest:
        cam = [[dot(weight[cls].tolist(), x[:, y, i].tolist()) for i in range(w)] for y in range(h)]
        low, high = min(map(min, cam)), max(map(max, cam))
        vector = unit(
            [
                channel[k] * sum((cam[y][i] - low) / (high - low) * x[k, y, i].item() for y in range(h) for i in range(w))
                for k in range(c)
            ]
        )
        summed = [s + v for s, v in zip(summed, vector, strict=True)]
    return unit(summed)


@pytest.mark.parametrize("top", [1, 2, 4])
def test_cam_against_a_slow_loop(top):
    x, weight = features(), randn(4, 6, seed=1)
    expected = torch.tensor([slow_cam(image, weight, top) for image in x], dtype=torch.float64)
    torch.testing.assert_close(cam_pool(x, weight, top=top), expected)


def test_cam_by_hand_and_its_choice_of_classes():
    # class 0 looks at channel 0 (position 0), class 1 at channel 1 (position 1); both channels equally rare
    x = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    weight = torch.eye(2)
    assert cam_pool(x, weight, top=1)[0].tolist() == pytest.approx([1, 0])
    assert cam_pool(x, 9 * weight[1] + weight, top=1)[0].tolist() == pytest.approx([0, 1])  # the likelier class decides
    assert cam_pool(x, weight)[0].tolist() == pytest.approx([math.sqrt(1 / 2)] * 2)
    assert torch.equal(cam_pool(x, weight, top=2), cam_pool(x, weight, top=9))  # no more classes than there are


def test_cam_without_a_place_to_prefer_is_plain_pooling():
    x = features(2, 6, 1, 1)  # one position: every map is the same everywhere
    expected = nn.functional.normalize(crow_channel_weights(x) * x[..., 0, 0], dim=1)
    torch.testing.assert_close(cam_pool(x, randn(3, 6)), expected)
    x = features(2)
    expected = nn.functional.normalize(crow_channel_weights(x) * x.sum((2, 3)), dim=1)
    torch.testing.assert_close(cam_pool(x, torch.zeros(3, 6)), expected)


def slow_regional(module, x):
    """x (C, H, W) -> C numbers and the weights of the regions."""
    c, h, w = x.shape
    w1, b1 = module.hidden.weight.tolist(), module.hidden.bias.tolist()
    w2, b2 = module.out.weight[0].tolist(), module.out.bias.item()
    summed, weights = [0.0] * c, []
    for top, left, side in rmac_regions(h, w):
        region = x[:, top : top + side, left : left + side]
        seen = [plane.mean().item() for plane in region] + [plane.mean().item() for plane in x]
        hidden = [math.tanh(dot(row, seen) + b) for row, b in zip(w1, b1, strict=True)]
        weights.append(math.log(1 + math.exp(dot(w2, hidden) + b2)))
        maxima = unit([plane.max().item() for plane in region])
        summed = [s + weights[-1] * m for s, m in zip(summed, maxima, strict=True)]
    return unit(summed), weights


def test_regional_attention_against_a_slow_loop():
    torch.manual_seed(0)
    module, x = RegionalAttention(6, hidden=5).double(), features()
    slow = [slow_regional(module, image) for image in x]
    torch.testing.assert_close(module(x), torch.tensor([descriptor for descriptor, _ in slow], dtype=torch.float64))
    torch.testing.assert_close(module.weights(x), torch.tensor([weights for _, weights in slow], dtype=torch.float64))


def test_regional_attention_with_equal_weights_is_rmac():
    module, x = RegionalAttention(6).double(), features()
    assert module.hidden.out_features == 64
    nn.init.zeros_(module.out.weight)
    torch.testing.assert_close(module(x), nn.functional.normalize(rmac(x), dim=1))


def test_regional_attention_learns():
    torch.manual_seed(0)
    module = RegionalAttention(6)
    module(features().float())[:, 0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


AGGREGATIONS = {
    "crow": crow,
    "cam": lambda x: cam_pool(x, randn(3, x.shape[1]).to(x.dtype)),
    "regional-attention": lambda x: RegionalAttention(x.shape[1]).to(x.dtype)(x),
}
every_aggregation = pytest.mark.parametrize("name", sorted(AGGREGATIONS))


@every_aggregation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aggregations_have_unit_length(name, dtype):
    torch.manual_seed(0)
    descriptor = AGGREGATIONS[name](features(4).to(dtype))
    assert descriptor.shape == (4, 6) and descriptor.dtype == dtype
    torch.testing.assert_close(descriptor.norm(dim=1), torch.ones(4, dtype=dtype))


@every_aggregation
def test_aggregations_of_zero_maps_are_zero_with_finite_gradients(name):
    torch.manual_seed(0)
    x = features().float()
    x[1] = 0  # one image without any activation
    x[2, :, :2] = 0  # one with empty positions
    x[2, 0] = 0  # and an empty channel
    x.requires_grad_()
    descriptor = AGGREGATIONS[name](x)
    assert descriptor.isfinite().all() and (descriptor[1] == 0).all() and (descriptor[[0, 2]].norm(dim=1) > 0.99).all()
    descriptor[:, 1].sum().backward()
    assert x.grad.isfinite().all()


@every_aggregation
def test_aggregations_treat_images_alone(name):
    torch.manual_seed(0)
    x = features(4)
    torch.manual_seed(1)
    together = AGGREGATIONS[name](x)
    torch.manual_seed(1)
    alone = AGGREGATIONS[name](x[2:3])
    torch.testing.assert_close(together[2:3], alone)


@pytest.mark.parametrize("size", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["crow", "cam"])
def test_aggregations_do_not_depend_on_the_size_of_the_features(name, size):
    x = features().float()
    torch.testing.assert_close(AGGREGATIONS[name](size * x), AGGREGATIONS[name](x))


# ---------------------------------------------------------------- ITQ


def descriptors(n=200, d=24, seed=0) -> np.ndarray:
    """Clustered descriptors with unequal variances, as descriptors of a network are."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d)) / np.arange(1, d + 1)
    return rng.standard_normal((n, d)) @ mixing + 2 * rng.standard_normal((4, d))[rng.integers(4, size=n)] + 1


def quantisation_error(v: np.ndarray) -> float:
    return float(((np.where(v >= 0, 1, -1) - v) ** 2).sum())


def pca_codes(x: np.ndarray, bits: int) -> np.ndarray:
    """Projection on the first principal components, from the eigenvectors of the covariance."""
    centred = x - x.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, ::-1][:, :bits]


def projection_of(project, x: np.ndarray) -> np.ndarray:
    """The matrix by which centred descriptors are multiplied: the codes of one step along each dimension, from their mean."""
    return project(x.mean(0) + np.eye(x.shape[1]))


@pytest.mark.parametrize("bits", [1, 8, 24])
def test_itq_is_a_rotation_of_the_principal_components(bits):
    x = descriptors()
    project = itq(x, bits, seed=0)
    projection = projection_of(project, x)
    assert projection.shape == (24, bits)
    np.testing.assert_allclose(projection.T @ projection, np.eye(bits), atol=1e-10)
    np.testing.assert_allclose(project(x.mean(0)), 0, atol=1e-10)
    codes = project(x)
    assert codes.shape == (200, bits) and codes.dtype == np.float64
    # a rotation keeps all inner products of the projected descriptors
    v = pca_codes(x, bits)
    np.testing.assert_allclose(codes @ codes.T, v @ v.T, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_itq_error_is_below_that_of_the_signs_of_the_components(seed):
    x = descriptors(seed=seed)
    assert quantisation_error(itq(x, 8, seed=seed)(x)) < quantisation_error(pca_codes(x, 8))


def test_itq_error_never_rises():
    x = descriptors()
    errors = [quantisation_error(itq(x, 12, seed=3, iterations=k)(x)) for k in (0, 1, 2, 3, 5, 10, 20, 50)]
    assert all(after <= before + 1e-9 for before, after in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 0.95 * errors[0]


def test_itq_step_by_hand():
    """One step in two dimensions: the best angle found by trying many, for the bits of the starting rotation."""
    x = descriptors(60, 2)
    start, after = (itq(x, 2, seed=0, iterations=k)(x) for k in (0, 1))
    bits = np.where(start >= 0, 1.0, -1.0)
    errors = []
    for angle in np.linspace(0, 2 * np.pi, 7201):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for mirror in (np.eye(2), np.diag([1, -1])):
            errors.append(((bits - start @ turn @ mirror) ** 2).sum())
    assert ((bits - after) ** 2).sum() == pytest.approx(min(errors), rel=1e-5)
    assert ((bits - after) ** 2).sum() <= min(errors) + 1e-9


def test_itq_stops_where_nothing_changes():
    x = descriptors(40, 6)
    long, longer = (itq(x, 4, seed=0, iterations=k) for k in (500, 1000))
    assert np.array_equal(long(x), longer(x))


def test_itq_is_deterministic_and_seeded():
    x = descriptors()
    before = x.copy()
    one, again, other = (itq(x, 8, seed=seed)(x) for seed in (0, 0, 1))
    assert np.array_equal(one, again) and np.array_equal(x, before)
    assert not np.allclose(one, other)


def test_itq_projects_new_descriptors_by_the_mean_of_the_database():
    x, new = descriptors(), descriptors(5, seed=9)
    project = itq(x, 8, seed=0)
    projection = projection_of(project, x)
    for row, code in zip(new, project(new), strict=True):
        np.testing.assert_allclose(code, [(row - x.mean(0)) @ column for column in projection.T])
    # in double precision, whatever is given
    single = new.astype(np.float32)
    assert project(single).dtype == np.float64 and np.array_equal(project(single), project(single.astype(np.float64)))


def test_itq_balances_and_keeps_neighbours_better_than_the_components_alone():
    """What the rotation is for: the Hamming order follows the Euclidean one more closely."""
    x = descriptors(300)
    v = pca_codes(x, 12)
    truth = ((v[:, None] - v[None]) ** 2).sum(2)
    near = truth < np.quantile(truth, 0.05)

    def separation(codes):
        b = codes >= 0
        hamming = (b[:, None] != b[None]).sum(2)
        return hamming[~near].mean() - hamming[near & ~np.eye(300, dtype=bool)].mean()

    assert separation(itq(x, 12, seed=0)(x)) > separation(v)


def test_itq_refuses_too_few_descriptors_and_nan():
    x = descriptors(20, 10)
    with pytest.raises(ValueError, match=r"n_components=11 must be between 0 and min\(n_samples, n_features\)=10"):
        itq(x, 11, seed=0)
    with pytest.raises(ValueError, match=r"n_components=8 must be between 0 and min\(n_samples, n_features\)=5"):
        itq(x[:5], 8, seed=0)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        itq(x, 4, seed=0)
