"""A probability means what it says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from album import Album, face

from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.ml import catalog, packs
from kaleidoscope.ml.catalog import Calibration
from kaleidoscope.people import service
from kaleidoscope.people.outside import diagram
from kaleidoscope.people.rules import calibration
from kaleidoscope.people.rules.calibration import Map, Trials
from kaleidoscope.people.service import calibrating


def made(n: int, true: Map, seed: int = 0) -> Trials:
    """Trials that are right as often as the true map says."""
    rng = np.random.default_rng(seed)
    sizes = np.arange(n) % len(true.even)
    known = Trials(rng.uniform(0.2, 0.6, n), np.zeros(n), sizes, rng.integers(0, n // 5, n))
    right = (rng.random(n) < true.probability(known)).astype(np.float64)
    return Trials(known.similarity, right, known.size, known.who)


def test_a_known_map_is_found_again() -> None:
    true = Map(40.0, (0.35, 0.42))
    found = calibration.fit(made(20_000, true))
    assert found.slope == pytest.approx(true.slope, rel=0.06)
    assert found.even == pytest.approx(true.even, abs=0.005)


def test_it_holds_for_people_who_were_not_there() -> None:
    known = made(10_000, Map(40.0, (0.35, 0.42)))
    bins = calibration.reliability(calibration.cross_validated(known), known.right)
    assert sum(b.count for b in bins) == 10_000
    assert calibration.calibration_error(bins) < 0.02
    assert (
        calibration.calibration_error(calibration.reliability(np.full(10_000, 0.95), known.right))
        > 0.2
    ), "a wrong statement shows"


def test_where_right_and_wrong_do_not_overlap_the_fit_is_finite() -> None:
    known = Trials(
        np.array([0.1, 0.2, 0.8, 0.9] * 5),
        np.array([0.0, 0.0, 1.0, 1.0] * 5),
        np.zeros(20, np.int64),
        np.arange(20),
    )
    found = calibration.fit(known)
    assert np.isfinite(found.slope) and 0.2 < found.even[0] < 0.8


def test_a_face_is_matched_without_itself() -> None:
    vectors = np.array([face(1, 0), face(1, 1), face(2, 0)], np.float32)
    found = calibration.trials(vectors, np.array([7, 7, 9]), 0)
    assert found.right.tolist() == [1, 1, 0], "who has one face can be matched to others alone"
    assert found.similarity[0] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def many() -> tuple[np.ndarray, np.ndarray]:
    who = np.append(np.repeat(np.arange(1, 31), 5), np.arange(31, 81))
    vectors = [face(person, view, 0.9) for view, person in enumerate(who.tolist())]
    return np.array(vectors, np.float32), who


def test_a_calibration_is_kept_with_its_pack(data_dir: Path) -> None:
    pack = catalog.find("builtin")
    found = calibrating.calibrate(pack, *many())
    assert found.faces == 200 and found.persons == 80 and len(found.even) == 3
    calibrating.keep(pack, found)
    thresholds = catalog.find("builtin").thresholds
    assert thresholds.slope == found.slope
    assert tuple(step.even for step in thresholds.steps) == found.even
    assert [s.merge for s in thresholds.steps] == [s.merge for s in pack.thresholds.steps]
    assert thresholds.probability(found.even[0], 1) == pytest.approx(0.5)


def test_a_calibration_for_other_steps_is_not_applied(data_dir: Path) -> None:
    pack = catalog.find("builtin")
    packs.calibrate(pack, Calibration(slope=9.0, even=(0.5,), measured="older steps"))
    assert catalog.find("builtin").thresholds == pack.thresholds


def test_too_few_faces_are_refused(data_dir: Path) -> None:
    vectors, who = many()
    with pytest.raises(Invalid, match="too few"):
        calibrating.calibrate(catalog.find("builtin"), vectors[:20], who[:20])
    with pytest.raises(Invalid, match="right and wrong"):
        calibrating.calibrate(catalog.find("builtin"), vectors[:150], who[:150])


async def test_confirmed_faces_are_what_it_learns_from(album: Album) -> None:
    photo, [anna] = await album.shoot(1)
    await album.shoot(2)
    [face_id] = await album.face_ids(photo)
    async with album.db.transaction() as session:
        await service.confirm(session, face_id)
    async with album.db.transaction() as session:
        vectors, who = await calibrating.confirmed(session, catalog.find("builtin"))
    assert who.tolist() == [anna] and vectors[0] == pytest.approx(face(1), abs=1e-5)


def test_the_diagram_is_a_picture(tmp_path: Path) -> None:
    known = made(1000, Map(40.0, (0.4,)))
    bins = calibration.reliability(calibration.cross_validated(known), known.right)
    diagram.save(bins, 0.012, "a pack", tmp_path / "r.svg")
    dots = ElementTree.parse(tmp_path / "r.svg").findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(dots) == len(bins)


async def test_a_face_tells_how_likely_it_is_of_its_person(album: Album) -> None:
    await album.shoot(1)
    photo, _ = await album.shoot(1, view=1)
    async with album.db.transaction() as session:
        [told] = (await service.photo(session, photo)).detections
    assert told.similarity is not None and told.probability is not None
    assert told.probability == pytest.approx(
        catalog.find("builtin").thresholds.probability(told.similarity, 0), abs=1e-3
    )
    async with album.db.transaction() as session:
        await service.confirm(session, told.face_id)
    async with album.db.transaction() as session:
        [told] = (await service.photo(session, photo)).detections
    assert told.probability == 1.0
