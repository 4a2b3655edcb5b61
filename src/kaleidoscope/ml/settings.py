"""Settings of the engine and of the ML service: the table `[ml]`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from kaleidoscope.kernel.settings import Section

PresetName = Literal["fast", "balanced", "thorough"]


class MlSettings(Section):
    """Which networks look at photos, and how closely."""

    section: ClassVar[str] = "ml"

    pack: str = Field(
        default="",
        description="The face pack. Empty: the one chosen by `kaleidoscope models use`, else "
        "`builtin`.",
    )
    preset: PresetName = Field(
        default="balanced",
        description="How much is spent on a photo: `fast` embeds one view of a face, `balanced` a "
        "second one of a face that is turned, small or blurred, `thorough` six of each and looks "
        "for faces half as large, too.",
    )
    min_face: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of the smallest face sought, in the photo shrunk to the side "
        "at which the pack's detector looks at it. 0: the pack's own, by the preset.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="The loopback address that the ML service listens on.",
    )
    port: int = Field(
        default=8421,
        ge=1,
        le=65535,
        description="The port of the ML service. `kaleidoscope up` takes another one where the "
        "default is taken, and never where this is set.",
    )
    roots: tuple[Path, ...] = Field(
        default=(),
        description="Folders whose files the ML service may open. Empty: the home folder and the "
        "data folder. `kaleidoscope up` passes those that ingest may read. Folders that were ever "
        "named to `kaleidoscope ingest` on this machine come to these.",
    )
    callback_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts beside this machine to which results may be sent.",
    )
    processes: int = Field(
        default=0, ge=0, description="Child processes that decode and look. 0: one a core."
    )
    batch: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Photos whose faces a child process embeds in one batch; on a processor more "
        "than 4 save no time.",
    )
    process_memory: int = Field(
        default=0,
        ge=0,
        description="Megabytes of address space that each of them may use. 0: half of the "
        "machine's memory for all of them, from 2048 to 8192 each.",
    )
    photo_seconds: float = Field(
        default=60.0, gt=0, description="Seconds that one photo may take; then it has failed."
    )
    photo_memory: int = Field(
        default=1024,
        ge=16,
        description="Megabytes that the pixels of one photo may take while it is decoded: 1024 are "
        "268 million in colour. A larger one is refused from its header.",
    )
    decode_side: int = Field(
        default=1024,
        ge=64,
        description="Pixels of the longer side to which photos are shrunk while they are decoded, "
        "before faces are sought.",
    )
    idle_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Seconds without a photo after which networks are unloaded.",
    )
    queue: int = Field(
        default=256,
        ge=1,
        description="Photos accepted and not yet delivered, at most; beyond it the answer is 429.",
    )
    callback_seconds: float = Field(
        default=600.0,
        gt=0,
        description="For how long delivery of a result is tried while the API does not answer.",
    )
    dump_seconds: float = Field(
        default=3.0, gt=0, description="Seconds between looks for persons that have changed."
    )
    upload_mb: int = Field(
        default=256, ge=1, description="Megabytes of the largest picture that may be uploaded."
    )
