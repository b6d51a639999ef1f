"""Small data sets in the formats of COCO, ADE20K and Cityscapes."""

import json

import numpy as np
from PIL import Image

# Height and width of pictures that are not said to have another.
SIZE = (48, 64)


def write_picture(path, size=SIZE, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_map(path, classes):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(classes, "uint8")).save(path)


def rectangle(x, y, width, height):
    right, below = x + width, y + height
    return [[x, y, right, y, right, below, x, below]]


def run_lengths(mask):
    """Uncompressed, column by column, the first run of zeros."""
    flat = np.asarray(mask).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0] * int(flat[0]) + runs}


def coco_content():
    """Five pictures; categories 3 and 90.

    1: a polygon of each category, a crowd as run lengths. 2: one as run lengths, not
    compressed. 3: nothing. 4: a box half outside, one outside, one without width.
    5: narrower than what is trained on.
    """
    ring = np.zeros(SIZE, "uint8")
    ring[8:40, 8:40] = 1
    ring[16:32, 16:32] = 0
    crowd = np.zeros(SIZE, "uint8")
    crowd[:, 50:] = 1

    def one(image, category, bbox, segmentation, iscrowd=0):
        return {
            "image_id": image,
            "category_id": category,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "iscrowd": iscrowd,
            "segmentation": segmentation,
        }

    found = [
        one(1, 90, [4, 6, 20, 10], rectangle(4, 6, 20, 10)),
        one(2, 3, [8, 8, 32, 32], run_lengths(ring)),
        one(1, 3, [30, 20, 10, 24], rectangle(30, 20, 10, 24)),
        one(1, 3, [50, 0, 14, 48], run_lengths(crowd), iscrowd=1),
        one(4, 3, [-10, 10, 20, 20], rectangle(-10, 10, 20, 20)),
        one(4, 3, [70, 10, 20, 20], rectangle(70, 10, 20, 20)),
        one(4, 90, [10, 10, 0, 20], rectangle(10, 10, 0, 20)),
        one(5, 3, [2, 2, 10, 10], rectangle(2, 2, 10, 10)),
    ]
    for number, item in enumerate(found):
        item["id"] = number  # 0 too, which pycocotools would take for none
    sizes = {number: (24, 64) if number == 5 else SIZE for number in range(1, 6)}
    return {
        "images": [
            {"id": n, "file_name": f"{n:012d}.jpg", "height": size[0], "width": size[1]}
            for n, size in sizes.items()
        ],
        "annotations": found,
        "categories": [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}],
    }


def write_coco(root, content=None, year="2017", pictures="{split}{year}"):
    for split in ("train", "val"):
        of_split = content or coco_content()
        home = root / pictures.format(split=split, year=year)
        for item in of_split["images"]:
            size = item["height"], item["width"]
            write_picture(home / item["file_name"], size, seed=item["id"])
        path = root / "annotations" / f"instances_{split}{year}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(of_split))
    return root


def write_ade20k(root, sizes=((48, 64), (40, 56))):
    for split in ("training", "validation"):
        for number, size in enumerate(sizes):
            name = f"ADE_{split}_{number:08d}"
            classes = np.arange(size[0] * size[1]).reshape(size) % 151
            write_picture(root / "images" / split / f"{name}.jpg", size, number)
            write_map(root / "annotations" / split / f"{name}.png", classes)
    return root


def write_cityscapes(root, ending="labelIds", size=(32, 64)):
    for split, cities in {"train": ("ulm", "bonn"), "val": ("jena",)}.items():
        for city in cities:
            name = f"{city}_000000_000019"
            image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            classes = np.arange(size[0] * size[1]).reshape(size) % 34
            if ending == "labelTrainIds":
                classes = np.where(classes < 19, classes, 255)
            write_picture(image, size)
            truth = root / "gtFine" / split / city / f"{name}_gtFine_{ending}.png"
            write_map(truth, classes)
    return root
