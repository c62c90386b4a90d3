"""The methods: one row each, with what it changes, where it comes from and what was tuned for it. And the presets they stand on.

A new method is one row of `ALL`. Titles, tables, grids and tuning are queries of this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import losses

_RMAC = {"pooling": "rmac", "pool_levels": (5,)}

PRESETS: dict[str, dict] = {
    # shallow and longer: in the same time this ranks better than two blocks per stage
    "quick": {"blocks": 1, "epochs": 12, "validate_every": 4, "lr": 4e-3},
    # by validation (one seed): R-MAC of C5 ranked as high as lesion-weighted pooling of C4 and C5, or higher
    "full": _RMAC
    | {
        "size": 128,
        # by validation, per minute of training: the released stem (stride 4), one block a stage and more epochs ranked above
        # wider and deeper networks that are trained for fewer epochs (data/results/tuning)
        "stem": "conv7-pool",
        "blocks": 1,
        "planes": (24, 48, 96, 192),
        "epochs": 36,
        # the settings were chosen by validation; the committed runs train on every training case and keep the last epoch
        "validation": 0.0,
        "ema": 0.99,
        "flip_codes": True,
        "aug_rotate": 20.0,
        "aug_scale": 0.2,
        "aug_contrast": 0.3,
        "precision": "bfloat16",
    },
    # The released network and the recipe of the released script (Circle loss of scale 1; the notebooks use 32). Its oddities are
    # switched on by the method "released", and off in "ynet-paper".
    "paper": _RMAC
    | {
        "size": 256,
        "channels": 3,
        "stem": "conv7-pool",
        "block": "bottleneck",
        "planes": (8, 16, 32, 64),
        "descriptor": 512,
        "seg_features": "features",
        "loss": "circle",
        "circle_gamma": 1.0,
        "dice": False,
        "quant_weight": 0.0,
        "epochs": 12,
        "batch": 36,
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "clip_norm": 0.0,
        "precision": "bfloat16",
    },
}

#: `full` under the second edition's protocol, where every method is tuned anew: rows of the two are never mixed.
PRESETS["scratch"] = PRESETS["full"]

#: `full` with an encoder that starts from ImageNet weights: a third of the epochs, a lower rate.
PRESETS["pretrained"] = PRESETS["full"] | {
    "encoder": "lite0",
    "drop_path": 0.1,
    "epochs": 12,
    "lr": 1e-3,
    "pair_sharpness": 0.125,
    "precision": "float32",  # depthwise convolutions are slow in bfloat16
}

_RELEASED = {
    "code_input": "c5",
    "cls_target": "descriptor",
    "seg_activation": "relu",
    "same_class": "product",
    "augment": False,
    "validation": 0.0,
    "select": "train-loss",
}


@dataclass(frozen=True)
class Method:
    """One method.

    name : as in the result rows. title : as in tables and figures. changes : what it changes on top of its preset; an ablation is
    a weight of zero or one switch. kind : "ours", "part" (Y-Net with something taken away), "more" (something that only outlines
    can give), "paper" (always in the paper preset), "loss" (a deep hashing loss with our encoder and aggregation), "aggregation"
    (features of one shared encoder) or "frozen" (no training). source : the paper. parent : the method whose tuned settings it
    uses. tuned : by preset, what six validation trials chose (rows in data/results/first/tuning). without : what it lacks, in
    words; a pair where it depends on the pooling (inside the lesion, R-MAC).
    """

    name: str
    title: str
    changes: Mapping = field(default_factory=dict)
    kind: str = "part"
    source: str = ""
    parent: str = ""
    tuned: Mapping[str, Mapping] = field(default_factory=dict)
    without: str | tuple[str, str] = ""


def _tuned(name: str, full: tuple = (), quick: tuple = ()) -> dict[str, dict]:
    """The learning rate and the setting ``name`` that trials chose under these presets."""
    return {preset: {"lr": pair[0], name: pair[1]} for preset, pair in (("full", full), ("quick", quick)) if pair}


def _loss(name: str, *tuned: tuple, **more) -> Method:
    """A rival: "the same encoder, input and aggregation", its loss (and attention) in place of ours. ``tuned``: see `_tuned`."""
    loss, changes = losses.named(name), {"loss": name, "balance": 1.0, "quant_weight": 0.0} | _RMAC | more
    return Method(name, loss.title, changes, "loss", loss.source, tuned=_tuned(loss.scale, *tuned))


def _aggregations(name: str, title: str, source: str, tuned: Mapping | None = None) -> tuple[Method, Method]:
    """Two rows of one aggregation: ranked as real vectors, and as codes. All share one encoder, trained with cross-entropy on
    averaged features, with no code layer in the loss and the last epoch kept."""
    encoder = {"loss": "ce", "cls_target": "descriptor", "balance": 1.0, "quant_weight": 0.0, "pooling": "gap"}
    encoder |= {"pool_levels": (5,), "validation": 0.0, "aggregation": name}
    as_floats, as_codes = encoder | {"ranking": "descriptor"}, encoder | {"code_source": "itq"}
    return (
        Method(name, f"{title}, float", as_floats, "aggregation", source, "gap", tuned or {}),
        Method(f"{name}-itq", f"{title}, ITQ code", as_codes, "aggregation", source, "gap"),
    )


#: In the order of every table.
ALL: tuple[Method, ...] = (
    Method("ynet", "Y-Net (ours)", kind="ours", tuned=_tuned("cls_scale", (0.002, 1.0), (0.004, 4.0))),
    Method(
        "ynet-rmac",
        "segmentation loss, R-MAC",
        _RMAC,
        parent="ynet",
        without=("pooling inside the predicted lesion; R-MAC instead", "nothing: Y-Net pools by R-MAC here"),
    ),
    Method(
        "ynet-lesion",
        "pooling in the predicted lesion (C4, C5)",
        {"pooling": "lesion", "pool_levels": (4, 5)},
        parent="ynet",
        without=tuple(f"{what}; C4 and C5 pooled inside the predicted lesion instead" for what in ("the pooling", "R-MAC")),
    ),
    Method(
        "ynet-selfpool",
        "pooling learned without masks",
        {"balance": 1.0, "pooling": "selfpool"},
        tuned=_tuned("pair_sharpness", (0.0005, 0.125), (0.004, 0.125)),
        without=(
            "outlines; the same pooling, its weights learned without them",
            "outlines and R-MAC; pooling with weights learned without outlines instead",
        ),
    ),
    Method(
        "ynet-circle",
        "Circle loss, segmentation loss",
        {"loss": "circle"},
        tuned=_tuned("circle_gamma", (0.002, 8.0), (0.004, 8.0)),
        without="pairwise loss; the paper's Circle loss instead",
    ),
    Method("ynet-no-quant", "without quantisation loss", {"quant_weight": 0.0}, parent="ynet", without="quantisation loss"),
    Method(
        "ynet-no-seg",
        "twin: no segmentation",
        {"balance": 1.0} | _RMAC,
        tuned=_tuned("pair_sharpness", (0.0005, 0.125), (0.004, 0.5)),
        without=("outlines: segmentation loss and pooling inside the predicted lesion", "outlines: segmentation loss"),
    ),
    Method(
        "ynet-no-cls",
        "without classification loss",
        {"loss": "none", "balance": 0.0},
        parent="ynet",
        without="classification loss (a = 0)",
    ),
    Method("ynet-overlap", "pairs graded by overlap", {"loss": "overlap"}, "more"),
    Method(
        "ynet-rim",
        "lesion and rim beside the whole",
        {"pooling": "rmac+lesion+rim", "pool_levels": (4, 5), "code_halves": True},
        "more",
    ),
    Method("ynet-paper", "paper's network, code layer trained", {"quant_weight": 0.01}, "paper"),
    Method("released", "as released, float code", _RELEASED | {"ranking": "cosine"}, "paper"),
    Method("released-sign", "as released, sign of the code", _RELEASED | {"ranking": "hamming"}, "paper"),
    _loss("dsh", (0.002, 0.0625), (0.004, 1.0)),
    _loss("dpsh", (0.0005, 0.25), (0.004, 4.0)),
    _loss("drh", (0.0005, 1.0), (0.001, 0.25)),
    _loss("hashnet", (0.0005, 0.25), (0.004, 1.0)),
    _loss("csq", (0.002, 4.0), (0.004, 4.0)),
    _loss("orthohash", (0.002, 0.25), (0.004, 0.25), code_norm=True),  # its balance of bits
    _loss("ash", (0.002, 0.25), (0.004, 0.25), attention="spatial"),
    # its classifier stands beside the code layer
    _loss("ath", (0.0005, 1.0), (0.004, 1.0), attention="spatial-max", cls_target="descriptor"),
    *_aggregations(
        "gap",
        "GAP",
        "global average pooling; Babenko and Lempitsky, ICCV 2015, arXiv 1510.07493",
        {"full": {"lr": 0.004}, "quick": {"lr": 0.008}},
    ),
    *_aggregations("mac", "MAC", "global maximum pooling; Razavian et al., 2014, arXiv 1412.6574"),
    *_aggregations("rmac", "R-MAC", "Tolias, Sicre and Jegou, Regional Maximum Activations, ICLR 2016, arXiv 1511.05879"),
    *_aggregations("crow", "CroW", "Kalantidis et al., Cross-dimensional Weighting, ECCV workshops 2016, arXiv 1512.04065"),
    *_aggregations("cam", "CAM", "Jimenez et al., Class-Weighted Convolutional Features, BMVC 2017, arXiv 1707.02581"),
    *_aggregations("regional-attention", "regional attention", "Kim and Yoon, Regional Attention Based Deep Feature, BMVC 2018"),
    # what needs no training: features of photographs. The epoch only teaches a classifier that nothing reads
    Method(
        "frozen-itq",
        "frozen ImageNet encoder, ITQ code",
        {"encoder": "lite0", "frozen": 4, "size": 224, "epochs": 1, "augment": False, "validation": 0.0, "precision": "float32"}
        | {"loss": "ce", "cls_target": "descriptor", "balance": 1.0, "quant_weight": 0.0, "pooling": "gap", "pool_levels": (5,)}
        | {"aggregation": "gap", "code_source": "itq"},
        "frozen",
    ),
)

BY_NAME = {method.name: method for method in ALL}

#: What all is about, and the same network without outlines: the comparison that says what outlines add.
OURS, TWIN = "ynet", "ynet-no-seg"


def title(method: str) -> str:
    """How a method is called in tables and figures; ``+seg``: a rival with the segmentation loss beside its own."""
    own = BY_NAME[method.removesuffix("+seg")].title
    return f"{own} + outlines" if method.endswith("+seg") else own


def reads_outlines(method: str) -> bool:
    """Whether a method learns from outlines: a weight of 1 leaves nothing to the segmentation loss."""
    return method.endswith("+seg") or BY_NAME[method].changes.get("balance") != 1.0


def names(kind: str) -> tuple[str, ...]:
    """Names of the methods of one kind, in the order of the table."""
    return tuple(method.name for method in ALL if method.kind == kind)


def tuned(preset: str, name: str) -> Mapping:
    """What trials chose for a method, or for its parent, under a preset; empty where nothing was tuned."""
    method = BY_NAME[name]
    return BY_NAME[method.parent or name].tuned.get(preset, {})


METHODS = {method.name: method.changes for method in ALL}
#: Titles in the order of every table; a rival with outlines stands behind the rival.
METHOD_NAMES = {name: title(name) for m in ALL for name in (m.name, *[f"{m.name}+seg"] * (m.kind in ("loss", "aggregation")))}
#: Deep hashing losses that stand in the place of ours, aggregations of one shared encoder, and what always has the paper preset.
RIVALS, PAPER_METHODS = names("loss"), names("paper")
AGGREGATED = names("aggregation")
AGGREGATIONS = tuple(name for name in AGGREGATED if not name.endswith("-itq"))
