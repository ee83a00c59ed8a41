"""The images of benchmark questions: files, what is in them, and which cannot be shown.

In: references as they stand in `Question.images` (`image_references.py` says what they are). Out:
for each its file and the hash of its content, or what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prism_tune.data.encoding.encoder import require_accepted
from prism_tune.data.examination import Finding
from prism_tune.data.image_index import index_images
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import read_size, require_file
from prism_tune.data.policy import REASONS, USABLE
from prism_tune.evaluation.benchmark import name_portably
from prism_tune.evaluation.image_references import cache_folder, extract, is_embedded
from prism_tune.run.fingerprints import fingerprint

IMAGE_FAULTS = tuple(
    reason
    for reason in REASONS
    if reason.startswith("image_") and reason != "image_count" and reason not in USABLE
)
"""What makes a question's image unusable; what is merely odd is asked, as the protocol has it."""


@dataclass(frozen=True)
class ImageFiles:
    """Images by their reference.

    Attributes:
        paths: the file of each image that can be shown.
        hashes: of that file's content.
        faults: the others, and what is wrong with them.
        strips: of those that can be shown, the ones so long or high that a model may refuse them.
    """

    paths: Mapping[str, Path]
    hashes: Mapping[str, str]
    faults: Mapping[str, Finding]
    strips: frozenset[str] = frozenset()

    def checksum(self, annotations: Path) -> str:
        """Of what is in them, and of what is at fault, the same wherever the annotations lie."""
        names = name_portably([*self.hashes, *self.faults], annotations)
        hashes = {names[reference]: content for reference, content in self.hashes.items()}
        reasons = {names[reference]: fault[0] for reference, fault in self.faults.items()}
        return fingerprint([hashes, reasons])


def find_missing(references: Iterable[str], folders: ImageFolders) -> dict[str, Finding]:
    """The files that are not there or lie outside the folders; none is opened."""
    faults = {}
    for reference in sorted({r for r in references if not is_embedded(r)}):
        try:
            require_file(folders.resolve(reference))
        except ImageError as error:
            faults[reference] = (error.reason, str(error))
    return faults


def find_images(
    references: Iterable[str], folders: ImageFolders, *, num_workers: int
) -> ImageFiles:
    """Look at every image; each file is decoded and hashed once for all runs.

    Args:
        references: as they stand in the questions.
        folders: that paths lead into.
        num_workers: 0 works in this process.

    Raises:
        UserError: a parquet column that holds something else than images.
    """
    wanted = sorted(set(references))
    cache = ImageFolders(cache_folder())
    embedded = extract([r for r in wanted if is_embedded(r)], cache.base)
    unusable = {
        reference: _describe_unusable(reference, name)
        for reference, name in embedded.items()
        if not name
    }
    names = {reference: name for reference, name in embedded.items() if name}
    inside = _look(cache, names, num_workers)
    files = _look(folders, {r: r for r in wanted if not is_embedded(r)}, num_workers)
    return ImageFiles(
        {**inside.paths, **files.paths},
        {**inside.hashes, **files.hashes},
        {**unusable, **inside.faults, **files.faults},
        inside.strips | files.strips,
    )


def leave_out_refused(images: ImageFiles, processor: Any) -> ImageFiles:
    """The images that a model's processor takes; the others are at fault."""
    faults = dict(images.faults)
    for reference in sorted(images.strips):
        path = images.paths[reference]
        try:
            require_accepted(Image.new("RGB", read_size(path)), processor, str(path))
        except ImageError as error:
            faults[reference] = (error.reason, str(error))
    return ImageFiles(
        {name: path for name, path in images.paths.items() if name not in faults},
        {name: found for name, found in images.hashes.items() if name not in faults},
        faults,
    )


def _describe_unusable(reference: str, name: str | None) -> Finding:
    if name is None:
        return "image_missing", f"{reference[:80]}: no image bytes in it"
    return "image_unreadable", f"{reference[:80]}: expected an image as base64"


def _look(folders: ImageFolders, names: Mapping[str, str], num_workers: int) -> ImageFiles:
    """`names` maps references to files in the folders."""
    index = index_images(folders, sorted(set(names.values())), num_workers=num_workers)
    unusable = {
        name: next((f for f in findings if f[0] in IMAGE_FAULTS), None)
        for name, findings in index.findings.items()
    }
    faults = {r: fault for r, name in names.items() if (fault := unusable.get(name))}
    sound = {reference: name for reference, name in names.items() if reference not in faults}
    return ImageFiles(
        {reference: folders.resolve(name) for reference, name in sound.items()},
        {reference: index.hashes[name] for reference, name in sound.items()},
        faults,
        frozenset(r for r, name in sound.items() if name in index.strips),
    )
