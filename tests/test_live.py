"""Live controls: a run that stops after any step, its pictures, and the buttons."""

import asyncio
import io
import time
from dataclasses import replace

import matplotlib
import PIL.Image
import pytest
import torch

from flowbook.live import (
    FLOWS,
    FitPanel,
    Training,
    digits,
    frame_png,
    in_words,
    live_fit,
)
from flowbook.toys import toys
from support import python

FAST = dict(data='pinwheel', flow='realnvp', layers=2, device='cpu')


def fastest(do, n=3):
    "Seconds of a call, the least of a few: others use these cores, and are not counted."
    times = []
    for _ in range(n):
        wall, own = time.perf_counter(), time.process_time()
        do()
        times += [time.perf_counter() - wall, time.process_time() - own]
    return min(times)


def small_fit():
    return live_fit('pinwheel', 'realnvp', 2, device='cpu')


# A run.
@pytest.mark.parametrize('flow', FLOWS)
def test_a_flow_learns(flow):
    run = Training('banana', flow, 2, 0.01, device='cpu')
    run.frame()
    for _ in range(40):
        run.step()
    run.frame()
    (first, before), (last, after) = run.held
    assert (first, last, len(run.losses)) == (0, 40, 40)
    assert run.floor < after < before - 0.05


@pytest.mark.parametrize('data', toys)
def test_every_law_can_be_shown(data):
    run = Training(data, 'realnvp', 2, device='cpu')
    run.step()
    frame = run.frame()
    assert torch.isfinite(frame.density).all() and frame.density.shape == (80, 80)
    assert frame.samples.shape == frame.points.shape == (500, 2)
    known = toys[data].log_prob is not None
    assert (frame.floor is not None) == known
    assert ('above the floor' in in_words(frame)) == known
    picture = PIL.Image.open(io.BytesIO(frame_png(frame)))
    assert (
        picture.size == (1080, 360) and len(picture.convert('RGB').getcolors(99999)) > 9
    )


def test_a_flow_that_is_broken_can_still_be_shown():
    run = Training(**FAST)
    whole = run.frame()
    nowhere = torch.full((80, 80), float('nan'))
    far = torch.full((500, 2), float('inf'))
    for held in [((0, 3.0), (1, float('inf'))), ((0, float('nan')),)]:
        broken = replace(whole, density=nowhere, samples=far, held=held)
        assert PIL.Image.open(io.BytesIO(frame_png(broken))).size == (1080, 360)
        assert 'above the floor' in in_words(broken)


def test_a_seed_says_all_and_looking_changes_nothing():
    one, two, other = (Training(**FAST, seed=s) for s in (3, 3, 4))
    for _ in range(6):
        one.step()
        two.frame()
        two.step()
        other.step()
    assert one.losses == two.losses != other.losses
    for a, b in zip(one.flow.parameters(), two.flow.parameters()):
        assert torch.equal(a, b)


def test_a_lower_rate_moves_the_weights_less():
    def moved(lr):
        run = Training(**FAST)
        run.lr = lr
        before = [p.clone() for p in run.flow.parameters()]
        run.step()
        pairs = zip(run.flow.parameters(), before)
        return max((p - b).abs().max().item() for p, b in pairs)

    assert moved(1e-4) < 0.02 * moved(1e-2)


