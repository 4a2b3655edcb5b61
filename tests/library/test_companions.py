"""Which files belong together, by their names; what a template of paths may say."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleidoscope.library.rules.companions import groups
from kaleidoscope.library.rules.custody import fault_of, folder_of, numbered, stem_length


def together(*names: str) -> list[set[str]]:
    return [{n.name.decode() for n in group} for group in groups([n.encode() for n in names])]


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_1.CR2", "IMG_1.JPG"),
        ("IMG_1.HEIC", "IMG_1.MOV", "IMG_1.AAE"),
        ("IMG_1234.JPG", "IMG_E1234.JPG"),
        ("IMG_1.jpg", "IMG_1-edited.jpg", "IMG_1.jpg.json"),
        ("IMG_1.jpg", "IMG_1.xmp"),
        ("IMG_1.jpg", "IMG_1.jpg.xmp"),
        ("IMG_1.HEIC", "IMG_1.jpg.json"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1.jpg", "IMG_1.jpg.suppl.json"),
        ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1(1).jpg", "IMG_1-edited(1).jpg", "IMG_1.jpg.supplemental-metadata(1).json"),
        (
            "a name of more than forty-six characters that Takeout cuts.jpg",
            "a name of more than forty-six characters that .json",
        ),
        ("PXL_1.MP.jpg", "PXL_1.MP.mp4"),
        ("PXL_1.MP.jpg", "PXL_1.MP", "PXL_1.MP.jpg.supplemental-meta.json", "PXL_1.MP.xmp"),
        ("PXL_1.MP.jpg", "PXL_1.MP-edited.jpg"),
    ],
)
def test_they_travel_together(names: tuple[str, ...]) -> None:
    assert together(*names) == [set(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_1.jpg", "IMG_2.jpg"),
        ("IMG_1.jpg", "IMG_1(1).jpg"),
        ("IMG_1.jpg", "IMG_10.xmp"),
        ("IMG_1(1).jpg", "IMG_1.jpg.json"),
        ("IMG_1.jpg", "img_1.mov"),
        (".jpg", "a.jpg"),
        ("Mum.MP.jpg", "Mum.mp4"),
    ],
)
def test_they_travel_alone(names: tuple[str, ...]) -> None:
    assert together(*names) == [{name} for name in names]


@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda b: b"/" not in b), unique=True))
def test_every_name_is_in_one_group(names: list[bytes]) -> None:
    found = [n.name for group in groups(names) for n in group]
    assert sorted(found) == sorted(names)
    for group in groups(names):
        for one in group:
            assert 0 <= one.stem <= len(one.name)


@given(
    st.binary(min_size=1, max_size=255).filter(lambda b: b"/" not in b and b"\0" not in b),
    st.integers(0, 99999),
)
def test_a_number_leaves_a_name_that_can_be(name: bytes, number: int) -> None:
    stem = stem_length(name)
    found = numbered(name, stem, number)
    assert 0 < len(found) <= 255
    if len(name) - stem < 240:
        assert found.endswith(name[stem:])


def test_a_number_is_put_between_characters() -> None:
    name = "é".encode() * 125 + b".jpg"
    assert numbered(name, stem_length(name), 1).decode() == "é" * 124 + "_1.jpg"


def test_folders_by_the_day() -> None:
    day = datetime(2023, 2, 5, 23, 59)
    assert folder_of("{YYYY}/{YYYY-MM-DD}/{filename}", day) == "2023/2023-02-05"
    assert folder_of("by month/{YYYY-MM}/{filename}", day) == "by month/2023-02"
    assert folder_of("{filename}", day) == ""
    assert folder_of("{YYYY}/{filename}", None) == "undated"


@pytest.mark.parametrize(
    "template",
    [
        "{YYYY}",
        "{filename}/{filename}",
        "/abs/{filename}",
        "../{filename}",
        "{YYYY}/./{filename}",
        "{YY}/{filename}",
        "{YYYY/{filename}",
        "",
    ],
)
def test_templates_that_say_nothing(template: str) -> None:
    assert fault_of(template)
