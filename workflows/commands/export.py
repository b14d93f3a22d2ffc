"""``aiaic export``: a model to take away, as a folder on a path or in a bucket."""

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
    standing = _earlier_export(options.out)
    folder = run_folder.fetch(place)
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as name:
        made = Path(name)
        onnx_export.write(folder, made)
        if standing and not storage.is_local(options.out):
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
    text = f"stage {record.stage}, step {record.step} in {options.out}\n{listed}"
    return Outcome(values=values, text=text)


def _earlier_export(place: str) -> bool:
    """Whether files of an export lie there already.

    Raises:
        ValueError: something else does, which an export must not replace.
    """
    if not storage.exists(place):
        return False
    if storage.size_of(place) is not None:
        raise ValueError(f"'{place}' is a file: name a folder with --out")
    found = {file.name for file in storage.list_files(place)}
    if not found <= set(onnx_export.FILES):
        other = min(found - set(onnx_export.FILES))
        raise ValueError(f"'{place}' holds '{other}', which is no part of an export: name another")
    return bool(found)
