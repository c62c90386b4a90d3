"""The second edition: its trials and its runs, as ``docs/protocol.md`` fixes them. ``python -m ynet_lite.paper.second --list``

A trial is an ordinary run on the development fold. Its rows are those of any run; its variant names the settings that were tried.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .. import losses, paths, provenance
from ..config import Config
from ..methods import METHODS, OURS, PRESETS, TWIN
from . import store
from .run import done, run_all
from .select import HEADLINE_FOLDS

DEVELOPMENT_FOLD = 1


class Part(NamedTuple):
    """Methods whose grids belong together: set, preset, seeds of trials, seeds and folds of runs, share of the labels.

    ``single``: methods with trials of their own, but one seed. ``changes``: what else is not as in the preset, as pairs.
    """

    dataset: str
    preset: str
    methods: tuple[str, ...]
    trial_seeds: tuple[int, ...] = (100,)
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: tuple[int, ...] = HEADLINE_FOLDS
    share: float = 1.0
    changes: tuple[tuple[str, float], ...] = ()
    single: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """The variant of its runs: ``labels=10%``, "" with all labels."""
        return f"labels={self.share:.0%}" if self.share < 1 else ""


PARTS = {
    "busi": Part("busi", "scratch", (TWIN, OURS, "dpsh", "hashnet", "ath"), (100, 101, 102)),
    "pretrained": Part(
        "busbra",
        "pretrained",
        (TWIN, OURS, "hashnet", "hashnet+seg", "gap-itq"),
        single=("ynet-overlap", "ynet-rim", "orthohash", "ynet-circle", "gap-itq+seg"),
    ),
    "scratch": Part("busbra", "scratch", (TWIN, OURS, "hashnet", "hashnet+seg")),
    "phantom": Part("phantom", "quick", ()),  # for methods that are named: a loss of one's own, in minutes
}
PARTS |= {
    f"{preset}-{percent}": Part("busbra", preset, (TWIN, OURS), seeds=seeds, share=percent / 100)
    for preset, seeds in (("scratch", (0, 1)), ("pretrained", (0,)))
    for percent in (10, 25, 50)
}
PARTS |= {  # each seed draws another phantom
    f"phantom-{percent}": Part(
        "phantom", "quick", (TWIN, OURS), (100,), (0, 1, 2, 3, 4), (1,), share=percent / 100, changes=(("validation", 0.0),)
    )
    for percent in (10, 25, 50, 100)
}

#: Where grids start: rates by preset, the parameter by its name; and by what factor their steps go.
START = {"pair_sharpness": 0.125, "rival_scale": 0.5, "": 0.0}
RATE = {"scratch": 2e-3, "pretrained": 1e-3, "quick": 4e-3}
RATE_STEP, PARAMETER_STEP = 2.0, 4.0


def hangs_on(method: str) -> str:
    """The one parameter that a method's loss hangs on most; "" where only the rate is tried."""
    return losses.named(METHODS[method.removesuffix("+seg")].get("loss", "pairwise")).scale


def configuration(part: str, method: str, rate: float, parameter: float, **changes) -> Config:
    """One method of a part at one point of its grid; ``hashnet+seg``: HashNet's loss and the segmentation loss, half and half."""
    one, base = PARTS[part], method.removesuffix("+seg")
    settings = {**dict(one.changes), "lr": float(f"{rate:.4g}"), "label_share": one.share, "variant": one.variant}
    if name := hangs_on(method):
        settings[name] = float(f"{parameter:.4g}")
    if base != method:
        settings["balance"] = 0.5
    return Config.from_preset(one.preset, one.dataset, base, **(settings | changes)).but(method=method)


