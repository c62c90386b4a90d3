"""``python -m ynet_lite``: the command ``ynet``."""

from .cli import main

main(prog_name="ynet")
