"""Prints what TensorBoard's own reader finds in the event files below a directory: {tag: [steps]}, scalars, pictures and histograms alike."""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def steps_by_tag(directory: Path) -> dict[str, list[int]]:
    # 0 keeps every event; the default keeps a sample.
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["images"]:
        pictures = events.Images(tag)
        if any(not picture.encoded_image_string.startswith(b"\x89PNG") for picture in pictures):
            sys.exit(f"{tag}: not a PNG")
        steps[tag] = [picture.step for picture in pictures]
    for tag in tags["histograms"]:
        histograms = events.Histograms(tag)
        for event in histograms:
            check_histogram(tag, event.histogram_value)
        steps[tag] = [event.step for event in histograms]
    return steps


def check_histogram(tag: str, histogram) -> None:
    limits, counts = histogram.bucket_limit, histogram.bucket
    if len(counts) < 2 or len(limits) != len(counts) or sorted(set(limits)) != list(limits):
        sys.exit(f"{tag}: {len(counts)} buckets up to {limits}")
    if sum(counts) != histogram.num or not histogram.min < limits[0] or limits[-1] != histogram.max:
        sys.exit(f"{tag}: the buckets do not hold all {histogram.num} values")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: read_tensorboard.py DIR")
    # TensorBoard takes each directory that has event files as a run.
    directories = {path.parent for path in Path(sys.argv[1]).rglob("*tfevents*")}
    runs = [steps_by_tag(directory) for directory in sorted(directories)]
    steps = {tag: steps for run in runs for tag, steps in run.items()}
    if len(steps) < sum(map(len, runs)):
        sys.exit("a tag is in two runs")
    print(json.dumps(steps))
