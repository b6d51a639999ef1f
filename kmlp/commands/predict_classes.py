"""`kmlp predict` with the weights of a classifier."""

from kmlp.commands.printing import print_all, write_json
from kmlp.console import RESOLUTIONS
from kmlp.predicting.classifying import open_classifier, predict
from kmlp.predicting.image_files import images_of


def run(options):
    """Prints the likeliest classes of each image."""
    images = images_of(options.images)
    classifier = open_classifier(
        options.weights,
        arch=options.arch,
        given={name: getattr(options, name) for name in options.preparation},
        resolution=options.resolution or RESOLUTIONS[0],
    )
    predictions = predict(
        classifier,
        images,
        top=options.top or 5,
        batch_size=options.batch_size or 32,
    )
    found = []

    def in_words(prediction):
        found.append(_plain(prediction))
        return ", ".join(f"{name} {score:.1%}" for name, _, score in prediction.classes)

    print_all(
        images,
        ((p.image, p.classes is not None, p) for p in predictions),
        in_words,
        finish=lambda: write_json(options.json, found),
    )


def _plain(prediction):
    classes = [
        {"name": name, "index": index, "score": score}
        for name, index, score in prediction.classes
    ]
    return {"image": prediction.image, "classes": classes}
