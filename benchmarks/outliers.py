"""Image 4,253 and other strange images under the shipped flows, with and without cures.

`FLOWBOOK_DATA=… python benchmarks/outliers.py [RECORD]`, one thread, about ten minutes.
The weights stay as they ship; each cure is a change to a copy of the flow."""

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from flowbook.core import Compose
from flowbook.coupling import Coupling
from flowbook.data import mnist
from flowbook.glow import GlowStep
from flowbook.multiscale import CheckerboardCoupling
from flowbook.pixels import Dequantized, dequantize, image_bits
from flowbook.realnvp import Affine
from flowbook.records import hardware, read_run
from flowbook.support import Tails

RECORD = Path(__file__).parent / 'records' / 'outliers.json'
STRANGE = 4_253  # an image of the official test set
SEEN = 10_000  # training images that say what is usual


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def couplings(flow) -> list:
    "The couplings of a flow on images, without those of its noise."
    inner = flow.flow if isinstance(flow, Dequantized) else flow
    kinds = (Coupling, CheckerboardCoupling)
    return [m for m in inner.modules() if isinstance(m, kinds)]


# Sets of images.
def salted(x: Tensor, share: float = 0.02) -> Tensor:
    "White pixels at random places."
    hit = torch.rand(x.shape, generator=seeded(1)) < share
    return torch.where(hit, 255, x)


def greyer(x: Tensor, n: int = 40) -> Tensor:
    "Copies whose ink pixels are one level up or down, each at random."
    signs = torch.randint(2, (n, *x.shape[1:]), generator=seeded(2)) * 2 - 1
    moved = x.int() + signs * ((x > 0) & (x < 255)).int()
    return moved.to(torch.uint8)


def shifted(x: Tensor) -> Tensor:
    "Four copies, moved by one pixel."
    ways = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    return torch.cat([x.roll(way, (-2, -1)) for way in ways])


def image_sets(test: Tensor) -> dict[str, Tensor]:
    strange = test[STRANGE][None]
    others = torch.cat([test[:STRANGE], test[STRANGE + 1 :]])
    some = others[torch.randperm(len(others), generator=seeded(0))[:500]]
    noise = torch.randint(256, (200, 1, 28, 28), generator=seeded(3))
    return {
        'image 4,253': strange,
        '20 draws of noise': strange.expand(20, -1, -1, -1),
        'moved by a pixel': shifted(strange),
        'grey moved by a level': greyer(strange),
        '500 others': some,
        '2 % salt': salted(some),
        'noise': noise.to(torch.uint8),
        'all': test,
    }


# Cures: each changes a copy of a flow in place.
def read_within(reach: float) -> Callable:
    def cure(flow, seen):
        for layer in couplings(flow):
            layer.reach = reach

    return cure


def read_through(squash: Callable) -> Callable:
    "Conditioners read `squash` of what they are given."

    def cure(flow, seen):
        for layer in couplings(flow):
            layer.net.register_forward_pre_hook(
                lambda net, args: (squash(args[0]), *args[1:])
            )

    return cure


def read_what_was_seen(flow, seen):
    "Each conditioner reads at most the largest number that training images gave it."
    for layer, most in zip(couplings(flow), seen['read']):
        layer.reach = most


class Limited(Affine):
    "An affine map whose log-scale and shift are limited before use."

    def scale_and_shift(self, params):
        log_s, t = super().scale_and_shift(params)
        return log_s.clamp(*self.log_scales), t.clamp(*self.shifts)


def limit(layer, log_scales=(-math.inf, math.inf), shifts=(-math.inf, math.inf)):
    elementwise = Limited(layer.elementwise.bound)
    elementwise.log_scales = log_scales
    elementwise.shifts = shifts
    layer.elementwise = elementwise


def no_expansion(flow, seen):
    for layer in couplings(flow):
        limit(layer, (0.0, math.inf))


def scales_as_seen(flow, seen):
    for layer, ends in zip(couplings(flow), seen['log_s']):
        limit(layer, ends)


def parameters_as_seen(flow, seen):
    for layer, ends, moves in zip(couplings(flow), seen['log_s'], seen['t']):
        limit(layer, ends, moves)


class Loft(nn.Module):
    "Linear to `tau`, then logarithmic, on the way to the latent (Andrade 2024)."

    def __init__(self, tau: float):
        super().__init__()
        self.tau = tau

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        over = (x.abs() - self.tau).clamp(min=0)
        z = x.sign() * (x.abs().clamp(max=self.tau) + over.log1p())
        return z, -over.log1p().sum((-3, -2, -1))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        over = (z.abs() - self.tau).clamp(min=0)
        x = z.sign() * (z.abs().clamp(max=self.tau) + over.expm1())
        return x, over.sum((-3, -2, -1))


