"""The networks of the first GAN for MNIST, and of the first conditional GAN.

Goodfellow et al. 2014 (arXiv:1406.2661), as built in goodfeli/adversarial (mnist.yaml). Mirza &
Osindero 2014 (arXiv:1411.1784), whose code is not public: the shapes were remembered
and not verified.
"""

from torch import Tensor, nn

from crgan_cli.config.bounds import (
    DropoutRate,
    ImageSize,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from crgan_cli.config.sides import Sides
from crgan_cli.networks.layers import (
    RowDropout,
    ToUnitInterval,
    count_labels,
    init_weights,
    scale_channels,
    sigmoid_image,
)
from crgan_cli.networks.mlp import (
    JoinedNetwork,
    LabelCode,
    LabelKind,
    image_layers,
    logit_layers,
)


class Maxout(nn.Linear):
    """Goodfellow et al. 2013 (arXiv:1302.4389): h_i = max_j (x^T W_ij + b_ij).

    (N, features) -> (N, units), each the largest of its `pieces` linear maps.
    """

    def __init__(self, features: int, units: int, pieces: int) -> None:
        super().__init__(features, units * pieces)
        self.pieces = pieces

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).unflatten(1, (-1, self.pieces)).max(dim=2).values


class MLPMaxoutGenerator(JoinedNetwork):
    """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1].

    Two ReLU layers of 1200 units, then a sigmoid. With classes, 200 units of the first layer see z
    and 1000 see the class. Weights start in U[-0.05, 0.05], biases at 0. The authors start the last
    bias so that an image is the mean image; that needs the data, so it is not done here.

    `z_scale` multiplies z. `g_dropout` follows each ReLU.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        label: LabelKind,
        z_dim: PositiveInt,
        z_scale: Positive,
        g_dropout: DropoutRate,
        width: Positive,
    ) -> None:
        labels = count_labels(conditional, classes)
        units = scale_channels(1200, width)
        from_z, from_label = units, 0
        label_layers = None
        if labels:
            from_z, from_label = scale_channels(200, width), scale_channels(1000, width)
            label_layers = nn.Sequential(
                LabelCode(labels, label), nn.Linear(labels, from_label), nn.ReLU()
            )
        joint = [
            RowDropout(g_dropout),
            nn.Linear(from_z + from_label, units),
            nn.ReLU(),
            RowDropout(g_dropout),
            *image_layers(units, channels, resolution),
        ]
        z_layers = nn.Sequential(nn.Linear(z_dim, from_z), nn.ReLU())
        super().__init__(z_layers, label_layers, joint, labels)
        self.z_dim, self.resolution, self.channels = z_dim, resolution, channels
        self.z_scale = z_scale
        init_weights(self, lambda weight: nn.init.uniform_(weight, -0.05, 0.05))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Images from the latents x = z, (N, z_dim)."""
        return sigmoid_image(super().forward(x * self.z_scale, y))


class MLPMaxoutDiscriminator(JoinedNetwork):
    """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits; sees images in [0, 1].

    Two maxout layers of 240 units with 5 pieces. With classes, the class has a first layer of its
    own of 50 units, and the second layer has 4 pieces. Dropout of the input of each layer:
    `d_input_dropout` of the pixels, `d_dropout` of the units. Weights start in U[-0.005, 0.005],
    biases at 0.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        label: LabelKind,
        d_input_dropout: DropoutRate,
        d_dropout: DropoutRate,
        width: Positive,
    ) -> None:
        labels = count_labels(conditional, classes)
        units = scale_channels(240, width)
        from_label, label_layers, pieces = 0, None, 5
        if labels:
            from_label, pieces = scale_channels(50, width), 4
            label_layers = nn.Sequential(LabelCode(labels, label), Maxout(labels, from_label, 5))
        pixel_layers = nn.Sequential(
            ToUnitInterval(),
            nn.Flatten(),
            RowDropout(d_input_dropout),
            Maxout(channels * Sides.read(resolution).pixels, units, 5),
        )
        joint = [
            RowDropout(d_dropout),
            Maxout(units + from_label, units, pieces),
            RowDropout(d_dropout),
            *logit_layers(units),
        ]
        super().__init__(pixel_layers, label_layers, joint, labels)
        init_weights(self, lambda weight: nn.init.uniform_(weight, -0.005, 0.005))
