"""Names of faces in XMP: as Lightroom, digiKam and Picasa write them, and as we do."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from PIL import Image

from kaleidoscope.library.outside import regions, sidecars
from kaleidoscope.library.outside.regions import BadPacket
from kaleidoscope.library.rules import regions as rules
from kaleidoscope.library.rules.regions import Named

LIGHTROOM = """<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 5.6-c140">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   crs:Exposure2012="+0.12">
   <!-- kept -->
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Berkeley</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="300" stDim:unit="pixel"/>
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li>
       <rdf:Description mwg-rs:Rotation="0.00000" mwg-rs:Name="Anna" mwg-rs:Type="Face">
        <mwg-rs:Area stArea:h="0.2" stArea:w="0.1" stArea:x="0.25" stArea:y="0.4"/>
       </rdf:Description>
      </rdf:li>
      <rdf:li>
       <rdf:Description mwg-rs:Name="Rex" mwg-rs:Type="Pet">
        <mwg-rs:Area stArea:h="0.2" stArea:w="0.1" stArea:x="0.5" stArea:y="0.4"/>
       </rdf:Description>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
DIGIKAM = """<?xml version="1.0" encoding="UTF-8"?>
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#">
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>People/Anna</rdf:li>
     <rdf:li>Places/Berkeley</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions rdf:parseType="Resource">
     <stDim:w>400</stDim:w>
     <stDim:h>300</stDim:h>
     <stDim:unit>pixel</stDim:unit>
    </mwg-rs:AppliedToDimensions>
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li rdf:parseType="Resource">
       <mwg-rs:Name>Anna</mwg-rs:Name>
       <mwg-rs:Type>Face</mwg-rs:Type>
       <mwg-rs:Area rdf:parseType="Resource">
        <stArea:x>0.25</stArea:x>
        <stArea:y>0.4</stArea:y>
        <stArea:w>0.1</stArea:w>
        <stArea:h>0.2</stArea:h>
        <stArea:unit>normalized</stArea:unit>
       </mwg-rs:Area>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
ANNA = Named("Anna", 0.25, 0.4, 0.1, 0.2)
BEA = Named("Bea", 0.75, 0.4, 0.1, 0.2)
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
)


def photo(path: Path, orientation: int = 1, xmp: str | None = None) -> Path:
    """A JPEG of 400 by 300 stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    more: dict[str, Any] = {} if xmp is None else {"xmp": xmp.encode()}
    Image.new("RGB", (400, 300), (90, 120, 150)).save(path, exif=exif, **more)
    return path


def read(path: Path) -> dict[str, Any]:
    [answer] = sidecars.read_files([{"path": str(path)}])
    return answer


def write(path: Path, *names: Named, **more: Any) -> dict[str, Any]:
    plain = [vars(name) for name in names]
    task = {"path": str(path), "names": plain, "replace": False, "dry_run": False, **more}
    [answer] = sidecars.write_files([task])
    return answer


def nodes(packet: str) -> list[tuple[Any, ...]]:
    """Every element and comment of a packet: its name, attributes and text."""
    root = etree.fromstring(packet.encode())
    return [(str(e.tag), sorted(e.attrib.items()), (e.text or "").strip()) for e in root.iter()]


def rounded(names: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(n["name"], *(round(n[side], 4) for side in "xywh")) for n in names]


@pytest.mark.parametrize("packet", [LIGHTROOM, DIGIKAM])
def test_what_programs_write_is_read(packet: str) -> None:
    found = regions.read(packet.encode())
    assert (found.applied, found.faces) == ((400, 300), [ANNA])