def pass_through(module, loft: Loft) -> None:
    "What a bijection hands on towards the latent passes a `Loft`."
    one_way, back = module.forward, module.inverse

    def forward(z, context=None):
        u, first = loft(z)
        x, second = one_way(u, context)
        return x, first + second

    def inverse(x, context=None):
        u, first = back(x, context)
        z, second = loft.inverse(u)
        return z, first + second

    module.forward, module.inverse = forward, inverse


def with_tails(tau: float) -> Callable:
    def cure(flow, seen):
        for layer in couplings(flow):
            pass_through(layer, Loft(tau))

    return cure


def tail_at_latent(at: float) -> Callable:
    "One `Tails` before the base, whose vectors it stretches on the way to the image."

    def cure(flow, seen):
        inner = flow.flow if isinstance(flow, Dequantized) else flow
        inner.bijection = Compose(Tails(at), inner.bijection)

    return cure


def both(first: Callable, second: Callable) -> Callable:
    def cure(flow, seen):
        first(flow, seen)
        second(flow, seen)

    return cure


CURES: dict[str, Callable] = {
    'none': lambda flow, seen: None,
    'reads within ±10': read_within(10.0),
    'reads within ±8': read_within(8.0),
    'reads within ±6': read_within(6.0),
    'reads within ±5': read_within(5.0),
    'reads what training showed': read_what_was_seen,
    'reads 8 tanh(h/8)': read_through(lambda h: 8 * torch.tanh(h / 8)),
    'reads tanh(h)': read_through(torch.tanh),
    'no expansion to z': no_expansion,
    'log-scales as in training': scales_as_seen,
    'log-scales and shifts as in training': parameters_as_seen,
    'tails from ±10': with_tails(10.0),
    'tails from ±5': with_tails(5.0),
    'reads within ±8, tails from ±10': both(read_within(8.0), with_tails(10.0)),
    'tail at the latent': tail_at_latent(10.0),
    'reads within ±8, tail at the latent': both(read_within(8.0), tail_at_latent(10.0)),
}


# What is measured.
@torch.no_grad()
def look(flow, images: Tensor) -> dict[str, list]:
    "For each coupling: the largest number read, and the ends of log-scale and shift."
    found: dict[str, list] = dict(read=[], log_s=[], t=[])

    def note(layer):
        def hook(net, args, output):
            log_s, t = layer.elementwise.scale_and_shift(output)
            found['read'].append(args[0].abs().max().item())
            found['log_s'].append((log_s.min().item(), log_s.max().item()))
            found['t'].append((t.min().item(), t.max().item()))

        return hook

    # In the order of the way to the latent; `couplings` runs the other way.
    layers = couplings(flow)
    hooks = [m.net.register_forward_hook(note(m)) for m in layers]
    order: list = []
    more = [
        m.net.register_forward_pre_hook(lambda net, args, m=m: order.append(m))
        for m in layers
    ]
    image_bits(flow, images, batch_size=len(images))
    for hook in hooks + more:
        hook.remove()
    at = [next(i for i, m in enumerate(order) if m is layer) for layer in layers]
    return {k: [v[i] for i in at] for k, v in found.items()} | dict(way=at)


def look_at_all(flow, images: Tensor, piece: int = 500) -> dict[str, list]:
    "`look` at many images, a piece at a time."
    parts = [look(flow, x) for x in images.split(piece)]

    def ends(name):
        columns = zip(*(p[name] for p in parts))
        return [
            (min(a for a, _ in c), max(b for _, b in c)) for c in map(list, columns)
        ]

    read = [max(c) for c in zip(*(p['read'] for p in parts))]
    return dict(read=read, log_s=ends('log_s'), t=ends('t'), way=parts[0]['way'])


def summary(bits: Tensor) -> dict:
    "Mean, median and largest of bits per dimension, and how many images cost above 8."
    return dict(
        mean=bits.mean().item(),
        median=bits.median().item(),
        largest=bits.max().item(),
        above_8=(bits > 8).sum().item(),
        n=len(bits),
    )


def compare(run: str, sets: dict, train: Tensor, names: list) -> tuple[dict, dict]:
    "Scores of all sets under all cures, and what the couplings meet in training."
    flow = free(read_run(run)[0])
    seen = look_at_all(flow, train[:SEEN])
    rows = {}
    for name in names:
        twin = copy.deepcopy(flow)
        CURES[name](twin, seen)
        rows[name] = {k: summary(image_bits(twin, x)) for k, x in sets.items()}
        short = {
            k: f"{v['mean']:.4g}/{v['largest']:.4g}" for k, v in rows[name].items()
        }
        print(run, name, short, flush=True)
    return rows, seen


def free(flow):
    "The same flow, whose couplings read whatever they are given."
    for layer in couplings(flow):
        layer.reach = None
    return flow


