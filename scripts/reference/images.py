"""Preprocesses pictures with Pillow and torchvision, by InternVL's published recipe for InternVL3
(`load_image` in the model cards): decode to RGB, resize to the grid of tiles with the nearest aspect
ratio, cut, add a thumbnail, normalise.

    python -m venv reference && reference/bin/pip install -r scripts/reference/requirements.txt
    reference/bin/python scripts/reference/images.py          # writes tests/fixtures/images
    reference/bin/python scripts/reference/images.py --live target/debug/cadwright

`--live` compares many random pictures. It prints the largest difference of each kind of picture, in
levels of 255 before normalisation, and fails above 1.

Pillow 13 changed the order of its two passes for pictures that lose more than twice as many rows as
columns (python-pillow/Pillow#9549): older versions give other thumbnails there.
"""

import argparse
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFile
from safetensors.torch import load_file, save_file
from torchvision import transforms

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/images"
SEED = 7
MAX_TILES = 12
# Small tiles make small fixtures.
FIXTURE_TILE_SIZE = 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pillow's JPEG encoder needs a buffer for a whole progressive picture.
ImageFile.MAXBLOCK = 1 << 24
# Transparent palettes are converted to RGB on purpose.
warnings.filterwarnings("ignore", message="Palette images with Transparency")


# --- The reference


def tile_grid(width: int, height: int, tile_size: int, max_tiles: int) -> tuple[int, int]:
    """Columns and rows: InternVL's `find_closest_aspect_ratio` over the ratios that its
    `dynamic_preprocess` sorts."""
    counts = range(1, max_tiles + 1)
    grids = {(i, j) for n in counts for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= max_tiles}
    best, least = (1, 1), float("inf")
    for grid in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - grid[0] / grid[1])
        if difference < least:
            best, least = grid, difference
        elif difference == least and width * height > 0.5 * tile_size * tile_size * grid[0] * grid[1]:
            best = grid
    return best


def resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def tiles(data: bytes, tile_size: int, max_tiles: int = MAX_TILES) -> list[Image.Image]:
    """The tiles of an encoded picture, row by row, and the thumbnail if there are several."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    columns, rows = tile_grid(*picture.size, tile_size, max_tiles)
    whole = resize(picture, columns * tile_size, rows * tile_size)
    corners = [(column * tile_size, row * tile_size) for row in range(rows) for column in range(columns)]
    cut = [whole.crop((left, top, left + tile_size, top + tile_size)) for left, top in corners]
    return cut + [resize(picture, tile_size, tile_size)] if len(cut) > 1 else cut


def pixel_values(cut: list[Image.Image]) -> torch.Tensor:
    """[tiles, 3, size, size] f32. InternVL resizes each tile to its own size here, which changes
    nothing."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=STD)])
    return torch.stack([transform(tile) for tile in cut])


# --- Pictures


def drawing(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Hard-edged shapes on a gradient."""
    slope = np.linspace(0, 255, width)[None, :, None] * rng.random(3) + np.zeros((height, 1, 1))
    picture = Image.fromarray(slope.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        corners = np.sort(rng.integers(0, [width, height], (2, 2)), axis=0)
        draw.rectangle([tuple(map(int, corner)) for corner in corners], fill=tuple(map(int, rng.integers(0, 256, 3))))
    return picture


def noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Independent values, half of them at the ends, so that resizing overshoots and clamps."""
    values = rng.integers(-128, 384, (height, width, 3)).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8))


def alpha(picture: Image.Image) -> Image.Image:
    """From transparent to opaque, left to right."""
    width, height = picture.size
    return Image.fromarray(np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width)).copy())


def with_alpha(picture: Image.Image, mode: str) -> Image.Image:
    picture = picture.convert(mode)
    picture.putalpha(alpha(picture))
    return picture


def saved(picture: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png(samples: np.ndarray, colour_type: int, depth: int, transparent: bytes = b"") -> bytes:
    """Writes the PNGs that Pillow cannot write. samples: [height, width, channels], `depth` bits
    each; rows are padded to whole bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = samples.shape
    bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    extra = chunk(b"tRNS", transparent) if transparent else b""
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def wide(picture: Image.Image) -> np.ndarray:
    """16 bits of each value; the lower 8 are not a copy of the upper ones."""
    values = np.atleast_3d(np.asarray(picture)).astype(np.int64)
    return values * 256 + (values * 37 + 11) % 256


def grey_16(picture: Image.Image) -> np.ndarray:
    """16-bit greys, half of them below 256: Pillow turns all greater ones white."""
    return np.asarray(picture.convert("L")).astype(np.int64)[:, :, None] * 2


def adobe_transform(jpeg: bytes, transform: int | None) -> bytes:
    """One of Pillow's JPEGs with another colour transform in Adobe's marker, or without the marker."""
    start = jpeg.index(b"\xff\xee\x00\x0eAdobe")
    marker = jpeg[start : start + 15] + bytes([transform]) if transform is not None else b""
    return jpeg[:start] + marker + jpeg[start + 16 :]


def oriented(picture: Image.Image) -> bytes:
    """A JPEG with an orientation tag of 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture, "JPEG", exif=exif)


