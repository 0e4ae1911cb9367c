"""Colour: Glow and a pixel flow on patches of photographs.

    python benchmarks/colour.py [RECORD] [--passes N] [--seeds N]

The two photographs of scikit-learn are cut into vertical stripes of 32 pixels, of which
every fourth is held out. Both flows see patches of 32×32 pixels and their mirror images.
The record holds the scores; samples and patches lie beside it, as whole numbers. Rows
of a record that exist are kept, so that a run can be cut off and go on."""

import argparse
import itertools
import time
from pathlib import Path

import safetensors.torch
import torch
from channels import by_colour, png_bits, stripes
from rows import collect
from torch import Tensor

from flowbook.core import Compose, Flow
from flowbook.fitting import fit
from flowbook.glow import glow
from flowbook.ladder import histogram_bits
from flowbook.pixelflow import pixelflow
from flowbook.pixels import Logit, dequantize, image_bits
from flowbook.records import hardware, mean_metric

RECORD = Path(__file__).parent / 'records' / 'colour.json'
SIDE = 32  # pixels
SHAPE = (3, SIDE, SIDE)
RUN = dict(batch_size=32, warmup=50, valid=0, ema=0.99)
RATES = {'Glow': 2e-3, 'pixel flow': 2.5e-3}  # of Adam
SAMPLES = 24


def patches(held_out: bool, step: int) -> Tensor:
    "Patches as high as the stripes are wide, `step` pixels apart, `(n, 3, 32, 32)`."
    cut = [stripe.unfold(1, SIDE, step) for stripe in stripes(held_out)]
    return torch.cat([s.permute(1, 0, 3, 2) for s in cut]).contiguous()


def build(name: str) -> Flow:
    "An untrained flow on patches with levels 0…255."
    if name == 'pixel flow':
        return pixelflow(SHAPE, width=32, hidden=96, hurdle=False)
    flow = glow(SHAPE, scales=3, steps=6, width=48)
    return Flow(flow.base, Compose(flow.bijection, Logit(0.05)))


def draw(flow: Flow, seed: int) -> Tensor:
    "Samples of a flow as levels."
    generator = torch.Generator().manual_seed(seed)
    x = flow.sample((SAMPLES,), generator=generator)
    return x.floor().clamp(0, 255).to(torch.uint8).contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('record', type=Path, nargs='?', default=RECORD)
    parser.add_argument('--passes', type=int, default=6)
    parser.add_argument('--seeds', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    one_way = patches(held_out=False, step=8)
    train = torch.cat([one_way, one_way.flip(-1)])
    test = patches(held_out=True, step=SIDE)
    shown = test[:: len(test) // SAMPLES][:SAMPLES]
    pictures = dict(patches=shown.contiguous())
    path = args.record.with_suffix('.safetensors')
    if path.exists():
        pictures = safetensors.torch.load_file(path)

    def measure(name: str, seed: int) -> dict:
        "One training run, and the bits of patches held out."
        torch.manual_seed(seed)
        flow = build(name)
        start = time.process_time()
        options = RUN | dict(lr=RATES[name], epochs=args.passes, seed=seed)
        fit(flow, train, prepare=dequantize, device='cpu', **options)
        seconds = time.process_time() - start
        entry = mean_metric(name, image_bits(flow, test), 'bits/dim', 'test')
        pictures[f'{name} {seed}'] = draw(flow, seed)
        safetensors.torch.save_file(pictures, path)
        parameters = sum(p.numel() for p in flow.parameters())
        row = dict(model=name, seed=seed, passes=args.passes, parameters=parameters)
        return entry | row | dict(cpu_seconds=round(seconds))

    def describe(rows: list) -> dict:
        return dict(
            data=dict(train=len(train), test=len(test), shape=SHAPE),
            fit=RUN,
            rates=RATES,
            baselines={
                'histogram per colour': histogram_bits(*by_colour(train, test)),
                'PNG, whole stripes': png_bits(stripes(True)),
            },
            hardware=hardware('cpu'),
            rows=rows,
        )

    jobs = itertools.product(['Glow', 'pixel flow'], range(args.seeds))
    by_seed = sorted(jobs, key=lambda job: job[1])
    collect(args.record, ('model', 'seed'), by_seed, measure, describe)


if __name__ == '__main__':
    main()