@torch.no_grad()
def at_site(flow, x: Tensor, channel: int, row: int, column: int) -> dict[str, list]:
    "One number on its way through the couplings: before, log-scale, shift and after."
    found: dict[str, list] = dict(before=[], log_s=[], t=[], after=[])
    for step in [m for m in flow.modules() if isinstance(m, GlowStep)]:
        coupling = step.layers[0]
        back = coupling.inverse

        def inverse(u, context=None, coupling=coupling, back=back):
            z, log_det = back(u, context)
            if row >= u.shape[-2] or column >= u.shape[-1]:
                return z, log_det  # a coarser scale
            kept = u.shape[1] // 2
            params = coupling.ask(u[:, :kept], u[:, kept:].shape[1:], context)
            log_s, t = coupling.elementwise.scale_and_shift(params)
            spot = (0, channel, row, column)
            found['before'].append(u[:, kept:][spot].item())
            found['log_s'].append(log_s[spot].item())
            found['t'].append(t[spot].item())
            found['after'].append(z[:, kept:][spot].item())
            return z, log_det

        coupling.inverse = inverse
    flow.bijection.inverse(dequantize(x, seeded(0)))
    for step in [m for m in flow.modules() if isinstance(m, GlowStep)]:
        del step.layers[0].inverse
    return found


def way(flow, x: Tensor) -> dict[str, list]:
    "What each conditioner reads, and the largest state after each step of Glow."
    states: list = []
    steps = [m for m in flow.modules() if isinstance(m, GlowStep)]
    for step in steps:
        back = step.inverse

        def inverse(x, context=None, back=back):
            z, log_det = back(x, context)
            states.append(z.abs().amax().item())
            return z, log_det

        step.inverse = inverse
    seen = look(flow, x)
    for step in steps:
        del step.inverse
    at = [k for k, m in enumerate(couplings(flow)) if in_step(flow, m)]
    at.sort(key=lambda k: seen['way'][k])
    return dict(
        read=[seen['read'][k] for k in at],
        smallest_log_scale=[seen['log_s'][k][0] for k in at],
        largest_shift=[max(map(abs, seen['t'][k])) for k in at],
        state=states,
    )


def in_step(flow, coupling) -> bool:
    "Whether a coupling is part of a step, and not the prior of a split."
    steps = [m for m in flow.modules() if isinstance(m, GlowStep)]
    return any(step.layers[0] is coupling for step in steps)


@torch.no_grad()
def round_trip(flow, test: Tensor) -> dict:
    "Image to latent and back in single precision: the largest error of each image."
    errors = []
    generator = seeded(0)
    for x in test.split(500):
        noisy = dequantize(x, generator)
        back = flow.bijection(flow.bijection.inverse(noisy)[0])[0]
        errors.append((back - noisy).abs().flatten(1).amax(1))
    off = torch.cat(errors)
    return dict(
        median=off.median().item(),
        largest=off.max().item(),
        above=(off > 0.01).sum().item(),
        second=off.topk(2).values[1].item(),
        image=off.argmax().item(),
        n=len(off),
        unit='grey levels',
    )


@torch.no_grad()
def redrawn(flow, twin, n: int = 500) -> dict:
    "How many samples from the same latents a cure changes by a grey level and more."
    z = flow.base.sample((n,), seeded(0))
    change = (flow.bijection(z)[0] - twin.bijection(z)[0]).abs().flatten(1).amax(1)
    return dict(above=(change > 1).sum().item(), largest=change.max().item(), n=n)


def main(path: str = str(RECORD)) -> None:
    torch.set_num_threads(1)
    test, labels = mnist('test')
    train, _ = mnist('train')
    sets = image_sets(test)
    few = ['none', 'reads within ±10', 'reads within ±8', 'reads within ±6']
    few += ['reads within ±8, tail at the latent']
    runs = {
        'mnist-glow': list(CURES),
        'mnist-glow-start': few,
        'mnist-glow-learned': few,
        'mnist-realnvp-longer': few,
    }
    cures, reads = {}, {}
    for run, names in runs.items():
        cures[run], seen = compare(run, sets, train, names)
        reads[run] = [read for _, read in sorted(zip(seen['way'], seen['read']))]
    flow = free(read_run('mnist-glow')[0])
    twins = {'none': flow}
    for name in ('reads within ±8', 'tails from ±10'):
        twins[name] = copy.deepcopy(flow)
        CURES[name](twins[name], None)
    capped = twins['reads within ±8']
    strange = test[STRANGE][None]
    spot = (0, 7, 8)  # where its largest values are
    record = dict(
        hardware=hardware(),
        strange=dict(image=STRANGE, label=int(labels[STRANGE])),
        seen=dict(images=SEEN, largest_read=reads),
        cures=cures,
        way={
            'image 4,253': way(flow, strange),
            'image 4,253, reads within ±8': way(capped, strange),
            '500 others': way(flow, sets['500 others']),
        },
        site=dict(
            place=spot,
            free=at_site(flow, strange, *spot),
            capped=at_site(capped, strange, *spot),
        ),
        round_trip={name: round_trip(twin, test) for name, twin in twins.items()},
        redrawn={name: redrawn(flow, twin) for name, twin in twins.items()},
    )
    Path(path).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
