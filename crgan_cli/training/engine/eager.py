"""The engine: a player's whole turn, operation by operation.

What the other engines do differently is how these operations reach the device, never what they are.
"""

import logging
import os
import platform
import shutil
import warnings
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crgan_cli.config.bounds import PositiveInt
from crgan_cli.data.batches import Batches
from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import Batch, BatchInputs, PlayerLoss, TurnLog
from crgan_cli.networks.fast import folding
from crgan_cli.networks.fast.bf16_weights import bf16_weights
from crgan_cli.networks.fast.spectral import fixed_spectral_norm
from crgan_cli.networks.sync_batchnorm import convert_sync_batchnorm
from crgan_cli.system import cache
from crgan_cli.system import threads as cpu_threads
from crgan_cli.system.device import Precision, allow_tf32, best_precision, describe_device
from crgan_cli.system.distributed.objects import broadcast_from_main
from crgan_cli.system.distributed.tensors import all_reduce_mean, average_gradients
from crgan_cli.system.distributed.world import world
from crgan_cli.training.ema import EMA

log = logging.getLogger(__name__)


class Turn(NamedTuple):
    """What decides which operations a turn consists of."""

    who: str
    signature: Hashable  # of the task
    measure: bool = False  # the gradient's norm as well
    lerp_weight: float | None = None  # of the new weights in the average of G; None: no average now