def trial(part: str, method: str, place: tuple[int, int], seed: int) -> Config:
    """The trial at ``place``, steps of (rate, parameter) from where the grid starts."""
    name = hangs_on(method)
    rate = RATE[PARTS[part].preset] * RATE_STEP ** place[0]
    parameter = START.get(name, getattr(Config, name, 0.0)) * PARAMETER_STEP ** place[1]
    cfg = configuration(part, method, rate, parameter, fold=DEVELOPMENT_FOLD, seed=seed)
    tried = (f"{key}={getattr(cfg, key):g}" for key in ("lr", name) if key)
    return cfg.but(variant=" ".join(filter(None, ("trial", cfg.variant, *tried))))


#: The winners of finished trials, (rate, parameter): what the runs of each part are made with.
CHOSEN: dict[str, dict[str, tuple[float, float]]] = {
    "busi": {OURS: (0.002, 0.5), TWIN: (0.004, 0.5), "dpsh": (0.002, 2.0), "hashnet": (0.002, 0.5), "ath": (0.001, 0.5)},
    "scratch": {OURS: (0.001, 0.5), TWIN: (0.002, 0.5), "hashnet": (0.0005, 0.5), "hashnet+seg": (0.002, 2.0)},
    "scratch-10": {OURS: (0.008, 0.5), TWIN: (0.001, 8.0)},
    "pretrained": {
        OURS: (0.002, 2.0),
        TWIN: (0.001, 0.125),
        "hashnet": (0.001, 2.0),
        "hashnet+seg": (0.0005, 0.5),
        "gap-itq": (0.002, 0.0),
    },
    "phantom-10": {OURS: (0.008, 2.0), TWIN: (0.008, 2.0)},
    "phantom-25": {OURS: (0.004, 0.5), TWIN: (0.002, 2.0)},
    "phantom-50": {OURS: (0.016, 0.5), TWIN: (0.002, 0.5)},
    "phantom-100": {OURS: (0.008, 0.5), TWIN: (0.004, 2.0)},
}


def runs(part: str) -> list[Config]:
    """The reported runs of a part whose trials are finished: every method on every fold and seed, or the first seed."""
    return [
        configuration(part, method, *settings, fold=fold, seed=seed)
        for seed in PARTS[part].seeds
        for fold in PARTS[part].folds
        for method, settings in CHOSEN.get(part, {}).items()
        if seed == PARTS[part].seeds[0] or method not in PARTS[part].single
    ]


#: Trainings on data that something was taken from, by variant: methods, and what changes (`.controls`). One seed.
CONTROLS = {name: ((TWIN,), {"control": name}) for name in ("labels shuffled", "lesion blanked", "background blanked")}
OUTLINES = {"masks other": ((OURS,), {"control": "masks other"}), "masks box": ((OURS,), {"mask_quality": "box"})}


#: A method without outlines at the settings of the same with outlines: how much of a gain is the settings?
SAME = {"settings of ynet": ((TWIN,), {}), "settings of hashnet+seg": (("hashnet",), {})}
#: The twin with twice the epochs: does it lack time?
LONGER = {"epochs x2": ((TWIN,), {"epochs": 2 * PRESETS["pretrained"]["epochs"]})}
#: One split by scanner; the development fold is left out.
BY_SCANNER = {"control": "scanner", "fold": DEVELOPMENT_FOLD}
SCANNER = {"scanner unseen": ((OURS, TWIN), BY_SCANNER), "scanner unseen, settings of ynet": ((TWIN,), BY_SCANNER)}


def varied(part: str, changes: dict[str, tuple[tuple[str, ...], dict]], seeds=(0,)) -> list[Config]:
    """The runs of `CONTROLS` and the like on BUS-BRA, folds 2 to 5 if they name none, for methods whose trials are finished.

    A variant that ends in ``settings of`` a method has that method's settings.
    """
    settings = CHOSEN.get(part, {}) if PARTS[part].dataset == "busbra" and PARTS[part].share == 1 else {}
    return [
        configuration(part, method, *settings[whose], seed=seed, variant=variant, **more)
        for seed in seeds
        for variant, (methods, changed) in changes.items()
        for more in ([changed] if "fold" in changed else [{"fold": fold} | changed for fold in PARTS[part].folds])
        for method in methods
        if (whose := variant.partition("settings of ")[2] or method) in settings
    ]


