"""``aiaic export``: export a model as a folder, on a path or in a bucket."""

import shutil
import tempfile
from pathlib import Path

from aiaic.checkpointing import checkpoint
from aiaic.export import onnx_export
from data_prep import storage
from workflows.artifacts import run_folder, scratch
from workflows.options import Export, Outcome


def run(options: Export) -> Outcome:
    """Carry out the command."""
    place = run_folder.resolve(options.checkpoint)
    replaces_export = _holds_export(options.out)
    folder = run_folder.fetch(place)
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as name:
        made = Path(name)
        onnx_export.write(folder, made)
        if replaces_export and not storage.is_local(options.out):
            storage.delete_folder(options.out, first=checkpoint.RECORD)
        run_folder.publish(
            lambda part: shutil.copytree(made, part, dirs_exist_ok=True), options.out
        )
        sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
    record = checkpoint.read_record(folder)
    values = {
        "checkpoint": place,
        "out": options.out,
        "stage": record.stage,
        "step": record.step,
        "files": sizes,
    }
    listed = "\n".join(f"  {name:<18} {size / 1e6:8.2f} MB" for name, size in sizes.items())
    text = f"exported stage {record.stage}, step {record.step} to {options.out}\n{listed}"
    return Outcome(values=values, text=text)


def _holds_export(place: str) -> bool:
    """Whether a folder holds an earlier export.

    Raises:
        ValueError: it holds other files, which an export must not replace.
    """
    if not storage.exists(place):
        return False
    if storage.size_of(place) is not None:
        raise ValueError(f"'{place}' is a file: use a folder for --out")
    found = {file.name for file in storage.list_files(place)}
    if not found <= set(onnx_export.FILES):
        other = min(found - set(onnx_export.FILES))
        raise ValueError(
            f"'{place}' holds '{other}', which is not part of an export: use another --out"
        )
    return bool(found)