PNG = {
    "rgb.png": lambda p: saved(p, "PNG"),
    "grey.png": lambda p: saved(p.convert("L"), "PNG"),
    "bilevel.png": lambda p: saved(p.convert("1"), "PNG"),
    "grey-2-bits.png": lambda p: png(np.asarray(p.convert("L"))[:, :, None].astype(np.int64) >> 6, 0, 2),
    "grey-16-bits.png": lambda p: png(grey_16(p), 0, 16),
    "grey-16-bits-transparent.png": lambda p: png(grey_16(p), 0, 16, transparent=b"\0\0"),
    "grey-alpha.png": lambda p: saved(with_alpha(p, "L"), "PNG"),
    "grey-alpha-16-bits.png": lambda p: png(wide(with_alpha(p, "L")), 4, 16),
    "rgb-16-bits.png": lambda p: png(wide(p), 2, 16),
    "rgba.png": lambda p: saved(with_alpha(p, "RGB"), "PNG"),
    "rgba-16-bits.png": lambda p: png(wide(with_alpha(p, "RGB")), 6, 16),
    "palette.png": lambda p: saved(p.quantize(200), "PNG"),
    "palette-4-bits.png": lambda p: saved(p.quantize(16), "PNG", bits=4),
    "palette-transparent.png": lambda p: saved(p.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
}
JPEG = {
    "444.jpg": lambda p: saved(p, "JPEG", subsampling="4:4:4", quality=90),
    "422.jpg": lambda p: saved(p, "JPEG", subsampling="4:2:2", quality=60),
    "420.jpg": lambda p: saved(p, "JPEG", subsampling="4:2:0"),
    "420-restarts.jpg": lambda p: saved(p, "JPEG", subsampling="4:2:0", restart_marker_blocks=2),
    "progressive.jpg": lambda p: saved(p, "JPEG", subsampling="4:2:0", progressive=True),
    "rgb.jpg": lambda p: saved(p, "JPEG", keep_rgb=True, quality=90),
    "grey.jpg": lambda p: saved(p.convert("L"), "JPEG"),
    "cmyk-adobe.jpg": lambda p: saved(p.convert("CMYK"), "JPEG", quality=90),
    "cmyk-plain.jpg": lambda p: adobe_transform(saved(p.convert("CMYK"), "JPEG", quality=90), None),
    "ycck.jpg": lambda p: adobe_transform(saved(p.convert("CMYK"), "JPEG", quality=90), 2),
    "exif-rotated.jpg": oriented,
}
WEBP = {
    "lossy.webp": lambda p: saved(p, "WEBP", quality=60),
    "lossless.webp": lambda p: saved(p, "WEBP", lossless=True),
    "lossy-alpha.webp": lambda p: saved(with_alpha(p, "RGB"), "WEBP", quality=60),
    "lossless-alpha.webp": lambda p: saved(with_alpha(p, "RGB"), "WEBP", lossless=True, exact=True),
    "animated.webp": lambda p: saved(
        p, "WEBP", save_all=True, append_images=[p.transpose(Image.Transpose.ROTATE_180)], lossless=True
    ),
}
KINDS = PNG | JPEG | WEBP
# Sizes for which both axes shrink, both grow, one of each, or nothing is resized.
SHAPES = {"square": (30, 30), "wide": (70, 15), "tall": (15, 70), "dot": (1, 1), "needle": (3, 200), "tile": (14, 14)}


# --- Fixtures


def write_fixtures() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    rng = np.random.default_rng(SEED)
    inputs = {name: encode(drawing(rng, 40, 27)) for name, encode in KINDS.items()}
    inputs |= {f"{name}.png": saved(noise(rng, *size), "PNG", optimize=True) for name, size in SHAPES.items()}
    # Stripes of one bit: a large picture in a small file.
    stripes = np.indices((3000, 4000)).sum(0) // 37 % 2 == 0
    inputs["huge.png"] = saved(Image.fromarray(stripes), "PNG", optimize=True)
    for name, data in inputs.items():
        (OUT / name).write_bytes(data)
        expected = np.concatenate([np.asarray(tile) for tile in tiles(data, FIXTURE_TILE_SIZE)])
        Image.fromarray(expected).save(OUT / f"{name}.tiles.png", optimize=True)

    every_byte = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    normalised = pixel_values([Image.fromarray(every_byte)])
    save_file({"pixels": torch.tensor(every_byte).permute(2, 0, 1)[None].contiguous(), "normalised": normalised},
              OUT / "normalised.safetensors")  # fmt: skip

    # All sizes up to 64 x 64: equal ratios and areas near half of a grid's occur in all combinations.
    rows = [[tile_grid(width, height, 7, MAX_TILES) for width in range(1, 65)] for height in range(1, 65)]
    lines = ["".join(f"{columns:x}{rows:x}" for columns, rows in row) for row in rows]
    (OUT / "grids.txt").write_text("\n".join(lines) + "\n")
    total = sum(path.stat().st_size for path in OUT.iterdir())
    print(f"{OUT}: {len(inputs)} pictures, {total / 1000:.0f} kB in all")


# --- Live comparison


def cadwright(binary: Path, directory: Path, name: str, data: bytes, *options: str) -> tuple[dict, torch.Tensor]:
    """The binary's summary and pixel values of a picture."""
    image, output = directory / name, directory / f"{name}.safetensors"
    image.write_bytes(data)
    command = [binary, "data", "pixels", "--image", image, "--output", output, *options]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"{name}: {finished.stderr}")
    values = load_file(output)["pixel_values"]
    image.unlink()
    output.unlink()
    return json.loads(finished.stdout), values


