"""The planned runs: every grid of configurations behind a published number."""

from collections.abc import Callable, Sequence
from functools import partial

from .. import provenance
from ..config import Config
from ..methods import AGGREGATED, OURS, PAPER_METHODS, RIVALS, TWIN

FOLDS = (1, 2, 3, 4, 5)

#: The balance a of the unified loss; "trainable" starts at .5.
BALANCES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

#: Own settings of each classification loss beside the default one, for the scan of the balance.
LOSSES = ("pairwise", "circle", "ce", "centres")

BITS = (8, 16, 32, 128)
MASK_SHARES = (0.0, 0.1, 0.25, 0.5)
MASK_QUALITIES = ("dilated", "eroded", "box", "shifted")

ABLATIONS = ("ynet-rmac", "ynet-lesion", "ynet-selfpool", "ynet-no-cls", "ynet-no-quant", "ynet-circle")
BOTH = (OURS, TWIN)

#: The rivals that are also run on the smaller sets: the three that ranked best on folds 2-5 of BUS-BRA.
BEST_RIVALS = ("hashnet", "dpsh", "ath")


def _runs(preset: str, dataset: str, methods: Sequence[str], folds=(1,), seeds=(0,), **changes) -> list[Config]:
    return [Config.from_preset(preset, dataset, m, fold=f, seed=s, **changes) for s in seeds for f in folds for m in methods]


quick, full = partial(_runs, "quick", "phantom"), partial(_runs, "full", "busbra")


def bits(of: Callable[..., list[Config]], default: bool = False) -> list[Config]:
    """Y-Net and its twin at each length of the code, two seeds; with ``default`` at their own length, too, and sorted by it."""
    found = [cfg for b in BITS for cfg in of(BOTH, seeds=(0, 1), variant=f"bits={b}", bits=b)]
    return sorted(found + of(BOTH, seeds=(0, 1)), key=lambda cfg: (BOTH.index(cfg.method), cfg.bits)) if default else found


def masks(of: Callable[..., list[Config]], default: bool = False) -> list[Config]:
    """Y-Net with fewer outlines, then with all and, if ``default``, exact ones, then with worse ones; two seeds."""
    changes = [{"variant": f"masks={share:.0%}", "mask_share": share} for share in MASK_SHARES] + [{}] * default
    changes += [{"variant": f"masks {quality}", "mask_quality": quality} for quality in MASK_QUALITIES]
    return [cfg for change in changes for cfg in of((OURS,), seeds=(0, 1), **change)]


def balances(of: Callable[..., list[Config]], default: bool = True) -> list[Config]:
    """Y-Net with each classification loss at each balance, two seeds; the default is one of them."""
    found, defaults = [], {provenance.run_id(cfg): cfg for cfg in of((OURS,), seeds=(0, 1))}
    for loss in LOSSES:
        tuned = "ynet-circle" if loss == "circle" else OURS
        for a in (*BALANCES, "trainable"):
            how = {"balance_trainable": True} if a == "trainable" else {"balance": a}
            how["variant"] = f"a={a}" if loss == "pairwise" else f"{loss} a={a}"
            found += [cfg.but(method=OURS) for cfg in of((tuned,), seeds=(0, 1), loss=loss, **how)]
    # the point that is Y-Net itself bears Y-Net's name: one run has one name, whichever grid comes first
    return [defaults.get(provenance.run_id(cfg), cfg) for cfg in found]


def _phantom() -> list[Config]:
    rest = quick((*ABLATIONS, *RIVALS, *AGGREGATED), seeds=range(5))
    return quick(BOTH, seeds=range(5)) + quick(BOTH, seeds=range(5), confounding=0.0, variant="confounding=0") + rest


def _smaller(dataset: str, seeds: int) -> list[Config]:
    return _runs("full", dataset, (*BOTH, *BEST_RIVALS), FOLDS, range(seeds))


#: Grids in the order in which `make full` does them: what each holds, and its runs, most important first. On BUS-BRA ynet-rmac is
#: the same training as ynet (R-MAC is our aggregation in the full preset) and costs an evaluation.
GRIDS = {
    "phantom": ("every method in the quick preset, phantoms 0-4; Y-Net and its twin also without confounding", _phantom),
    "busbra-quick": ("what `make reproduce` does on BUS-BRA", lambda: _runs("quick", "busbra", (*BOTH, "ynet-rmac"))),
    "headline": ("BUS-BRA, Y-Net and its twin: 5 folds, 3 seeds", lambda: full((*BOTH, "ynet-rmac"), FOLDS, range(3))),
    "rivals": (
        "BUS-BRA, every rival: 5 folds, the three best with 2 seeds; all aggregations of a fold share one encoder",
        lambda: full((*RIVALS, *AGGREGATED), FOLDS) + full(BEST_RIVALS, FOLDS, (1,)),
    ),
    "losses": ("BUS-BRA, ablations of the losses and of the pooling: 5 folds", lambda: full(ABLATIONS, FOLDS)),
    "paper": (
        "BUS-BRA, the released network and ynet-paper: 5 folds, 3 seeds on fold 1",
        lambda: full(PAPER_METHODS, seeds=range(3)) + full(PAPER_METHODS, FOLDS[1:]),
    ),
    "bits": ("BUS-BRA, length of the code: fold 1, 2 seeds", lambda: bits(full)),
    "masks": ("BUS-BRA, how many outlines and how good: fold 1, 2 seeds", lambda: masks(full)),
    "balance": ("BUS-BRA, balance of the losses for each classification loss: fold 1, 2 seeds", lambda: balances(full)),
    "busbra-birads": (
        "BUS-BRA by BI-RADS: Y-Net, its twin, three rivals; 5 folds, 2 seeds",
        lambda: _smaller("busbra-birads", 2),
    ),
    "busi": ("the part of BUSI: the same, 3 seeds", lambda: _smaller("busi", 3)),
    "phantom-ablations": ("bits, masks and balance on phantoms 0 and 1", lambda: bits(quick) + masks(quick) + balances(quick)),
}


def grid(name: str) -> list[Config]:
    """The runs of a named grid, most important first. See `GRIDS` for what each holds."""
    if name not in GRIDS:
        raise ValueError(f"grid {name!r} is not known; known are {', '.join(GRIDS)}")
    return GRIDS[name][1]()