@pytest.mark.parametrize(
    'wrong',
    [
        dict(data='moon'),
        dict(flow='glo'),
        dict(layers=0),
        dict(layers=1.5),
        dict(lr=0),
        dict(lr=float('nan')),
        dict(seed='a'),
        dict(device='gpu'),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused_by_name(wrong):
    name = dict(data='name').get(*wrong, *wrong)
    with pytest.raises(ValueError, match=f'^{name}: '):
        Training(**FAST | wrong)
    with pytest.raises(ValueError, match=f'^{name}: '):
        live_fit(**FAST | wrong)


def test_a_slice_takes_its_time_and_at_least_one_step():
    run = Training(**FAST)
    run.advance(0)
    assert len(run.losses) == 1
    start = time.perf_counter()
    run.advance(0.15)
    assert time.perf_counter() - start >= 0.15 and len(run.losses) > 2


@pytest.mark.parametrize('flow', FLOWS)
def test_a_frame_takes_less_than_a_third_of_a_second(flow):
    run = Training(flow=flow, layers=4, device='cpu')

    def once():
        run.advance(0.1)
        frame_png(run.frame())

    assert fastest(once) < 0.3


# The panel of a run.
def test_buttons_train_pause_and_begin_again():
    panel = small_fit()
    first = panel.picture.value
    assert panel.buttons['pause'].disabled and not panel.buttons['start'].disabled

    async def press():
        panel.buttons['start'].click()
        panel.buttons['start'].click()  # twice is once
        assert panel.buttons['start'].disabled and panel.buttons['step'].disabled
        await until(lambda: len(panel.training.held) > 3)
        assert panel.picture.value != first
        panel.buttons['pause'].click()
        done, said = len(panel.training.losses), panel.status.value
        await asyncio.sleep(0.3)
        assert len(panel.training.losses) == done and panel.status.value == said
        assert f'step {done:,}:' in said
        panel.buttons['start'].click()  # at once after Pause: one task, not two
        panel.buttons['pause'].click()
        panel.buttons['start'].click()
        await until(lambda: len(panel.training.losses) > done)
        assert len(asyncio.all_tasks()) == 2  # this one and the training
        panel.buttons['reset'].click()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    losses = panel.training.losses
    asyncio.run(press())
    assert panel.picture.value == first and panel.training.losses == []
    for _ in range(4):
        panel.buttons['step'].click()
    assert panel.training.losses == losses[:4]
    assert panel.status.value.startswith('step 4: ')


async def until(true, seconds=60):
    "Let others work until something is true."
    end = time.perf_counter() + seconds
    while not true():
        assert time.perf_counter() < end
        await asyncio.sleep(0.02)


def test_the_event_loop_is_heard_while_a_flow_trains():
    panel = small_fit()

    async def listen():
        panel.start()
        waits = []
        while len(panel.training.held) < 6:
            start = time.perf_counter()
            await asyncio.sleep(0)
            waits.append(time.perf_counter() - start)
        panel.pause()
        return waits

    waits = asyncio.run(listen())
    assert len(waits) > 20 and sorted(waits)[len(waits) // 2] < 0.05


def test_choices_change_the_run():
    panel = small_fit()
    panel.step()
    panel.choices['lr'].value = 0.001
    assert panel.training.lr == 0.001 and len(panel.training.losses) == 1
    for name, value in [('data', 'rings'), ('flow', 'maf'), ('layers', 3)]:
        before = panel.training
        panel.choices[name].value = value
        assert panel.training is not before and panel.training.losses == []
        assert panel.training.settings[name] == value
    assert panel.training.lr == 0.001


def test_one_panel_trains_at_a_time_also_when_its_cell_runs_again():
    async def twice():
        first = small_fit()
        first.start()
        second = small_fit()
        assert first.task is None
        second.start()
        first.start()
        assert second.task is None and FitPanel.active is first
        first.pause()

    asyncio.run(twice())


def test_a_loss_that_is_not_finite_stops_the_run_and_says_why():
    panel = small_fit()
    with torch.no_grad():
        next(panel.training.flow.parameters()).fill_(float('nan'))

    async def run():
        panel.start()
        await until(lambda: panel.task is None)

    asyncio.run(run())
    assert panel.status.value.startswith('step 0: the loss is nan')
    assert panel.training.losses == [] and not panel.buttons['start'].disabled
    panel.reset()
    panel.step()
    assert panel.status.value.startswith('step 1: ')


def test_a_run_that_was_forgotten_waits(monkeypatch):
    monkeypatch.setattr('flowbook.live.MOST', 5)
    panel = small_fit()

    async def run():
        panel.start()
        await until(lambda: panel.task is None)

    asyncio.run(run())
    done = len(panel.training.losses)
    assert done >= 5
    asyncio.run(run())  # Start goes on
    assert len(panel.training.losses) >= done + 5


# Digits.
def test_each_knob_of_digits_changes_its_picture_and_no_other():
    panel = digits(device='cpu')
    moves = dict(temperature=0.3, label=8, draw=4, t=0.2, start=1, end=9)
    for name, value in moves.items():
        left, right = panel.samples.value, panel.picture.value
        panel.choices[name].value = value
        of_samples = name in ('temperature', 'label', 'draw')
        assert (panel.samples.value != left) == of_samples
        assert (panel.picture.value != right) != of_samples
    assert panel.status.value.startswith('left: class 8, temperature 0.30; right: 20%')
    assert 'from 1 to 9' in panel.status.value


@pytest.mark.parametrize(
    'run', ['mnist-glow', 'mnist-realnvp', 'mnist-pixelflow-labels']
)
def test_every_run_of_digits_is_shown_and_its_way_ends_at_the_digits(run):
    panel = digits(run, device='cpu')
    assert panel.choices['label'].disabled == ('labels' not in run)
    for t, image in zip([0.0, 1.0], panel.ends):
        assert (panel.way.at(t).floor() - image).abs().max() <= 1
    sizes = [
        PIL.Image.open(io.BytesIO(p.value)).size for p in (panel.samples, panel.picture)
    ]
    assert sizes == [(345, 345), (430, 140)]


def test_a_slider_of_the_default_digits_answers_within_a_third_of_a_second():
    panel = digits(device='cpu')

    def move(name, values):
        for v in values:
            panel.choices[name].value = v

    assert fastest(lambda: move('temperature', [0.4, 0.5])) < 2 * 0.3
    assert fastest(lambda: move('t', [0.4, 0.5])) < 2 * 0.3


def test_digits_refuses_a_run_of_another_kind():
    with pytest.raises(
        ValueError, match=r'^run: expected a Flow .* got Flow on \(2,\)'
    ):
        digits('moons')
    with pytest.raises(ValueError, match='got Dequantized'):
        digits('mnist-glow-learned')


# What is left alone.
def test_nothing_global_is_touched():
    torch.manual_seed(5)
    numbers, style = torch.get_rng_state(), dict(matplotlib.rcParams)
    threads = torch.get_num_threads()
    panel = small_fit()
    panel.step()

    async def run():
        panel.start()
        await until(lambda: len(panel.training.held) > 3)
        panel.pause()

    asyncio.run(run())
    panel.reset()
    digits(device='cpu').choices['temperature'].value = 0.4
    assert torch.equal(torch.get_rng_state(), numbers)
    assert dict(matplotlib.rcParams) == style and torch.get_num_threads() == threads


def test_importing_the_module_imports_no_widgets_and_no_matplotlib():
    said = python(
        'import sys, flowbook.live\n'
        'print([m for m in ("ipywidgets", "matplotlib") if m in sys.modules])\n'
        'from flowbook.live import digits, live_fit\n'
        'digits(device="cpu"); live_fit(device="cpu").step()\n'
        'print("matplotlib.pyplot" in sys.modules)'
    )
    assert said.split('\n')[:2] == ['[]', 'False']


@pytest.mark.parametrize('make', [small_fit, lambda: digits(device='cpu')])
def test_a_notebook_shows_a_panel_as_one_widget(make):
    shown = make()._repr_mimebundle_(include=None, exclude=None)
    assert 'application/vnd.jupyter.widget-view+json' in shown


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA here')
def test_cuda_begins_and_learns_as_the_cpu_does():
    here, there = Training(**FAST), Training(**FAST | dict(device='cuda'))
    for a, b in zip(here.flow.parameters(), there.flow.parameters()):
        assert torch.equal(a, b.cpu())
    for _ in range(3):
        assert abs(here.step() - there.step()) < 1e-3
    assert frame_png(there.frame())
    panel = digits(device='cuda')
    panel.choices['temperature'].value = 0.4
    assert (panel.way.at(0.0).floor() - panel.ends[0]).abs().max() <= 1
