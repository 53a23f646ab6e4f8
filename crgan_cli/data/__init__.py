"""Data sets, and the batches that a run sees."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.data.attributes import Attributes as Attributes
    from crgan_cli.data.attributes import CelebAAttributes as CelebAAttributes
    from crgan_cli.data.celeba import CelebA as CelebA
    from crgan_cli.data.celeba_hq import CelebAHQ as CelebAHQ
    from crgan_cli.data.dataset import Dataset as Dataset
    from crgan_cli.data.dataset import DatasetInfo as DatasetInfo
    from crgan_cli.data.demo_domains import DemoAttributes as DemoAttributes
    from crgan_cli.data.demo_domains import DemoDomains as DemoDomains
    from crgan_cli.data.demo_domains import DemoTraits as DemoTraits
    from crgan_cli.data.demo_pairs import DemoPairs as DemoPairs
    from crgan_cli.data.domains import Domains as Domains
    from crgan_cli.data.embedded import Demo as Demo
    from crgan_cli.data.folder import Folder as Folder
    from crgan_cli.data.imagenet import ImageNet as ImageNet
    from crgan_cli.data.images import Images as Images
    from crgan_cli.data.joint import Joint as Joint
    from crgan_cli.data.pairs import Pairs as Pairs
    from crgan_cli.data.samplers import Balanced as Balanced
    from crgan_cli.data.samplers import ImageSampler as ImageSampler
    from crgan_cli.data.samplers import Shuffle as Shuffle
    from crgan_cli.data.standard import Cifar10 as Cifar10
    from crgan_cli.data.standard import Cifar100 as Cifar100
    from crgan_cli.data.standard import FashionMnist as FashionMnist
    from crgan_cli.data.standard import Mnist as Mnist

__getattr__ = lazy_imports(__name__)
