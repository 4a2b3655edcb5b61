"""Search by the index finds what exact search finds, in every pack by its own index."""

from __future__ import annotations

import numpy as np
import pytest
from album import Album, face
from sqlalchemy import text

from kaleidoscope.kernel.settings import load
from kaleidoscope.ml import catalog
from kaleidoscope.people import jobs
from kaleidoscope.people.queries import search
from kaleidoscope.people.service.indexing import build_index


async def test_the_index_finds_what_exact_search_finds(album: Album) -> None:
    for people in np.arange(40).reshape(10, 4).tolist():
        await album.shoot(*people)
    await build_index(album.db, catalog.BUILTIN)
    asked = np.array([face(n, view=77) for n in range(40)])
    async with album.db.transaction() as session:
        exact = await search.near_exact(session, "builtin", asked, 0.9)
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        indexed = await search.near_indexed(session, "builtin", asked, 0.9, 5, 100)
        plan = await session.execute(
            text(
                "EXPLAIN SELECT person_id FROM person_vectors WHERE pack = 'builtin' AND count > 0"
                " ORDER BY indexed::vector(128) <#> (SELECT mean::vector(128) FROM person_vectors"
                " LIMIT 1) LIMIT 5"
            )
        )
        assert "ix_person_vectors_indexed_builtin" in str(plan.all())
    assert [f.keys() for f in exact] == [f.keys() for f in indexed]
    assert all(len(f) == 1 for f in exact)
    for one, other in zip(exact, indexed, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


async def test_the_index_follows_a_mean_once_it_has_moved(album: Album) -> None:
    for view in range(20):
        await album.shoot(1, view=view)
    await album.check()
    assert await album.value("SELECT count(*) FROM person_vectors") == 1
    assert await album.value("SELECT mean <-> indexed FROM person_vectors") > 0
    asked = np.array([face(1, view=77)])
    async with album.db.transaction() as session:
        exact = await search.near_exact(session, "builtin", asked, 0.5)
        indexed = await search.near_indexed(session, "builtin", asked, 0.5, 5, 100)
    assert exact == [pytest.approx(indexed[0], abs=1e-6)]


async def test_a_library_beyond_exact_search_is_matched_the_same(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_EXACT_UP_TO", "3")
    load.cache_clear()
    _, persons = await album.shoot(0, 1, 2, 3, 4, 5)
    for view in range(1, 4):
        assert (await album.shoot(0, 1, 2, 3, 4, 5, view=view))[1] == persons
        await jobs.consolidate(album.db)
    async with album.db.transaction() as session:
        assert await search.has_index(session, "builtin")
    await album.check()


async def test_the_index_is_built_amid_a_long_ingest(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    await album.shoot(0, 1, 2, 3)
    await album.add()  # a photo that is on its way
    for most, expected in ((4, False), (3, True)):
        monkeypatch.setenv("KALEIDOSCOPE_PEOPLE_EXACT_UP_TO", str(most))
        load.cache_clear()
        assert await jobs.consolidate_when_quiet(album.db) is None
        async with album.db.transaction() as session:
            assert await search.has_index(session, "builtin") is expected


async def test_another_packs_index_is_built_beside_running_work(album: Album) -> None:
    pack = catalog.BUILTIN.model_copy(update={"name": 'my:own "pack"'})
    async with album.db.transaction() as session:
        assert not await search.has_index(session, pack.name)
    for _ in range(2):
        await build_index(album.db, pack)
        async with album.db.transaction() as session:
            assert await search.has_index(session, pack.name)


async def test_vectors_are_read_as_they_were_written(album: Album) -> None:
    _, [a] = await album.shoot(1)
    async with album.db.transaction() as session:
        means = await search.read_means(session, "builtin", 128)
        none = await search.read_means(session, "builtin", 128, [5])
    assert means.ids.tolist() == [a]
    assert np.array_equal(means.means[0], face(1))
    assert none.means.shape == (0, 128)
