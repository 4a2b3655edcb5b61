"""The catalogue: what its packs say, what thresholds mean, and the user's own packs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog
from kaleidoscope.ml.catalog import CATALOGUE, Step, Thresholds
from kaleidoscope.ml.errors import BadPack, UnknownPack
from kaleidoscope.ml.settings import PresetName


def test_every_pack_is_complete() -> None:
    names = ["builtin", "yunet-sface", "auraface", "buffalo_l", "buffalo_s"]
    assert [pack.name for pack in CATALOGUE] == names
    for pack in CATALOGUE:
        assert pack.licence
        assert pack.thresholds.measured
        assert all(f.url.startswith(("https://", "wheel:")) for f in pack.files)
    assert {p.name for p in CATALOGUE if p.non_commercial} == {"buffalo_l", "buffalo_s"}
    assert [p.dimension for p in CATALOGUE] == [128, 128, 512, 512, 512]


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.sampled_from(get_args(PresetName)))
def test_thresholds_never_fall_as_the_library_grows(
    few: int, more: int, preset: PresetName
) -> None:
    few, more = sorted((few, more))
    for pack in CATALOGUE:
        stated = pack.thresholds
        assert stated.join_at(few, preset=preset) <= stated.join_at(more, preset=preset)
        similarity = stated.join_at(few)
        assert stated.probability(similarity, few, preset=preset) >= stated.probability(
            similarity, more, preset=preset
        )


def test_a_probability_is_one_half_where_the_step_says_and_rises() -> None:
    stated = Thresholds(
        steps=(Step(persons=10, join=0.5, even=0.4), Step(persons=0, join=0.6, even=0.5)),
        slope=20.0,
        fast=-0.1,
        thorough=0.05,
    )
    assert stated.probability(0.4, 10) == pytest.approx(0.5)
    assert stated.probability(0.5, 11) == pytest.approx(0.5)
    assert stated.probability(0.3, 10, preset="fast") == pytest.approx(0.5)
    assert stated.probability(0.45, 10, preset="thorough") == pytest.approx(0.5)
    assert stated.probability(-1.0, 10) < 0.001 < 0.999 < stated.probability(1.0, 10)
    assert stated.join_at(10) == 0.5
    assert stated.join_at(11, preset="fast") == pytest.approx(0.5)


def test_packs_of_earlier_versions_are_read() -> None:
    stated = CATALOGUE[0].thresholds.model_dump(exclude={"fast", "thorough"})
    older = Thresholds.model_validate({**stated, "one_view": 0.0, "six_views": 0.0})
    assert (older.fast, older.thorough) == (0.0, 0.0)


@pytest.mark.parametrize("persons", [[10], [0, 10], [20, 10, 0], [10, 10, 0]])
def test_steps_must_rise_and_end_with_any_number(persons: list[int]) -> None:
    steps = tuple(Step(persons=p, join=0.5, even=0.5) for p in persons)
    with pytest.raises(ValidationError, match="must rise"):
        Thresholds(steps=steps, slope=1.0)


def test_an_unknown_pack_is_named_with_those_that_are_known(data_dir: Path) -> None:
    with pytest.raises(UnknownPack, match="no model pack is called 'nonsense'") as caught:
        catalog.find("nonsense")
    assert caught.value.hint is not None
    assert "builtin" in caught.value.hint
    with pytest.raises(UnknownPack):
        catalog.find("../builtin")


def write_pack(data_dir: Path, name: str, text: str) -> None:
    folder = data_dir / "models" / name
    folder.mkdir(parents=True)
    (folder / "pack.toml").write_text(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("summary = [", "cannot read .*mine/pack.toml"),
        ("summary = 'x'", "licence: Field required"),
        ("nonsense = 1", "Field required|Extra"),
        ("name = 'other'", "Field required|called"),
    ],
)
def test_a_bad_description_is_refused_with_its_file(data_dir: Path, text: str, said: str) -> None:
    write_pack(data_dir, "mine", text)
    with pytest.raises(BadPack, match=said) as caught:
        catalog.find("mine")
    assert "mine" in caught.value.message


def test_an_own_pack_cannot_stand_in_for_an_official_one(data_dir: Path) -> None:
    write_pack(data_dir, "buffalo_l", "summary = 'x'")
    assert catalog.find("buffalo_l") is catalog.BUFFALO_L


def test_the_pack_in_use_is_the_setting_then_the_choice_then_builtin(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog.active() == "builtin"
    catalog.models_dir().mkdir()
    (catalog.models_dir() / "active").write_text("auraface\n")
    assert catalog.active() == "auraface"
    monkeypatch.setenv("KALEIDOSCOPE_ML_PACK", "buffalo_s")
    load.cache_clear()
    assert catalog.active() == "buffalo_s"