def test_real_files_of_lightroom_and_picasa(shared: Path) -> None:
    path = shared / "media" / "sidecar" / "exifr__IMG_5910.xmp"
    found = regions.read(path.read_bytes())
    assert found.faces == [Named("Alvin the Squirrel", 0.57214, 0.42297, 0.21731, 0.28108)]
    assert found.applied == (1394, 930)
    answer = read(shared / "media" / "jpeg" / "test-assets__portrait.jpg")
    assert [n["name"] for n in answer["names"]] == ["Marie Curie", "Pierre Curie"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_turn_regions_as_pillow_turns_pixels(orientation: int) -> None:
    from PIL import ImageOps

    picture = Image.new("L", (40, 20))
    picture.paste(255, (4, 2, 12, 6))  # x 4 to 12 of 40, y 2 to 6 of 20
    picture.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(picture)
    left, top, right, bottom = upright.getbbox() or (0, 0, 0, 0)
    w, h = upright.size
    shown = rules.displayed(Named("", 0.2, 0.2, 0.2, 0.2), orientation)
    corners = (left / w, top / h, right / w, bottom / h)
    assert shown.corners == pytest.approx(corners)
    back = rules.stored(shown, orientation)
    assert back.corners == pytest.approx(Named("", 0.2, 0.2, 0.2, 0.2).corners)


def test_regions_drawn_on_the_upright_photo_are_known_by_its_size() -> None:
    assert rules.orientation_of((400, 300), (300, 400), 6) == 6
    assert rules.orientation_of((1500, 2000), (300, 400), 6) == 1, "drawn upright"
    assert rules.orientation_of(None, (300, 400), 6) == 6
    assert rules.orientation_of((300, 400), (300, 400), 3) == 3, "its shape cannot tell"


def test_what_is_embedded_and_beside_is_read(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", xmp=LIGHTROOM)
    assert rounded(read(path)["names"]) == [("Anna", 0.25, 0.4, 0.1, 0.2)]
    (tmp_path / "a.jpg.xmp").write_text(DIGIKAM.replace("Anna", "Anne"), encoding="utf-8")
    assert [n["name"] for n in read(path)["names"]] == ["Anne"], "what lies beside is newer"
    turned = photo(tmp_path / "b.jpg", 6)
    (tmp_path / "b.xmp").write_text(LIGHTROOM)
    assert rounded(read(turned)["names"]) == [("Anna", 0.6, 0.25, 0.2, 0.1)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_written_is_read_again(tmp_path: Path, orientation: int) -> None:
    path = photo(tmp_path / "a.jpg", orientation)
    before = path.read_bytes()
    done = write(path, ANNA, BEA)
    sidecar = tmp_path / "a.jpg.xmp"
    assert (done["written"], done["added"], done["errors"]) == ([str(sidecar)], 2, [])
    assert rounded(read(path)["names"]) == rounded([vars(ANNA), vars(BEA)])
    content = sidecar.read_bytes()
    again = write(path, ANNA, BEA)
    assert (again["written"], again["added"]) == ([], 0)
    assert sidecar.read_bytes() == content and path.read_bytes() == before
    assert regions.read(content).applied == (400, 300), "as it is stored"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.jpg.xmp"]


@pytest.mark.parametrize(("name", "packet"), [("a.xmp", LIGHTROOM), ("a.jpg.xmp", DIGIKAM)])
def test_all_else_in_a_sidecar_stays(tmp_path: Path, name: str, packet: str) -> None:
    path, sidecar = photo(tmp_path / "a.jpg"), tmp_path / name
    sidecar.write_text(packet, encoding="utf-8")
    sidecar.chmod(0o640)
    done = write(path, ANNA, BEA)
    assert (done["written"], done["added"]) == ([str(sidecar)], 1)
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o640
    written = sidecar.read_text(encoding="utf-8")
    left = iter(nodes(written))
    assert all(node in left for node in nodes(packet)), "every node is there, in its order"
    assert all(mark in written for mark in re.findall(r"<\?.*?\?>", packet))
    assert [f.name for f in regions.read(written.encode()).faces] == ["Anna", "Bea"]
    for tag in ("People/Bea", "People|Bea", ">Bea<", "Berkeley"):
        assert tag in written
    assert "ns0" not in written
    content = sidecar.read_bytes()
    assert write(path, ANNA, BEA)["written"] == [] and sidecar.read_bytes() == content


def test_another_name_stands_unless_it_is_replaced(tmp_path: Path) -> None:
    path, sidecar = photo(tmp_path / "a.jpg"), tmp_path / "a.jpg.xmp"
    sidecar.write_text(DIGIKAM, encoding="utf-8")
    anne = Named("Anne", 0.26, 0.41, 0.12, 0.18)
    done = write(path, anne)
    assert (done["written"], done["conflicts"]) == ([], [[str(sidecar), "Anne", "Anna"]])
    tried = write(path, anne, replace=True, dry_run=True)
    assert tried["written"] == [str(sidecar)] and sidecar.read_text("utf-8") == DIGIKAM
    assert write(path, anne, replace=True)["added"] == 1
    [face] = regions.read(sidecar.read_bytes()).faces
    assert face == Named("Anne", 0.25, 0.4, 0.1, 0.2), "its measures stay"
    written = sidecar.read_text("utf-8")
    assert "People/Anne" in written and "Anna" not in written and "Places/Berkeley" in written


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB + DIGIKAM.partition("?>\n")[2].partition("?>\n")[2], "document type"),
        (LIGHTROOM[:400], "no whole XML"),
        ("<html/>", "no rdf:RDF"),
        ("\0\1\2", "no whole XML"),
        ("<" + "a" * (17 << 20), "more than 16 MiB"),
    ],
)
def test_a_bad_sidecar_is_told_of_and_left_alone(tmp_path: Path, content: str, why: str) -> None:
    path, sidecar = photo(tmp_path / "a.jpg"), tmp_path / "a.jpg.xmp"
    sidecar.write_text(content, encoding="utf-8")
    good = photo(tmp_path / "b.jpg", xmp=LIGHTROOM)
    bad, fine = sidecars.read_files([{"path": str(path)}, {"path": str(good)}])
    assert bad["names"] == [] and why in bad["errors"][0] and str(sidecar) in bad["errors"][0]
    assert len(fine["names"]) == 1, "the run goes on"
    done = write(path, ANNA)
    assert done["written"] == [] and why in done["errors"][0]
    assert sidecar.read_text(encoding="utf-8") == content


