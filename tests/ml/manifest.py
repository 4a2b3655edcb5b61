"""What is known of the manifest of odd and broken files, beside what it says itself."""

# Where the manifest tells a size that is not the one displayed, as one sees in the picture.
MANIFEST_ERRS = {
    "formats/libavif__abc_color_irot_alpha_NOirot.avif": "irot 90°: displayed 256 × 512",
    "formats/pillow__rot1mir1.avif": "irot 90° and imir: displayed 640 × 427, words in it upright",
    "formats/pillow__rot3mir0.avif": "irot 270°: displayed 640 × 427, words in it upright",
    "synthetic/formats/exif.avif": "irot 270°: displayed 200 × 300, as the manifest has exif.heic",
    "raw/photoprism__canon_eos_6d.dng": "256 × 171 is its preview; the raw photo is 1224 × 816",
}
