"""What a store will hold, and where."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from sqzlab.data.store.format import PAGE, VERSION, Header
from sqzlab.data.store.listing import Listing
from sqzlab.data.store.pictures import crop_of
from sqzlab.data.store.reader import store_path


@dataclass(frozen=True)
class Plan:
    """A store to be made: `layout` is `whole` for training images, `centre` for validation."""

    listing: Listing
    size: int
    folder: Path

    @property
    def path(self) -> Path:
        return store_path(self.folder, self.listing.split)

    @property
    def unfinished(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    def header(self) -> Header:
        """Raises ConfigError where the size is none of its layout."""
        listing = self.listing
        whole = listing.split == "train"
        header = Header(
            data=listing.data,
            split=listing.split,
            size=self.size,
            layout="whole" if whole else "centre",
            crop=0 if whole else crop_of(self.size),
            rows=len(listing.names),
            images=len(listing.names),
            classes=len(listing.classes),
            class_digest=hashlib.sha256(json.dumps(listing.classes).encode()).hexdigest()[:16],
            plan="",
        )
        told = hashlib.sha256(json.dumps([VERSION, *kind_of(header), listing.classes, listing.names]).encode())
        told.update(listing.labels.astype("<i8").tobytes())
        return replace(header, plan=told.hexdigest()[:16])

    def bytes_to_write(self) -> int:
        """What the disk must still have room for; 0 where the store is there."""
        if self.path.exists():
            return 0
        header = self.header()
        there = self.unfinished.stat().st_blocks * 512 if self.unfinished.exists() else 0
        return max(header.text_at + sum(map(len, self.listing.names)) + 4 * header.rows + PAGE - there, 0)


def kind_of(header: Header) -> tuple[str, str, int, str, int]:
    return header.data, header.split, header.size, header.layout, header.crop


def about(header: Header) -> str:
    return f"{header.rows:,} images of {header.data}, {header.split}, at {header.size} pixels"
