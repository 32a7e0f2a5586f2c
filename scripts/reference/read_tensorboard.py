"""Prints what TensorBoard's own reader finds in a directory of event files: {tag: [steps]}, scalars and pictures alike."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def steps_by_tag(directory: str) -> dict[str, list[int]]:
    # 0 keeps every event; the default keeps a sample.
    events = EventAccumulator(directory, size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["images"]:
        pictures = events.Images(tag)
        if any(not picture.encoded_image_string.startswith(b"\x89PNG") for picture in pictures):
            sys.exit(f"{tag}: not a PNG")
        steps[tag] = [picture.step for picture in pictures]
    return steps


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: read_tensorboard.py DIR")
    print(json.dumps(steps_by_tag(sys.argv[1])))
