"""The papers in code: losses, regularizers, transforms T, and the tasks that play them."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.gan.ada import ADA as ADA
    from crgan_cli.gan.augment import Augment as Augment
    from crgan_cli.gan.augment import Cutout as Cutout
    from crgan_cli.gan.augment import FlipShift as FlipShift
    from crgan_cli.gan.augment import GaussianNoise as GaussianNoise
    from crgan_cli.gan.diffaugment import DiffAugment as DiffAugment
    from crgan_cli.gan.losses import AdversarialLoss as AdversarialLoss
    from crgan_cli.gan.losses import Hinge as Hinge
    from crgan_cli.gan.losses import LeastSquares as LeastSquares
    from crgan_cli.gan.losses import Minimax as Minimax
    from crgan_cli.gan.losses import NonSaturating as NonSaturating
    from crgan_cli.gan.losses import Relativistic as Relativistic
    from crgan_cli.gan.losses import Wasserstein as Wasserstein
    from crgan_cli.gan.regularizers.base import Regularizer as Regularizer
    from crgan_cli.gan.regularizers.classification import (
        AuxiliaryClassifier as AuxiliaryClassifier,
    )
    from crgan_cli.gan.regularizers.classification import Classification as Classification
    from crgan_cli.gan.regularizers.consistency import BalancedConsistency as BalancedConsistency
    from crgan_cli.gan.regularizers.consistency import (
        ConsistencyRegularization as ConsistencyRegularization,
    )
    from crgan_cli.gan.regularizers.consistency import LatentConsistency as LatentConsistency
    from crgan_cli.gan.regularizers.drift import Drift as Drift
    from crgan_cli.gan.regularizers.lecam import LeCam as LeCam
    from crgan_cli.gan.regularizers.path_length import PathLength as PathLength
    from crgan_cli.gan.regularizers.penalties import DRAGAN as DRAGAN
    from crgan_cli.gan.regularizers.penalties import R1 as R1
    from crgan_cli.gan.regularizers.penalties import R2 as R2
    from crgan_cli.gan.regularizers.penalties import GradientPenalty as GradientPenalty
    from crgan_cli.gan.regularizers.penalties import JSRegularizer as JSRegularizer
    from crgan_cli.gan.regularizers.penalties import MaxGradientPenalty as MaxGradientPenalty
    from crgan_cli.gan.regularizers.penalties import (
        ZeroCenteredGradientPenalty as ZeroCenteredGradientPenalty,
    )
    from crgan_cli.gan.regularizers.top_k import TopK as TopK
    from crgan_cli.gan.regularizers.weights import Orthogonal as Orthogonal
    from crgan_cli.gan.regularizers.weights import WeightClipping as WeightClipping
    from crgan_cli.gan.scoring import ScoredViews as ScoredViews
    from crgan_cli.gan.tasks.base import Task as Task
    from crgan_cli.gan.tasks.cyclegan import CycleGAN as CycleGAN
    from crgan_cli.gan.tasks.generation import Generation as Generation
    from crgan_cli.gan.tasks.pix2pix import Pix2Pix as Pix2Pix
    from crgan_cli.gan.tasks.progressive import Progressive as Progressive
    from crgan_cli.gan.tasks.stargan import StarGAN as StarGAN
    from crgan_cli.gan.types import Batch as Batch
    from crgan_cli.gan.types import Discriminator as Discriminator
    from crgan_cli.gan.types import Generator as Generator
    from crgan_cli.gan.types import PlayerLoss as PlayerLoss
    from crgan_cli.gan.types import Terms as Terms
    from crgan_cli.gan.types import Views as Views
    from crgan_cli.gan.warp import Rotation as Rotation

__getattr__ = lazy_imports(__name__)
