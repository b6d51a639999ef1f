"""`kmlp predict` with the weights of a segmenter."""

from kmlp.commands.printing import Pictures, print_all, write_json
from kmlp.predicting.dense_network import open_dense_network
from kmlp.predicting.image_files import images_of
from kmlp.predicting.segmenting import (
    class_map,
    in_words,
    overlay,
    segment_files,
    shares,
    way_of,
)


def run(options):
    """Prints the share of each class in each image."""
    images = images_of(options.images)
    overlays = Pictures(options.overlays, "--overlays")
    maps = Pictures(options.maps, "--maps")
    network = open_dense_network(options.weights, any_size=True)
    names, way = (
        network.class_names,
        way_of(network, mode=options.mode, scales=options.scales, flip=options.flip),
    )
    found = []

    def line(segmented):
        overlays.save(segmented.image, lambda: overlay(segmented, names))
        maps.save(segmented.image, lambda: class_map(segmented, names))
        found.append(
            {
                "image": segmented.image,
                "size": list(segmented.classes.shape),
                "shares": shares(segmented.classes, names),
            }
        )
        return in_words(segmented, names)

    print_all(
        images,
        (
            (s.image, s.picture is not None, s)
            for s in segment_files(network, images, way)
        ),
        line,
        finish=lambda: write_json(options.json, found),
    )
