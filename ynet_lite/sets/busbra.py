"""BUS-BRA in its original layout, as a manifest: labelled by pathology or by BI-RADS category."""

from functools import partial

import numpy as np
import pandas as pd

from ..cases.manifest import ManifestError, first_few
from .folders import DataSet, find, load_folder, read_columns


def busbra(data_dir=None, label: str = "pathology") -> pd.DataFrame:
    """Manifest of BUS-BRA: 1,875 images of 1,064 patients, official five folds, one outline per image.

    ``label`` is ``pathology`` (benign / malignant, proven by biopsy) or ``birads`` (``BI-RADS 2`` .. ``BI-RADS 5``). ``group`` is
    the patient (``Case``), ``fold`` the ``kFold`` column; the ``valid_*`` columns divide patients and are not read, and neither
    is the lesion box. Raises ``FileNotFoundError`` (see `find`) or `ManifestError` when the two tables do not fit each other.

    Source: Gomez-Flores, Gregorio-Calas, Pereira, Medical Physics 51 (2024) 3110-3123, DOI 10.5281/zenodo.7730709.
    """
    if label not in ("pathology", "birads"):
        raise ValueError(f"busbra: label must be 'pathology' or 'birads', got {label!r}")
    folder = find(BUSBRA, data_dir)
    cases = read_columns(folder / "bus_data.csv", ["ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side"])
    folds = read_columns(folder / "5-fold-cv.csv", ["ID", "kFold"])
    odd = sorted(set(cases["ID"]) ^ set(folds["ID"]))
    if odd or folds["ID"].duplicated().any():
        raise ManifestError(
            f"busbra: bus_data.csv and 5-fold-cv.csv must list the same cases once; they differ in {first_few(odd)}"
        )
    return pd.DataFrame(
        {
            "case_id": cases["ID"],
            "image": [str(folder / "Images" / f"{case}.png") for case in cases["ID"]],
            "mask": [str(folder / "Masks" / f"mask_{case.removeprefix('bus_')}.png") for case in cases["ID"]],
            "label": cases["Pathology"] if label == "pathology" else "BI-RADS " + cases["BIRADS"],
            "group": cases["Case"],
            "fold": cases["ID"].map(folds.set_index("ID")["kFold"]).astype(np.int64),
            **{column.lower(): cases[column] for column in ("Pathology", "BIRADS", "Histology", "Device", "Side")},
        }
    )


_FILES = {
    "folders": ("busbra", "BUSBRA", "BUS-BRA"),
    "inside": ("bus_data.csv", "5-fold-cv.csv", "Images", "Masks"),
    "how_to_get": "`python -m ynet_lite.sets.download busbra` fetches it (134 MB, DOI 10.5281/zenodo.7730709)",
    "kept": "busbra",
}

BUSBRA = DataSet("busbra", "BUS-BRA", lambda cfg: load_folder(BUSBRA, cfg, busbra, finer=("birads",)), **_FILES)

BUSBRA_BIRADS = DataSet(
    "busbra-birads",
    "BUS-BRA by BI-RADS",
    lambda cfg: load_folder(BUSBRA_BIRADS, cfg, partial(busbra, label="birads"), finer=("pathology",)),
    **_FILES,
)
