"""Settings of the engine and of the ML service: the table `[ml]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from kaleidoscope.kernel.settings import Section


class MlSettings(Section):
    """Which networks look at photos, and how closely."""

    section: ClassVar[str] = "ml"

    pack: str = Field(
        default="",
        description="The face pack. Empty: the one chosen by `kaleidoscope models use`, else "
        "`builtin`.",
    )
    preset: Literal["fast", "balanced", "thorough"] = Field(
        default="balanced",
        description="How much is spent on a photo: `fast` embeds one view of a face, `balanced` "
        "two, `thorough` six and looks for faces half as large, too.",
    )
    min_face: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of the smallest face sought, in the photo shrunk to the side "
        "at which the pack's detector looks at it. 0: the pack's own, by the preset.",
    )
