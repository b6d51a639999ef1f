"""Parameters and multiply-adds of the papers' dense networks as they are here."""

from kmlp.recipes.dense_choosing import CATALOGUE

# Classes, and height and width at which the papers count.
COUNTED_AT = {
    "coco:DIR": (80, (800, 1280)),
    "ade20k:DIR": (150, (512, 2048)),
    "cityscapes:DIR": (19, (1024, 2048)),
}
# Sizes that Focal's windows of 7 tile at strides of up to 32.
FOCAL_TILE = 224


def count(row):
    """Builds a row's network and counts it.

    As in the papers, what only training needs is counted, moving statistics are not;
    of the two-stage heads all proposals are.

    Args:
        row: `Reported`.

    Returns:
        parameters, and multiply-adds or, of Focal's hybrids, whose windows do not tile
        those sizes, `None`.
    """
    # Imported here: recipes are listed without waiting for Keras.
    from kmlp import create_model, detection, segmentation
    from kmlp.analysis.complexity import count_parameters, profile, shapes_only

    recipe = CATALOGUE[row.recipe]
    classes, size = COUNTED_AT[recipe.data]
    head = {
        "retinanet": detection.RetinaNet,
        "mask_rcnn": detection.MaskRCNN,
        "cascade_mask_rcnn": detection.CascadeMaskRCNN,
        "semantic_fpn": segmentation.SemanticFPN,
        "upernet": segmentation.UperNet,
    }[recipe.head]
    arguments = recipe.model | row.model
    tiled = "focal" not in row.arch
    if not tiled:
        size = tuple(-(-s // FOCAL_TILE) * FOCAL_TILE for s in size)
    # Shapes only, no weights are drawn.
    with shapes_only():
        backbone = create_model(
            row.arch, input_shape=(*size, 3), include_top=False, **arguments
        )
        model = head(backbone, classes, **recipe.head_arguments)
    parameters = count_parameters(model.trainable_weights)
    return parameters, profile(model).macs if tiled else None
