"""`kmlp predict` with the weights of a detector."""

from kmlp.commands.printing import Pictures, print_all, write_json
from kmlp.predicting.dense_network import open_dense_network
from kmlp.predicting.detecting import coco_entries, detect, in_words, overlay
from kmlp.predicting.image_files import images_of

# Objects of lower scores are mostly none; files of results have them all.
SCORE = 0.3


def run(options):
    """Prints the objects of each image."""
    images = images_of(options.images)
    overlays = Pictures(options.overlays, "--overlays")
    network = open_dense_network(options.weights)
    names = network.class_names
    score = options.score or SCORE
    entries, numbers = [], {image: n for n, image in enumerate(images, 1)}

    def line(detected):
        image = detected.image
        if options.json is not None:
            known = network.preprocessing
            entries.extend(coco_entries(detected, numbers[image], known))
        overlays.save(image, lambda: overlay(detected, names, score))
        return in_words(detected, names, score)

    found = detect(network, images, batch_size=options.batch_size or 8)
    print_all(
        images,
        ((d.image, d.picture is not None, d) for d in found),
        line,
        finish=lambda: write_json(options.json, entries),
    )
