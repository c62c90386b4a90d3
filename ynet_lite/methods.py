"""The methods: what each changes, what was tuned for it and what it is called."""

from __future__ import annotations

POOLINGS = ("rmac", "gap", "mac", "lesion", "selfpool")

#: Deep hashing losses of `ynet_lite.losses`.
RIVALS = ("dsh", "dpsh", "drh", "hashnet", "csq", "orthohash", "ash", "ath")

#: Aggregations of C5 of one encoder that was trained for classification.
AGGREGATIONS = ("gap", "mac", "rmac", "crow", "cam", "regional-attention")

PRESETS: dict[str, dict] = {
    # shallow and longer: in the same time this ranks better than two blocks per stage
    "quick": {"blocks": 1, "epochs": 12, "validate_every": 4, "lr": 4e-3},
    "full": {
        "size": 128,
        # by validation, per minute of training: the released stem (stride 4), one block a stage and more epochs ranked above
        # wider and deeper networks that are trained for fewer epochs (data/results/tuning)
        "stem": "conv7-pool",
        "blocks": 1,
        "planes": (24, 48, 96, 192),
        # by validation (one seed): R-MAC of C5 ranked as high as lesion-weighted pooling of C4 and C5, or higher
        "pooling": "rmac",
        "pool_levels": (5,),
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
    "paper": {
        "size": 256,
        "channels": 3,
        "stem": "conv7-pool",
        "block": "bottleneck",
        "planes": (8, 16, 32, 64),
        "fpn": 32,
        "descriptor": 512,
        "seg_features": "features",
        "pooling": "rmac",
        "pool_levels": (5,),
        "cls_loss": "circle",
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

#: What each method changes on top of its preset. An ablation is a weight of zero or one switch.
METHODS: dict[str, dict] = {
    "ynet": {},
    "ynet-no-seg": {"balance": 1.0, "pooling": "rmac", "pool_levels": (5,)},
    "ynet-rmac": {"pooling": "rmac", "pool_levels": (5,)},
    "ynet-lesion": {"pooling": "lesion", "pool_levels": (4, 5)},
    "ynet-selfpool": {"balance": 1.0, "pooling": "selfpool"},
    "ynet-no-cls": {"cls_loss": "none", "balance": 0.0},
    "ynet-no-quant": {"quant_weight": 0.0},
    "ynet-circle": {"cls_loss": "circle"},
    "ynet-paper": {"quant_weight": 0.01},
    "released": _RELEASED | {"ranking": "cosine"},
    "released-sign": _RELEASED | {"ranking": "hamming"},
}

# "The same encoder, input and aggregation": a deep hashing rival is its loss (and attention) in the place of ours.
METHODS |= {
    name: {"rival": name, "cls_loss": "none", "balance": 1.0, "quant_weight": 0.0, "pooling": "rmac", "pool_levels": (5,)}
    for name in RIVALS
}

METHODS["orthohash"] |= {"code_norm": True}  # its balance of bits

METHODS["ash"] |= {"attention": "spatial"}

METHODS["ath"] |= {"attention": "spatial-max", "cls_target": "descriptor"}  # its classifier stands beside the code layer

#: The encoder that all aggregations share: cross-entropy on averaged features, no code layer in the loss, the last epoch kept.
ENCODER = {
    "cls_loss": "ce",
    "cls_target": "descriptor",
    "balance": 1.0,
    "quant_weight": 0.0,
    "pooling": "gap",
    "pool_levels": (5,),
    "validation": 0.0,
}

for _name in AGGREGATIONS:
    METHODS[_name] = ENCODER | {"aggregation": _name, "ranking": "descriptor"}
    METHODS[f"{_name}-itq"] = ENCODER | {"aggregation": _name, "code_source": "itq"}

#: What six validation trials a method chose (`ynet_lite.paper.tuning --choose`, rows in data/results/tuning/trials), so that
#: no method runs with another's settings to its harm.
TUNED: dict[tuple[str, str], dict] = {
    ("full", "ash"): {"lr": 0.002, "rival_scale": 0.25},
    ("full", "ath"): {"lr": 0.0005, "rival_scale": 1.0},
    ("full", "csq"): {"lr": 0.002, "rival_scale": 4.0},
    ("full", "dpsh"): {"lr": 0.0005, "rival_scale": 0.25},
    ("full", "drh"): {"lr": 0.0005, "rival_scale": 1.0},
    ("full", "dsh"): {"lr": 0.002, "rival_scale": 0.0625},
    ("full", "gap"): {"lr": 0.004},
    ("full", "hashnet"): {"lr": 0.0005, "rival_scale": 0.25},
    ("full", "orthohash"): {"lr": 0.002, "rival_scale": 0.25},
    ("full", "ynet"): {"lr": 0.002, "cls_scale": 1.0},
    ("full", "ynet-circle"): {"lr": 0.002, "circle_gamma": 8.0},
    ("full", "ynet-no-seg"): {"lr": 0.0005, "pair_sharpness": 0.125},
    ("full", "ynet-selfpool"): {"lr": 0.0005, "pair_sharpness": 0.125},
    ("quick", "ash"): {"lr": 0.004, "rival_scale": 0.25},
    ("quick", "ath"): {"lr": 0.004, "rival_scale": 1.0},
    ("quick", "csq"): {"lr": 0.004, "rival_scale": 4.0},
    ("quick", "dpsh"): {"lr": 0.004, "rival_scale": 4.0},
    ("quick", "drh"): {"lr": 0.001, "rival_scale": 0.25},
    ("quick", "dsh"): {"lr": 0.004, "rival_scale": 1.0},
    ("quick", "gap"): {"lr": 0.008},
    ("quick", "hashnet"): {"lr": 0.004, "rival_scale": 1.0},
    ("quick", "orthohash"): {"lr": 0.004, "rival_scale": 0.25},
    ("quick", "ynet"): {"lr": 0.004, "cls_scale": 4.0},
    ("quick", "ynet-circle"): {"lr": 0.004, "circle_gamma": 8.0},
    ("quick", "ynet-no-seg"): {"lr": 0.004, "pair_sharpness": 0.5},
    ("quick", "ynet-selfpool"): {"lr": 0.004, "pair_sharpness": 0.125},
}

#: Ablations that use the settings of the method they were cut from, and aggregations, which share one encoder.
PARENT = {"ynet-rmac": "ynet", "ynet-lesion": "ynet", "ynet-no-cls": "ynet", "ynet-no-quant": "ynet"}

PARENT |= {f"{name}{tail}": "gap" for name in AGGREGATIONS for tail in ("", "-itq")}

#: Methods that always use the paper preset.
PAPER_METHODS = ("ynet-paper", "released", "released-sign")

#: How methods are called in figures and tables, in the order of every table.
METHOD_NAMES = {
    "ynet": "Y-Net (ours)",
    "ynet-rmac": "segmentation loss, R-MAC",
    "ynet-lesion": "pooling in the predicted lesion (C4, C5)",
    "ynet-selfpool": "pooling learned without masks",
    "ynet-circle": "Circle loss, segmentation loss",
    "ynet-no-quant": "without quantisation loss",
    "ynet-no-seg": "twin: no segmentation",
    "ynet-no-cls": "without classification loss",
    "ynet-paper": "paper's network, code layer trained",
    "released": "as released, float code",
    "released-sign": "as released, sign of the code",
    "dsh": "DSH",
    "dpsh": "DPSH",
    "drh": "DRH",
    "hashnet": "HashNet",
    "csq": "CSQ",
    "orthohash": "OrthoHash",
    "ash": "ASH",
    "ath": "ATH",
}

METHOD_NAMES |= {
    f"{name}{tail}": f"{shown}, {'ITQ code' if tail else 'float'}"
    for name, shown in (
        ("gap", "GAP"),
        ("mac", "MAC"),
        ("rmac", "R-MAC"),
        ("crow", "CroW"),
        ("cam", "CAM"),
        ("regional-attention", "regional attention"),
    )
    for tail in ("", "-itq")
}

#: Method name as in the result rows -> where it comes from.
SOURCES: dict[str, str] = {
    "dsh": "Liu et al., Deep Supervised Hashing, CVPR 2016",
    "dpsh": "Li et al., Deep Pairwise-Supervised Hashing, IJCAI 2016, arXiv 1511.03855",
    "drh": "Conjeti et al., Deep Residual Hashing, MICCAI 2017, arXiv 1612.05400",
    "hashnet": "Cao et al., HashNet, ICCV 2017, arXiv 1702.00758",
    "csq": "Yuan et al., Central Similarity Quantization, CVPR 2020, arXiv 1908.00347",
    "orthohash": "Hoe et al., One Loss for All, NeurIPS 2021, arXiv 2109.14449",
    "ash": "Fang et al., Attention-based Saliency Hashing, BIBM 2020, arXiv 2012.03466",
    "ath": "Fang et al., Attention-based Triplet Hashing, Medical Image Analysis 2021, arXiv 2101.12346",
    "gap": "global average pooling; Babenko and Lempitsky, ICCV 2015, arXiv 1510.07493",
    "mac": "global maximum pooling; Razavian et al., 2014, arXiv 1412.6574",
    "rmac": "Tolias, Sicre and Jegou, Regional Maximum Activations, ICLR 2016, arXiv 1511.05879",
    "crow": "Kalantidis et al., Cross-dimensional Weighting, ECCV workshops 2016, arXiv 1512.04065",
    "cam": "Jimenez et al., Class-Weighted Convolutional Features, BMVC 2017, arXiv 1707.02581",
    "regional-attention": "Kim and Yoon, Regional Attention Based Deep Feature, BMVC 2018",
}
