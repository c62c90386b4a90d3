"""The planned runs: every grid of configurations behind a published number."""

from __future__ import annotations

from .. import provenance
from ..config import Config
from ..methods import AGGREGATED, PAPER_METHODS, RIVALS

FOLDS = (1, 2, 3, 4, 5)

#: The balance a of the unified loss; "trainable" starts at .5.
BALANCES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

#: Own settings of each classification loss beside the default one, for the scan of the balance.
LOSSES = ("pairwise", "circle", "ce", "centres")

BITS = (8, 16, 32, 128)

MASK_SHARES = (0.0, 0.1, 0.25, 0.5)

MASK_QUALITIES = ("dilated", "eroded", "box", "shifted")

ABLATIONS = ("ynet-rmac", "ynet-lesion", "ynet-selfpool", "ynet-no-cls", "ynet-no-quant", "ynet-circle")


#: The rivals that are also run on the smaller sets: the three that ranked best on folds 2-5 of BUS-BRA.
BEST_RIVALS = ("hashnet", "dpsh", "ath")


def _balances(preset: str, dataset: str, seeds) -> list[Config]:
    found = []
    for loss in LOSSES:
        tuned = "ynet-circle" if loss == "circle" else "ynet"
        for a in (*BALANCES, "trainable"):
            for seed in seeds:
                name = f"a={a}" if loss == "pairwise" else f"{loss} a={a}"
                how = {"balance_trainable": True} if a == "trainable" else {"balance": a}
                cfg = Config.from_preset(preset, dataset, tuned, loss=loss, variant=name, seed=seed, **how).but(method="ynet")
                default = Config.from_preset(preset, dataset, seed=seed)
                # the point that is Y-Net itself bears Y-Net's name: one run has one name, whichever grid comes first
                found.append(default if provenance.run_id(cfg) == provenance.run_id(default) else cfg)
    return found


def _other_ablations(preset: str, dataset: str, seeds) -> dict[str, list[Config]]:
    def of(method: str, variant: str, **changes) -> list[Config]:
        return [Config.from_preset(preset, dataset, method, variant=variant, seed=s, **changes) for s in seeds]

    bits = [cfg for b in BITS for m in ("ynet", "ynet-no-seg") for cfg in of(m, f"bits={b}", bits=b)]
    masks = [cfg for share in MASK_SHARES for cfg in of("ynet", f"masks={share:.0%}", mask_share=share)]
    masks += [cfg for quality in MASK_QUALITIES for cfg in of("ynet", f"masks {quality}", mask_quality=quality)]
    return {"bits": bits, "masks": masks, "balance": _balances(preset, dataset, seeds)}


def grid(name: str) -> list[Config]:
    """The runs of a named grid, most important first. See `GRIDS` for what each holds."""
    if name == "phantom":
        methods = ("ynet", "ynet-no-seg", *ABLATIONS, *RIVALS, *AGGREGATED)
        main = [Config.from_preset(method=m, seed=s) for m in methods for s in range(5)]
        plain = [
            Config.from_preset(method=m, seed=s, confounding=0.0, variant="confounding=0")
            for m in ("ynet", "ynet-no-seg")
            for s in range(5)
        ]
        return main[:10] + plain + main[10:]
    if name == "phantom-ablations":
        return [cfg for part in _other_ablations("quick", "phantom", (0, 1)).values() for cfg in part]
    if name == "busbra-quick":
        return [Config.from_preset("quick", "busbra", m) for m in ("ynet", "ynet-no-seg", "ynet-rmac")]
    if name == "headline":
        order = [(s, f) for s in range(3) for f in FOLDS]
        # ynet-rmac is the same training as ynet here (R-MAC is our aggregation in this preset) and costs an evaluation
        methods = ("ynet", "ynet-rmac", "ynet-no-seg")
        return [Config.from_preset("full", "busbra", m, fold=f, seed=s) for s, f in order for m in methods]
    if name == "rivals":
        methods = (*RIVALS, *AGGREGATED)
        again = [Config.from_preset("full", "busbra", m, fold=f, seed=1) for f in FOLDS for m in BEST_RIVALS]
        return [Config.from_preset("full", "busbra", m, fold=f) for f in FOLDS for m in methods] + again
    if name == "losses":
        return [Config.from_preset("full", "busbra", m, fold=f) for f in FOLDS for m in ABLATIONS]
    if name == "paper":
        runs = [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (4, 0), (5, 0)]
        return [Config.from_preset("full", "busbra", m, fold=f, seed=s) for f, s in runs for m in PAPER_METHODS]
    if name in ("bits", "masks", "balance"):
        return _other_ablations("full", "busbra", (0, 1))[name]
    if name in ("busbra-birads", "busi"):
        methods = ("ynet", "ynet-no-seg", *BEST_RIVALS)
        seeds = {"busbra-birads": 2, "busi": 3}[name]
        return [Config.from_preset("full", name, m, fold=f, seed=s) for s in range(seeds) for f in FOLDS for m in methods]
    raise ValueError(f"grid {name!r} is not known; known are {', '.join(GRIDS)}")


#: Grids in the order in which `make full` does them.
GRIDS = {
    "phantom": "every method in the quick preset, phantoms 0-4; Y-Net and its twin also without confounding",
    "busbra-quick": "what `make reproduce` does on BUS-BRA",
    "headline": "BUS-BRA, Y-Net and its twin: 5 folds, 3 seeds",
    "rivals": "BUS-BRA, every rival: 5 folds, the three best with 2 seeds; all aggregations of a fold share one encoder",
    "losses": "BUS-BRA, ablations of the losses and of the pooling: 5 folds",
    "paper": "BUS-BRA, the released network and ynet-paper: 5 folds, 3 seeds on fold 1",
    "bits": "BUS-BRA, length of the code: fold 1, 2 seeds",
    "masks": "BUS-BRA, how many outlines and how good: fold 1, 2 seeds",
    "balance": "BUS-BRA, balance of the two losses for each classification loss: fold 1, 2 seeds",
    "busbra-birads": "BUS-BRA by BI-RADS: Y-Net, its twin, three rivals; 5 folds, 2 seeds",
    "busi": "the part of BUSI: the same, 3 seeds",
    "phantom-ablations": "bits, masks and balance on phantoms 0 and 1",
}