def difference(binary: Path, directory: Path, name: str, data: bytes, tile_size: int) -> tuple[float, float]:
    """The largest difference in levels of 255, and of the normalised values."""
    expected = pixel_values(tiles(data, tile_size))
    _, found = cadwright(binary, directory, name, data, "--tile-size", str(tile_size))
    if found.shape != expected.shape:
        sys.exit(f"{name}: expected {list(expected.shape)}, found {list(found.shape)}")
    apart = (found - expected).abs()
    return float((apart * torch.tensor(STD).view(3, 1, 1)).max() * 255), float(apart.max())


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Sides from 1 to 900, short ones as likely as long ones."""
    width, height = np.exp(rng.uniform(0, np.log(900), 2)).astype(int)
    return int(width), int(height)


def live(binary: Path, count: int, grids: int) -> None:
    rng = np.random.default_rng()
    sizes = SHAPES | {"tiles": (1344, 896), "narrow": (20, 2100), "large": (4000, 3000), "flat": (3000, 2)}
    jobs = []  # (kind, name, size, encoder, contents)
    for kind, encode in KINDS.items():
        for number in range(count):
            contents = drawing if number % 3 == 0 else noise
            jobs.append((kind, f"{number}-{kind}", random_size(rng), encode, contents))
    for shape, size in sizes.items():
        for suffix in ["png", "jpg"]:
            encode = KINDS["rgb.png" if suffix == "png" else "420.jpg"]
            jobs.append((f"{shape}.{suffix}", f"{shape}.{suffix}", size, encode, noise))
    worst: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor() as pool:

        def compare(job) -> tuple[str, float, float]:
            kind, name, size, encode, contents = job
            seed = [*size, zlib.crc32(name.encode())]
            data = encode(contents(np.random.default_rng(seed), *size))
            return kind, *difference(binary, Path(directory), name, data, 448)

        for kind, levels, normalised in pool.map(compare, jobs):
            before = worst.setdefault(kind, [0, 0.0, 0.0])
            worst[kind] = [before[0] + 1, max(before[1], levels), max(before[2], normalised)]
        print(f"{'kind':30} {'pictures':>8} {'x255':>8} {'normalised':>11}")
        for kind, (pictures, levels, normalised) in worst.items():
            print(f"{kind:30} {pictures:8} {levels:8.4f} {normalised:11.1e}")

        def same_grid(number: int) -> bool:
            width, height = (random.randint(1, 40) * random.choice([1, 1, 7, 28, 56]) for _ in range(2))
            tile_size, max_tiles = random.choice([1, 14, 28]), random.choice([1, 2, 6, 12, 12, 12, 24, 40])
            data = saved(Image.new("1", (width, height)), "PNG")
            options = ["--tile-size", str(tile_size), "--max-tiles", str(max_tiles)]
            summary, _ = cadwright(binary, Path(directory), f"{number}.png", data, *options)
            found, expected = (summary["columns"], summary["rows"]), tile_grid(width, height, tile_size, max_tiles)
            if found != expected:
                print(f"{width} x {height}, tiles of {tile_size}, at most {max_tiles}: {found}, expected {expected}")
            return found == expected

        wrong = sum(not same for same in pool.map(same_grid, range(grids)))
    print(f"tile grids: {grids - wrong} of {grids} the same")
    if wrong or any(levels > 1 for _, levels, _ in worst.values()):
        sys.exit("images.py: a difference above 1 of 255, or another grid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=Path, metavar="BINARY", help="compare with this cadwright; write nothing")
    parser.add_argument("--count", type=int, default=8, help="random pictures of each kind (default: %(default)s)")
    parser.add_argument("--grids", type=int, default=2000, help="random tile grids (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.live:
        live(args.live.resolve(), args.count, args.grids)
    else:
        write_fixtures()


if __name__ == "__main__":
    main()
