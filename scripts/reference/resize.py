"""Writes tests/fixtures/resize/*.png: what Pillow's bicubic resize makes of a picture that the test computes too.

Run with a Pillow from 3.4 to 12: pip install pillow==11.3.0 && python scripts/reference/resize.py
Pillow 13 runs the vertical pass first where the height shrinks much more than the width (python-pillow/Pillow#9549),
which moves some bytes. The models were trained with the older order.
"""

from pathlib import Path

from PIL import Image

# (from width, from height, to width, to height): smaller, larger, one axis each way, odd factors.
CASES = [(37, 23, 16, 16), (20, 30, 48, 40), (64, 48, 28, 28), (31, 50, 45, 21), (90, 7, 11, 7)]
OUT = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "resize"


def picture(width: int, height: int) -> Image.Image:
    """Steps and noise, so that weights, order of passes and clamping all matter."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            step = 255 if (x // 5 + y // 4) % 2 else 0
            image.putpixel((x, y), (step, (x * 37 + y * 91 + x * y * 13) % 256, 255 - step if x > y else 128))
    return image


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for from_w, from_h, to_w, to_h in CASES:
        resized = picture(from_w, from_h).resize((to_w, to_h), Image.Resampling.BICUBIC)
        resized.save(OUT / f"{from_w}x{from_h}-{to_w}x{to_h}.png", optimize=True)


if __name__ == "__main__":
    main()
