"""What is read, and what is said of the rest."""

from pathlib import Path

from PIL import Image

from training.data.image_files import find_images

for name in ("photos/anna/1.png", "photos/anna/2.jfif", "disk/bert/1.png", "disk/bert/2.pgm"):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), 99).save(name, {".jfif": "JPEG", ".pgm": "PPM"}.get(Path(name).suffix))
Path("photos/bert").symlink_to(Path("disk/bert").resolve())
Path("photos/carl").mkdir()
for name in ("photos/carl/1.heic", "photos/anna/3.avif"):
    Path(name).write_bytes(b"x")
Path("photos/dora").symlink_to(Path("gone").resolve())
heard: list[str] = []
files = find_images([Path("photos")], say=heard.append)
assert [file.name for file in files] == ["anna/1.png", "anna/2.jfif", "bert/1.png", "bert/2.pgm"]
assert all(file.open().size == (16, 16) for file in files)
[sentence] = heard
for part in ("anna/3.avif", "carl/1.heic", "dora (a link to nothing)", "No image was read of carl"):
    assert part in sentence