#: The better of the two last levels of the frozen encoder, by its two trials.
FROZEN_LEVEL = 5


def frozen(part: str) -> list[Config]:
    """The pretrained encoder as it comes, with ITQ: one trial per level, then folds 2 to 5."""
    if part != "pretrained":
        return []
    base = Config.from_preset("pretrained", "busbra", "frozen-itq")
    tried = [base.but(pool_levels=(n,), fold=DEVELOPMENT_FOLD, seed=100, variant=f"trial pool_levels={n}") for n in (4, 5)]
    return tried + [
        base.but(pool_levels=(FROZEN_LEVEL,), fold=fold, seed=seed) for seed in PARTS[part].seeds for fold in HEADLINE_FOLDS
    ]


#: What ``python -m ynet_lite.paper.second --<name>`` runs of a part: in words, and its configurations.
PLANS = {
    "runs": ("reported runs", runs),
    "frozen": ("trials and runs of the frozen encoder", frozen),
    "controls": ("leak controls", partial(varied, changes=CONTROLS)),
    "outlines": ("runs with outlines of another image or boxes", partial(varied, changes=OUTLINES)),
    "scanner": ("runs in which one scanner asks networks that never saw it", partial(varied, changes=SCANNER, seeds=(0, 1))),
    "longer": ("runs of the twin with doubled epochs", lambda part: varied(part, LONGER) if part == "pretrained" else []),
    "same": ("runs without outlines at the settings of those with", partial(varied, changes=SAME)),
}


def first_grid(method: str) -> list[tuple[int, int]]:
    """Where every grid starts: three rates by three parameters, or three rates."""
    return [(i, j) for i in (-1, 0, 1) for j in ((-1, 0, 1) if hangs_on(method) else (0,))]


def best(scores: dict[tuple[int, int], float]) -> tuple[int, int]:
    """The place with the highest score; a tie goes to the smaller rate, then to the smaller parameter."""
    return min(scores, key=lambda place: (-scores[place], place))


def beyond(places, winner: tuple[int, int]) -> list[tuple[int, int]]:
    """Places still missing around a winner at an edge: the next row or column of the grid; empty where it lies inside."""
    rows, columns = sorted({i for i, _ in places}), sorted({j for _, j in places})
    wanted = set()
    for axis, values in ((0, rows), (1, columns)):
        if len(values) < 2 or winner[axis] not in (values[0], values[-1]):
            continue
        new = winner[axis] + (1 if winner[axis] == values[-1] else -1)
        wanted |= {(new, j) for j in columns} if axis == 0 else {(i, new) for i in rows}
    return sorted(wanted - set(places))


def known(part: str, cfg: Config, folder: Path) -> float | None:
    """NDCG@10 of a trial that is committed or lies in ``folder``; None where it is still to be done."""
    kept, run = kept_trials(part).set_index("run_id")["ndcg@10"], provenance.run_id(cfg)
    if run in kept.index:
        return float(kept[run])
    if not done(cfg, folder):
        return None
    return float(store.read_run(folder / "runs" / f"{run}.csv").set_index(["metric", "k"])["value"]["ndcg", 10])


def search(part: str, method: str, folder: Path, jobs: int | None = 1) -> dict[tuple[int, int], float]:
    """Run the grid of a method until its winner lies inside; {place: mean NDCG@10 over the trial seeds}.

    ``jobs`` None: runs nothing, and has the places of which all trials are known.
    """
    scores, places = {}, first_grid(method)
    while places:
        trials = {place: [trial(part, method, place, seed) for seed in PARTS[part].trial_seeds] for place in places}
        if jobs is not None:
            missing = [cfg for configs in trials.values() for cfg in configs if known(part, cfg, folder) is None]
            run_all(missing, folder, jobs, f"{part} {method}")
        for place, configs in trials.items():
            found = [known(part, cfg, folder) for cfg in configs]
            if None not in found:
                scores[place] = sum(found) / len(found)
        places = beyond(scores, best(scores)) if set(places) <= set(scores) else []
    return scores


