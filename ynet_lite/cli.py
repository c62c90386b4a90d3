"""The command ``ynet``: an archive of images becomes an index that answers. Also ``python -m ynet_lite``."""

import json
import warnings
from pathlib import Path

import click
import pandas as pd

from .hashing import BITS
from .index import FAR, Added, Index
from .own import train_own
from .search import SHIPPED
from .viewer.gallery import write_gallery


class _Commands(click.Group):
    """Expected mistakes end in one line and exit code 1, those of the command line itself in 2."""

    def invoke(self, context):
        warnings.showwarning = lambda message, *_: click.echo(f"ynet: {message}", err=True)
        try:
            return super().invoke(context)
        except (ValueError, OSError, KeyError, ImportError) as error:
            click.echo(f"ynet: {error.args[0] if isinstance(error, KeyError) else error}", err=True)
            context.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ynet-lite")
def main() -> None:
    """Find similar cases in your own archive of medical images. Research software, not a medical device.

    \b
    ynet index my_images -o my.index
    ynet search my.index new.png -k 5
    """


def _existing(name: str):
    return click.argument(name, type=click.Path(exists=True, path_type=Path))


_patient = click.option("--patient", default="", help='finds the patient in a file name, for instance "^(P[0-9]+)"')
_jobs = click.option("--jobs", default=1, show_default=True, help="processes that read and encode")


def _report(index: Index, added: Added) -> None:
    click.echo(f"{index.path.name}: {added.added} cases added, {added.known} known, {len(index)} in all")
    parts = (added.failed, "could not be added", ".failed.csv"), (added.left_out, "files are no cases", ".left-out.csv")
    for table, what, suffix in parts:
        if len(table):
            lines = [f"  {row.file}: {row.reason}" for row in table.head(10).itertuples()]
            if len(table) > 10:
                table.to_csv(index.path.with_suffix(suffix), index=False)
                lines.append(f"  ... all of them in {index.path.with_suffix(suffix).name}")
            click.echo("\n".join([f"{len(table)} {what}:", *lines]), err=True)
    if len(added.failed):
        raise SystemExit(3)


@main.command()
@_existing("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="the index, one file")
@click.option("--model", default=SHIPPED[1], show_default=True, help=f"{' or '.join(SHIPPED)}, or a checkpoint (.safetensors)")
@_patient
@click.option("--keep-patients", is_flag=True, help="store patients as they are, not as keyed hashes")
@click.option("--thumbnails", is_flag=True, help="store small pictures too: for a page where the images are not at hand")
@_jobs
def index(source, output, **settings) -> None:
    """Make an index of a FOLDER of images or of a CSV with a column "image". Call it again to go on after an interruption.

    \b
    Example: ynet index my_images -o my.index --patient "^(P[0-9]+)"
    Exit code 3: some files could not be added; they are listed.
    """
    _report(*Index.build(output, source, **settings))


@main.command()
@_existing("index")
@_existing("source")
@_patient
@_jobs
def add(index, source, **settings) -> None:
    """Add what is new in a folder, a CSV or one image. What is in the index already is not encoded again.

    Example: ynet add my.index this_week
    """
    opened = Index(index)
    _report(opened, opened.add(source, **settings))


@main.command()
@_existing("index")
@click.argument("ids", nargs=-1, required=True)
def remove(index, ids) -> None:
    """Remove cases by their id; their bytes are overwritten.

    Example: ynet remove my.index benign/case12
    """
    opened = Index(index)
    opened.remove(ids)
    click.echo(f"{opened.path.name}: {len(ids)} removed, {len(opened)} left")


@main.command()
@_existing("index")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def info(index, as_json) -> None:
    """Say what is in an index.

    Example: ynet info my.index
    """
    about = Index(index).info()
    click.echo(json.dumps(about) if as_json else pd.Series(about).to_string())


@main.command()
@_existing("index")
@_existing("image")
@click.option("-k", default=10, show_default=True, help="answers for each image")
@click.option("--csv", "form", flag_value="csv", help="as CSV")
@click.option("--json", "form", flag_value="json", help="as JSON, one line for each image")
@click.option("--gallery", type=click.Path(path_type=Path), help="write a page with the pictures (.html) instead")
@click.option("--class", "label", default="", help="only cases of this class")
@click.option("--exclude-same-patient", is_flag=True, help="leave out cases of the query's patient")
@click.option("--patient", default="", help="who the query's patient is (one image), or as in index (a folder)")
@click.option("--include-itself", is_flag=True, help="also list the query where it is in the index")
@click.option("--model", default="", help="where the checkpoint of the index lies now")
@_jobs
def search(index, image, k, form, gallery, model, **settings) -> None:
    """List the cases most similar to an IMAGE, or to each image of a folder or CSV.

    \b
    Example: ynet search my.index new.png -k 5 --class malignant
    \b
    The last column: of a hundred cases of the index, how many have a case of another patient closer than this. Near 100, the
    image is unlike what the index holds; a low number is no proof that it is like it.
    """
    opened = Index(index, model)
    answers = opened.search(image, k, **settings)
    if gallery:
        write_gallery(gallery, opened, image, answers)
        click.echo(
            f"{gallery}: holds pictures and ids of {answers['query'].nunique()} queries and their answers; mind who gets it"
        )
    elif form == "csv":
        click.echo(answers.to_csv(index=False, lineterminator="\n", float_format="%.1f"), nl=False)
    else:
        for query, part in answers.drop(columns="query").groupby(answers["query"], sort=False):
            if form == "json":
                click.echo(json.dumps({"query": query, "answers": part.to_dict("records")}))
                continue
            click.echo(f"{query}\n{part.drop(columns='patient').to_string(index=False, float_format='%.0f')}")
            if part["percentile"].min() >= FAR:
                click.echo("Unusual: the image is unlike the cases of this index.", err=True)


@main.command()
@_existing("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="the network (.safetensors)")
@_patient
@click.option("--bits", default=64, show_default=True, type=click.Choice(BITS), help="length of the code")
@click.option("--seed", default=0, show_default=True)
def train(source, output, **settings) -> None:
    """Train a network on a FOLDER with a folder for each class, or on a CSV with image, label, group and, if known, mask.

    Example: ynet train cases.csv -o my.safetensors
    """
    chosen = train_own(source, output, **settings)[1]
    click.echo("\n".join(f"{name:12s}{value}" for name, value in chosen.items()))
    click.echo(f"saved: {output}; use it with: ynet index FOLDER -o my.index --model {output}")