def test_a_deep_sidecar_does_not_kill(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    deep = "<a>" * 100_000 + "</a>" * 100_000
    (tmp_path / "a.xmp").write_text(deep)
    assert "no whole XML" in read(path)["errors"][0]
    with pytest.raises(BadPacket):
        regions.read(deep.encode())


def test_links_and_missing_photos_are_left_alone(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    (tmp_path / "elsewhere").write_text(LIGHTROOM)
    (tmp_path / "a.jpg.xmp").symlink_to(tmp_path / "elsewhere")
    done = write(path, BEA)
    assert done["written"] == [] and done["errors"]
    assert (tmp_path / "elsewhere").read_text() == LIGHTROOM
    gone = write(tmp_path / "gone.jpg", ANNA)
    assert gone["written"] == [] and "gone.jpg" in gone["errors"][0]
    assert not (tmp_path / "gone.jpg.xmp").exists()


def test_a_sidecar_that_changes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sidecar = photo(tmp_path / "a.jpg"), tmp_path / "a.jpg.xmp"
    sidecar.write_text(LIGHTROOM)
    edit = regions.write

    def slow(*given: Any, **more: Any) -> Any:
        sidecar.write_text(DIGIKAM, encoding="utf-8")
        return edit(*given, **more)

    monkeypatch.setattr(regions, "write", slow)
    done = write(path, BEA)
    assert "changed it meanwhile" in done["errors"][0]
    assert sidecar.read_text("utf-8") == DIGIKAM
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.jpg.xmp"]
