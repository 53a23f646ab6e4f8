"""The share of images that show the class that was asked for.

A classifier that was trained on real images looks at generated ones, as in the GAN-test of Shmelkov
et al. 2018 (arXiv:1807.09499) [unverified]. It says nothing about how varied a class is.
"""

from torch import Tensor

from crgan_cli.data.images import Images
from crgan_cli.evaluation.metrics import classifier
from crgan_cli.evaluation.metrics.base import Metric, require_labels
from crgan_cli.evaluation.metrics.classifier import Classifier, load_or_train_classifier
from crgan_cli.evaluation.metrics.features import FeatureSet, Progress, Stop


class ClassAccuracy(Metric):
    """`class_accuracy`: the share of generated images whose predicted class is their own.

    `class_accuracy_real`, which the evaluator adds, is that of held-out real images.
    """

    name = key = "class_accuracy"
    required = frozenset({"predicted"})
    needs_labels = True
    classifier: Classifier | None = None

    def fit(
        self, training: Images, progress: Progress | None = None, stop: Stop | None = None
    ) -> None:
        """Learn the classes from real images."""
        self.classifier = load_or_train_classifier(training, progress, stop)

    def predict(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) uint8, or float in [0, 255] -> (N,) int64 class ids."""
        assert self.classifier, "call fit(images) first"
        return self.classifier.predict(pixels)

    def describe(self) -> dict[str, str | int | float]:
        learnt_from = self.classifier.images_sha256 if self.classifier else "nothing yet"
        return {
            "class_accuracy_classifier": classifier.VERSION,
            "class_accuracy_images_sha256": learnt_from,
        }

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        asked = require_labels(fake, "generated", self.name)
        assert fake.predicted is not None, "'predicted' is in `required`"
        right = fake.predicted.cpu() == asked.cpu()
        return {"class_accuracy": float(right.double().mean())}
