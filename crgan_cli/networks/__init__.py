"""Architectures: generators and discriminators by the names of their papers."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.networks.biggan import BigGANDiscriminator as BigGANDiscriminator
    from crgan_cli.networks.biggan import BigGANGenerator as BigGANGenerator
    from crgan_cli.networks.dcgan import DCGANDiscriminator as DCGANDiscriminator
    from crgan_cli.networks.dcgan import DCGANGenerator as DCGANGenerator
    from crgan_cli.networks.mlp import MLPDiscriminator as MLPDiscriminator
    from crgan_cli.networks.mlp import MLPGenerator as MLPGenerator
    from crgan_cli.networks.mlp_maxout import MLPMaxoutDiscriminator as MLPMaxoutDiscriminator
    from crgan_cli.networks.mlp_maxout import MLPMaxoutGenerator as MLPMaxoutGenerator
    from crgan_cli.networks.patchgan import PatchDiscriminator as PatchDiscriminator
    from crgan_cli.networks.pggan import PGGANDiscriminator as PGGANDiscriminator
    from crgan_cli.networks.pggan import PGGANGenerator as PGGANGenerator
    from crgan_cli.networks.resnet import ResNet5Discriminator as ResNet5Discriminator
    from crgan_cli.networks.resnet import ResNet5Generator as ResNet5Generator
    from crgan_cli.networks.resnet import ResNetDiscriminator as ResNetDiscriminator
    from crgan_cli.networks.resnet import ResNetGenerator as ResNetGenerator
    from crgan_cli.networks.resnet_sngan import SNGANDiscriminator as SNGANDiscriminator
    from crgan_cli.networks.resnet_sngan import SNGANGenerator as SNGANGenerator
    from crgan_cli.networks.sndcgan import SNDCGANDiscriminator as SNDCGANDiscriminator
    from crgan_cli.networks.sndcgan import SNDCGANGenerator as SNDCGANGenerator
    from crgan_cli.networks.stargan import StarGANDiscriminator as StarGANDiscriminator
    from crgan_cli.networks.stargan import StarGANGenerator as StarGANGenerator
    from crgan_cli.networks.translator import ResnetTranslator as ResnetTranslator
    from crgan_cli.networks.unet import UNetGenerator as UNetGenerator

__getattr__ = lazy_imports(__name__)
