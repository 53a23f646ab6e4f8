"""The numbers of the papers' tables, by the experiment that is to reproduce them."""

IMAGENET = {
    "sngan_imagenet_resnet": 27.62,
    "none_imagenet_biggan": 8.73,
    "cr_imagenet_biggan": 6.66,
    "icr_imagenet_biggan": 5.38,
}

PUBLISHED = {
    "none_cifar10_sndcgan": 24.73,
    "gp_cifar10_sndcgan": 25.83,
    "dragan_cifar10_sndcgan": 25.08,
    "jsr_cifar10_sndcgan": 25.17,
    "cr_cifar10_sndcgan": 18.72,
    "icr_cifar10_sndcgan": 15.87,
    "none_cifar10_resnet": 19.00,
    "gp_cifar10_resnet": 19.74,
    "dragan_cifar10_resnet": 18.94,
    "jsr_cifar10_resnet": 19.59,
    "cr_cifar10_resnet": 14.56,
    "icr_cifar10_resnet": 13.36,
    "none_celeba_hq_sndcgan": 25.95,
    "gp_celeba_hq_sndcgan": 22.57,
    "dragan_celeba_hq_sndcgan": 21.91,
    "jsr_celeba_hq_sndcgan": 22.17,
    "cr_celeba_hq_sndcgan": 16.97,
    "icr_celeba_hq_sndcgan": 15.43,
    "sngan_cifar10_resnet": 17.50,
    "none_cifar10_biggan_lite": 14.73,
    "cr_cifar10_biggan_lite": 11.48,
    "icr_cifar10_biggan_lite": 9.21,
} | IMAGENET