class Eager:
    """Executes turns operation by operation.

    With bf16 inside the networks, images and logits are fp32 at every seam, and consistency terms,
    penalties, spectral norm, batch statistics, weights and optimizer are fp32. `compile` hands each
    network to torch.compile, in place.
    """

    def __init__(
        self,
        precision: Literal["auto", "fp32", "tf32", "bf16"] = "fp32",
        channels_last: bool = True,
        compile: bool = False,
        fold: Literal["auto", "always", "never"] = "never",
        spectral_norm: Literal["together", "each"] = "together",
        deterministic: bool = False,
        threads: PositiveInt | None = None,
    ) -> None:
        self.requested_precision: Literal["auto", "fp32", "tf32", "bf16"] = precision
        self.precision: Precision = "fp32" if precision == "auto" else precision
        self.channels_last = channels_last
        self.compile = compile
        self.fold: Literal["auto", "always", "never"] = fold
        self.spectral_norm: Literal["together", "each"] = spectral_norm
        self.deterministic = deterministic
        self.threads = threads
        self.folds: dict[str, bool] | None = None  # which convolutions are folded, once settled

    def for_device(self, device: torch.device) -> "Eager":
        """This engine for a device. Raises UserError where the device cannot do what is asked."""
        if self.requested_precision == "auto":
            self.precision = best_precision(device)
        if self.precision == "tf32" and device.type != "cuda":
            raise UserError(
                f"engine.precision=tf32 is a precision of CUDA devices, and device is {device}. "
                "Type engine.precision=auto, fp32 or bf16."
            )
        if self.precision == "bf16" != best_precision(device):
            log.warning("engine.precision=bf16: %s is not made for it, so this is slow", device)
        if self.compile:
            require_compiler(device)
        return self

    @property
    def layout(self) -> torch.memory_format:
        """The order in which the pixels of a batch lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self, task: Task, device: torch.device) -> None:
        """Moves the players to the device, in the layout that its convolutions prefer.

        Comes after `for_device`, and before `attach`, `begin` and the first turn.
        """
        torch.set_num_threads(self.threads or cpu_threads.default_num_threads())
        if self.deterministic:  # which cuBLAS cannot be without a workspace of fixed size
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic)  # its import takes seconds
        torch.backends.cudnn.benchmark = not self.deterministic  # shapes never change in a run
        allow_tf32(self.precision != "fp32")
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # of streams and random numbers that name none
        self.device = device
        self.task = task.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        if world().world_size > 1:
            convert_sync_batchnorm(self.task)
        self.players = {who: task.player(who) for who in dict.fromkeys(task.turns)}
        self.batch: Batch | None = None

    def attach(
        self, optimizers: Mapping[str, Optimizer], batches: Batches, ema: EMA | None
    ) -> None:
        """What a turn works with besides the task."""
        self.optimizers = optimizers
        self.batches = batches
        self.ema = ema

    def begin(self) -> None:
        """Before the first turn of a session, when a checkpoint has been loaded."""
        if self.folds is None:
            self.folds = self.chosen_folds()
        folding.set_fused(self.task, self.folds)
        if self.compile:
            self.compile_players()

    def compile_players(self) -> None:
        """In place, so that the names of all weights stay as they are."""
        # the compiler looks at the gradients of the normalised weights, which have none
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a")
        twice = self.task.players_with_double_backward()
        for who, player in self.players.items():
            if who in twice:
                log.info("%s stays uncompiled: a penalty differentiates it twice", who)
            else:
                player.compile(dynamic=False)

    def end(self) -> None:
        """After the last turn of a session, however it ended."""

    def chosen_folds(self) -> dict[str, bool]:
        """Which convolutions are computed together with the pooling or upsampling beside them."""
        if self.fold != "auto":
            return dict.fromkeys(folding.fusable_layers(self.task), self.fold == "always")
        return broadcast_from_main(self.tried_folds)

    def tried_folds(self) -> dict[str, bool]:
        """What is faster here, tried once on a machine."""
        facts = {
            "device": describe_device(self.device),
            "torch": torch.__version__,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "machine": platform.node(),
        }
        path = cache.cache_path("folds", self.device.type, cache.cache_key(facts))
        images = len(self.batches.inputs(0)[0])
        with cache.cache_lock(path):  # what another run is trying now is not tried twice
            known = cache.load_cached(path) or {}
            before = len(known)
            folds = folding.choose(
                self.task, lambda: self.task.run_dummy_batch(images), known, self.autocast
            )
            if len(known) > before:
                cache.save_cached(path, known)
        return folds

    def autocast(self) -> torch.autocast:
        """bf16 inside the networks where the configuration says so."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def bf16_weights(self) -> AbstractContextManager[None]:
        """bf16 weights, cast together. Inductor fuses casts, and would compile anew for others."""
        if self.precision != "bf16" or self.compile:
            return nullcontext()
        return bf16_weights(*self.players.values())

    def turn(
        self,
        who: str,
        inputs: BatchInputs,
        *,
        measure: bool = False,
        lerp_weight: float | None = None,
    ) -> TurnLog:
        """One update of one player; the others get no gradient.

        `inputs` is that of a batch of real images; an empty one means the batch of the turn before.
        `measure` adds the gradient's norm; `lerp_weight` has the average of G follow. Never waits
        for the device: what it returns stays there.
        """
        return self.run_turn(Turn(who, self.task.signature(), measure, lerp_weight), inputs)

    def run_turn(self, turn: Turn, inputs: BatchInputs) -> TurnLog:
        """The turn itself: what is the same on every engine."""
        for name, player in self.players.items():
            player.requires_grad_(name == turn.who)
        if inputs:
            self.hold_batch(self.batches.to_batch(*inputs))
        assert self.batch is not None, "the first turn of a run has a batch of its own"
        optimizer = self.optimizers[turn.who]
        optimizer.zero_grad(set_to_none=True)
        with fixed_spectral_norm(*self.players.values(), together=self.spectral_norm == "together"):
            with self.autocast(), self.bf16_weights():
                move = self.task.player_loss(turn.who, self.batch)
            total = torch.stack(list(move.terms.values())).sum()
            total.backward()
        mover = self.players[turn.who]
        average_gradients(mover.parameters())
        norm = {f"gradient_norm/{turn.who}": gradient_norm(mover)} if turn.measure else {}
        optimizer.step()
        if self.ema and turn.lerp_weight is not None:
            self.ema.update(self.task.player("g"), turn.lerp_weight)
        return turn_log(turn.who, move, total, norm)

    def hold_batch(self, batch: Batch) -> None:
        """Holds the batch for this turn, and for those that get none of their own."""
        self.batch = batch._replace(x=batch.x.contiguous(memory_format=self.layout))

    def describe(self) -> str:
        """The engine in words."""
        compiled = ", networks compiled" if self.compile else ""
        folded = sum((self.folds or {}).values())
        folds = f", {folded} of {len(self.folds)} convolutions folded" if self.folds else ""
        return f"{type(self).__name__.lower()}, {self.precision}{compiled}{folds}"

    def state_dict(self) -> dict:
        """What a resumed run must do in the same way, for the same bits."""
        return {"precision": self.precision, "folds": self.folds or {}}

    def load_state_dict(self, state_dict: dict) -> None:
        if self.precision != state_dict["precision"]:
            log.warning(
                "the steps so far were computed in %s, and those to come in %s",
                state_dict["precision"],
                self.precision,
            )
        if self.folds is None and self.fold == "auto":
            self.folds = dict(state_dict["folds"])


def require_compiler(device: torch.device) -> None:
    """Raises UserError where torch.compile has nothing to compile with."""
    there = find_spec("triton") if device.type == "cuda" else cpp_compiler()
    if not there:
        needed = (
            "the package triton" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
        )
        raise UserError(
            f"compiling networks for {device} needs {needed}, and there is none. Install it, or "
            "leave it out: engine=auto engine.compile=false."
        )


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would find."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl" if os.name == "nt" else None)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def turn_log(who: str, move: PlayerLoss, total: Tensor, norm: Mapping[str, Tensor]) -> TurnLog:
    """All numbers of a turn in one tensor, averaged over the processes of the run."""
    named = {f"terms/{name}": value.detach() for name, value in move.terms.items()}
    named |= {f"loss/{who}": total.detach(), **move.diagnostics, **norm}
    return TurnLog(tuple(named), all_reduce_mean(torch.stack(list(named.values())).float()))


def gradient_norm(player: nn.Module) -> Tensor:
    """The Euclidean norm of the gradient over all parameters of a player, ()."""
    gradients = [p.grad for p in player.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # type: ignore
