"""What names a model on the command line and in a manifest: a folder, a model of a hub, or the one of Pilotlight's own.

It is read before anything is packed. What must survive is a name that was copied from somewhere else: a page of the
hub, a bucket, a file of a folder. Whoever gives one is told how to write what was meant.
"""

from __future__ import annotations

import re
from pathlib import Path

from pilotlight.cli.options import stop

OWN = "pilotlight://demo"
KINDS = f"a Hugging Face folder, hf://ORG/NAME[@REVISION], or {OWN}, which comes with Pilotlight"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # what a name on the hub looks like, and a path may
HUB_PAGE = re.compile(rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/({HUB_NAME.pattern})(?:/.*)?")


def is_on_hub(model: Path | str) -> bool:
    return str(model).startswith("hf://")


def folder_named(model: str, *, beside: Path = Path()) -> Path:
    """The folder of a model that is on no hub. `beside`: where a relative path begins. Stops where there is none."""
    if model == OWN:
        return own_folder()
    if page := HUB_PAGE.fullmatch(model):
        stop(f"{model} is a page: write hf://{page[1]} for the model itself")
    if model.startswith("s3://"):
        stop(
            f"{model}: `pilotlight snapshot pull {model} DIGEST` brings a snapshot from there, then give --digest DIGEST"
        )
    if "://" in model:
        stop(f"{model} names no model: it is {KINDS}")
    folder = beside / Path(model).expanduser()
    need_folder(folder, model)
    return folder


def own_folder() -> Path:
    """Of the model that comes with Pilotlight, wherever it is installed."""
    import snapshots

    return Path(snapshots.__file__).parent / "demo" / "model"


def need_folder(folder: Path, given: str) -> None:
    """Stops where it is none; `given`: as it was written."""
    if folder.is_dir():
        return
    if folder.suffix.lower() == ".gguf":
        from snapshots.other_formats import GGUF

        stop(f"{folder}: {GGUF}")
    if folder.is_file():
        stop(f"{folder} is a file: give its folder, with config.json and all *.safetensors")
    meant = f"; on the hub it is hf://{given}" if HUB_NAME.fullmatch(given) else ""
    stop(f"{folder}: no such folder{meant}. A model is {KINDS}")