def table(part: str, folder: Path) -> pd.DataFrame:
    """What is known of the trials of a part: one line per method and place, with NDCG@10 and whether it won."""
    lines = []
    for method in PARTS[part].methods + PARTS[part].single:
        scores = search(part, method, folder, jobs=None)
        for place, value in sorted(scores.items()):
            won = place == best(scores) and not beyond(scores, place)
            lines.append((part, method, trial(part, method, place, 0).variant, value, won))
    return pd.DataFrame(lines, columns=["part", "method", "settings", "ndcg@10", "won"])


#: Columns of the committed trials.
TRIAL = (
    "part run_id config_hash fingerprint method variant fold seed ndcg@10 map@10 precision@10 mask_agreement@10 "
    "device versions commit dirty date"
).split()


def trial_rows(part: str, folder: Path) -> pd.DataFrame:
    """The committed and the finished trials of a part: one row per trial and seed, with its settings and scores."""
    one, rows = PARTS[part], store.read_runs(folder)
    share = rows["variant"].str.extract(r"(labels=\d+%)", expand=False).fillna("")
    own = (rows["dataset"] == one.dataset) & (rows["preset"] == one.preset) & (share == one.variant)
    rows = rows[own & rows["variant"].str.startswith("trial") & (rows["k"] == 10)]
    scores = rows.assign(metric=rows["metric"] + "@10").pivot(index="run_id", columns="metric", values="value")
    new = rows.drop_duplicates("run_id").merge(scores, on="run_id").assign(part=part)
    found = [trials for trials in (kept_trials(part), new) if len(trials)]
    table = pd.concat(found)[TRIAL].drop_duplicates("run_id")  # the committed one stays
    return table.sort_values(["method", "variant", "seed"], ignore_index=True)


def kept_trials(part: str) -> pd.DataFrame:
    """The committed trials of a part; empty where there are none."""
    path = paths.results() / "second" / f"trials-{part}.csv"
    return pd.read_csv(path, dtype=store.TEXT) if path.is_file() else pd.DataFrame({"run_id": [], "ndcg@10": []})


def main(argv: list[str] | None = None) -> int:
    """Run the trials of the named parts, resumable; ``--list`` shows what they say so far."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.second", description=main.__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"which parts (default: {' '.join(PARTS)})")
    parser.add_argument("--methods", nargs="*", help="only these methods")
    for name, (text, _) in PLANS.items():
        help_ = f"do the {text} of the parts whose trials are finished"
        parser.add_argument(f"--{name}", dest="plan", action="store_const", const=name, help=help_)
    parser.add_argument("--list", action="store_true", help="show the trials that are done, run nothing")
    parser.add_argument("--keep", action="store_true", help="write the finished trials into the committed results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    given = parser.parse_args(argv)
    for part in given.parts:
        if given.keep:
            print(paths.write_csv(trial_rows(part, given.folder), paths.results() / "second" / f"trials-{part}.csv"))
        elif given.list:
            print(table(part, given.folder).to_string(index=False))
        elif given.plan:
            kept = {*store.rows("second")["run_id"], *kept_trials(part)["run_id"]}
            configs = [cfg for cfg in PLANS[given.plan][1](part) if provenance.run_id(cfg) not in kept]
            run_all([cfg for cfg in configs if not done(cfg, given.folder)], given.folder, given.jobs, f"{part} {given.plan}")
        else:
            for method in given.methods or PARTS[part].methods + PARTS[part].single:
                scores = search(part, method, given.folder, given.jobs)
                won = best(scores)
                print(f"{part} {method}: {trial(part, method, won, 0).variant}, NDCG@10 {scores[won]:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
