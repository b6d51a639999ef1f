"""Hand out what a plain Keras `fit` takes from a recipe of classification."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmlp.errors import InputError, check_known
from kmlp.recipes.choosing import CATALOGUE, recipe_for
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.recipe import check_settable

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class FitRecipe:
    """Serve a recipe's optimizer, loss, images and callbacks to `model.fit`.

    The recipe's fields are attributes, but for the name of the optimizer, which is
    `recipe.optimizer`. TensorFlow and Keras are imported when a method is called.

    Args:
        recipe: Recipe to serve.
    """

    recipe: ClassificationRecipe

    def __getattr__(self, name: str) -> Any:
        # `recipe` itself is missing while a copy is made.
        if name == "recipe" or name not in self.recipe.hints():
            raise AttributeError(f"A recipe has no {name!r}")
        return getattr(self.recipe, name)

    @property
    def total_epochs(self) -> int:
        """Return the epochs of `fit`: those of the cosine and of the cool-down.

        Raises:
            InputError: If the recipe leaves its epochs open.
        """
        self._check_epochs()
        return self.epochs + self.cooldown_epochs

    def _check_epochs(self):
        if self.epochs is None:
            self.recipe.refuse(
                f"{self.name} leaves the epochs open: pass epochs.", "epochs"
            )

    @property
    def averages(self) -> bool:
        """Return whether the averaged weights are what the paper tests."""
        return self.evaluate == "ema"

    def optimizer(self, model: "keras.Model", steps: int) -> "keras.Optimizer":
        """Build the recipe's optimizer with its schedule, clipping and average.

        Make it within the strategy's scope. It averages the weights where the paper
        tests the average; Keras' average begins as the weights after the first update,
        the trainer's as those before it.

        Args:
            model: Model whose variables it updates; only its kernels decay.
            steps: Updates in an epoch, as `fit`'s `steps_per_epoch`.

        Raises:
            InputError: If the recipe leaves its epochs open or accumulates gradients.
        """
        import keras

        from kmlp.training.optimization import make_optimizer, make_schedule

        if self.accumulate != 1:
            problem = "`fit` makes one update of each batch: leave accumulate at 1."
            self.recipe.refuse(problem, "accumulate")
        self._check_epochs()
        resolved = self.recipe
        if resolved.warmup_epochs is None:
            resolved = resolved.resolved(images=steps * self.batch_size)
        options = {}
        if self.clip_norm is not None:
            # Keras clips in every replica, before the sum over all of them.
            replicas = 1
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                replicas = tf.distribute.get_strategy().num_replicas_in_sync
            options["global_clipnorm"] = self.clip_norm / replicas
        if self.averages:
            options |= {"use_ema": True, "ema_momentum": self.ema}
        return make_optimizer(
            resolved, model, make_schedule(resolved, int(steps)), **options
        )

    def loss(self) -> "keras.Loss":
        """Return the cross-entropy of logits and the targets of `dataset`.

        The targets are smoothed where they are mixed, so the loss does not smooth.

        Raises:
            InputError: If the recipe learns from a teacher.
        """
        import keras

        if self.distillation != "none":
            self.recipe.refuse(
                "`fit` has no teacher: pass distillation='none', or train with "
                "training/train.py.",
                "distillation",
            )
        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def dataset(
        self,
        dataset: "tf.data.Dataset",
        *,
        num_classes: int,
        batch_size: int | None = None,
        training: bool = True,
        seed: int = 0,
    ) -> "tf.data.Dataset":
        """Prepare images as the paper does, by the trainer's own functions.

        Training images repeat without end, so that every epoch has augmentations of
        its own: pass `steps_per_epoch` to `fit`. Shuffle them beforehand. Each is
        augmented by the seed and its position, and follows itself `repeats` times.

        Under a strategy Keras fails where a replica has no image of a batch: make test
        images within its scope, and their batches have some for every replica.

        Args:
            dataset: Pairs of an image, `(H, W, 3)` uint8 or the bytes of its file, and
                an integer label; not batched.
            num_classes: Number of classes.
            batch_size: Images per batch over all replicas; `None`: the recipe's, by
                which the rate is scaled.
            training: Whether to crop at random, augment and mix; else the centre is
                cropped and all images are shown once.
            seed: Seed of the augmentation.

        Returns:
            Batches of `(images, targets)`, float32 `(N, image_size, image_size, 3)`
            and `(N, num_classes)`.

        Raises:
            InputError: If the recipe has no mean and deviation, or there are too few
                test images for the replicas.
        """
        import tensorflow as tf

        from kmlp.data.decode import centre_crop, normalise
        from kmlp.training.input.mixing import smoothed
        from kmlp.training.input.pipeline import draw, mixer, preparation

        if self.mean is None:
            self.recipe.refuse(
                f"{self.name} takes the data's own statistics: pass mean and std, "
                "three numbers each, of images in 0…1.",
                "mean",
                "std",
            )
        batch_size = batch_size or self.batch_size
        size, auto = self.image_size, tf.data.AUTOTUNE

        def evaluated(
            image: tf.Tensor, label: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            image = centre_crop(image, size, self.test_crop, self.test_interpolation)
            image = normalise(image, self.mean, self.std)
            return image, smoothed(tf.cast(label, tf.int32), num_classes, 0.0)

        if not training:
            shown = dataset.map(evaluated, num_parallel_calls=auto).batch(batch_size)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            images = int(dataset.cardinality())  # negative where it is unknown
            if replicas > 1 and images > 0:
                shown = shown.rebatch(_shared_sizes(images, batch_size, replicas))
            return shown.prefetch(auto)
        part, augmented = preparation(self.recipe, size, self.mean, self.std)

        def sample(position: tf.Tensor, pair: tuple[Any, Any]) -> tuple[Any, ...]:
            image, label = pair
            crops, draws, seeds, keys = draw(seed, position[None], self.recipe)
            image = augmented(part(image, crops[0], draws[0]), draws[0], seeds[0])
            return image, tf.cast(label, tf.int32), keys[0]

        def repeated(*pair: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensors(pair).repeat(self.repeats)

        shown = dataset.flat_map(repeated) if self.repeats > 1 else dataset
        shown = shown.repeat().enumerate().map(sample, num_parallel_calls=auto)
        shown = shown.batch(batch_size, drop_remainder=True)
        mixed = mixer(self.recipe, num_classes)
        return shown.map(mixed, num_parallel_calls=auto).prefetch(auto)

    def callbacks(
        self, directory: str | Path, **options: Any
    ) -> list["keras.callbacks.Callback"]:
        """Return the callbacks that test the average and export the merged network.

        Args:
            directory: Folder of the exported versions.
            options: Further arguments of `kmlp.callbacks.MergeAndExport`.
        """
        import keras

        from kmlp.callbacks import MergeAndExport

        swap = [keras.callbacks.SwapEMAWeights()] if self.averages else []
        return [*swap, MergeAndExport(directory, **options)]


def _shared_sizes(images, batch_size, replicas):
    """Return sizes of batches of which every replica gets an image.

    A strategy gives each replica a batch's share, rounded up, while images last. So
    all batches but the last divide, and that is large enough for the last replica.
    """
    size = max(1, batch_size // replicas) * replicas
    rest = images % replicas
    last = (replicas - rest) * replicas + rest if rest else 0
    if last > images:
        raise InputError(
            f"These images do not give each replica one of every batch: take {last} or "
            f"more, a multiple of {replicas}, or evaluate on one device. Received: "
            f"{images} images for {replicas} replicas"
        )
    whole, others = divmod(images - last, size)
    return [number for number in (*[size] * whole, others, last) if number]


def get(name: str, arch: str | None = None, **changes: Any) -> FitRecipe:
    """Return a paper's recipe for a `fit` of one's own.

    Args:
        name: Name of the recipe, of `list_recipes()`.
        arch: Architecture whose particular settings count; `None`: none has any.
        changes: Fields to change. With `epochs`, warm-up and cool-down keep their
            share; with `batch_size`, the rates scale as the paper says.

    Raises:
        InputError: If the recipe or a field is unknown, or a value does not fit.
    """
    check_known(name, CATALOGUE, "recipe")
    recipe = CATALOGUE[name].recipe if arch is None else recipe_for(arch, name=name)
    for field, value in changes.items():
        check_settable(recipe, field, f"{field}={value}")
    if changes.get("epochs"):
        recipe = recipe.shortened(changes["epochs"])
    return FitRecipe(dataclasses.replace(recipe, **changes))
