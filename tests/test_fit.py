"""Training gets where it should, and it can be cut off anywhere.

It says what is wrong before it wastes time."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest
import torch

from flowbook.core import Bijection, Compose, Flow, Model, Standardize, StandardNormal
from flowbook.coupling import DiagScale, nice
from flowbook.files import load, read_tensors, save, write_bytes
from flowbook.pixels import dequantize, on_pixels
from flowbook.realnvp import realnvp
from flowbook.toys import kl_to_truth, toys
from flowbook.train import Diverged, evaluate, fit, nll
from support import ROOT, normal

DATA = 2 * normal(200, 2, dtype=torch.float32) + torch.tensor([5.0, -3.0])


def small(seed=0, **kwargs):
    torch.manual_seed(seed)
    return realnvp(2, **dict(layers=2, hidden=(8,)) | kwargs)


def same(a, b):
    return all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())


def test_reaches_the_entropy_of_the_banana():
    flow = small(layers=5, hidden=(32, 32))
    history = fit(
        flow,
        toys['banana'].sample,
        epochs=6,
        epoch_size=25_600,
        batch_size=256,
        lr=5e-3,
        ema=0.99,
    )
    kl, error = kl_to_truth(flow, toys['banana'], 20_000)
    assert abs(kl) < 0.05, f'{kl} ± {error} nats above the entropy'
    assert history.stopped == 'all epochs' and history.train[-1] < history.train[0]
    assert (
        len(history.train) == len(history.valid) == len(history.lr) == 6
        and history.steps == 600
    )
    assert (
        history.best == min(history.valid) == history.valid[history.best_epoch]
        and history.seconds > 0
    )


def test_a_conditional_flow_learns_what_depends_on_the_context():
    c = normal(2000, 1, seed=1, dtype=torch.float32)
    x = torch.cat([c, -c], 1) + 0.1 * normal(2000, 2, seed=2, dtype=torch.float32)
    flow = small(context_dim=1, layers=4, hidden=(16,))
    fit(flow, x, c, epochs=15, lr=1e-2)
    entropy = 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.1))
    assert evaluate(flow, x, c).mean().item() < entropy + 0.2
    mean = flow.sample((500,), torch.tensor([1.0])).mean(0)
    torch.testing.assert_close(mean, torch.tensor([1.0, -1.0]), atol=0.1, rtol=0)


def test_the_same_seed_gives_the_same_weights_whatever_happened_before():
    flows = []
    for noise in range(2):
        flow = small()
        torch.manual_seed(noise)
        fit(flow, DATA, epochs=2, seed=3, ema=0.9)
        flows.append(flow)
    assert same(*flows)
    other = small()
    fit(other, DATA, epochs=2, seed=4, ema=0.9)
    assert not same(flows[0], other)


def test_global_random_generators_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fit(small(), DATA, epochs=2)
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and (np.random.get_state()[1] == before[1]).all()
        and random.getstate() == before[2]
    )


def test_fit_returns_the_weights_of_the_best_validation_loss():
    flow, held = small(), DATA[:40]
    history = fit(flow, DATA[40:60], valid=held, epochs=60, lr=3e-2, batch_size=20)
    assert evaluate(flow, held).mean().item() == pytest.approx(history.best, abs=1e-5)
    assert history.best < history.valid[-1], 'this run was to overfit'


# Interruptions.
class Cut(Exception):
    "Stands for a power cut."


def cut_off(flow, steps, **kwargs):
    calls = []

    def loss(*args):
        calls.append(1)
        if len(calls) > steps:
            raise Cut
        return nll(*args)

    with mock.patch.object(Flow, 'loss', loss), pytest.raises(Cut):
        fit(flow, DATA, **kwargs)


@pytest.mark.parametrize('ema', [None, 0.9])
@pytest.mark.parametrize('valid', [0, 0.2])
@pytest.mark.parametrize('schedule, warmup', [('cosine', 3), ('constant', 0)])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, ema, valid, schedule, warmup):
    whole, pieces = small(), small()
    run = dict(
        epochs=5,
        batch_size=32,
        seed=5,
        ema=ema,
        valid=valid,
        schedule=schedule,
        warmup=warmup,
        lr=1e-2,
    )
    want = fit(whole, DATA, **run)
    cut_off(pieces, 20, checkpoint=tmp_path / 'c.safetensors', **run)
    pieces = small(seed=1)  # a fresh process would start from other weights
    got = fit(pieces, DATA, checkpoint=tmp_path / 'c.safetensors', resume=True, **run)
    assert same(whole, pieces)
    assert (got.train, got.valid, got.lr, got.steps, got.best_epoch) == (
        want.train,
        want.valid,
        want.lr,
        want.steps,
        want.best_epoch,
    )


def test_a_finished_run_resumes_to_itself(tmp_path):
    flow, again, run = (
        small(),
        small(seed=1),
        dict(epochs=2, checkpoint=tmp_path / 'c.safetensors'),
    )
    fit(flow, DATA, **run)
    history = fit(again, DATA, resume=True, **run)
    assert (
        same(flow, again)
        and len(history.train) == 2
        and history.stopped == 'all epochs'
    )


VICTIM = '''
import sys, time, torch
from flowbook.files import save
from flowbook.realnvp import realnvp
from flowbook.train import fit, nll
torch.set_num_threads(1)
path, out, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
def slow(*args):
    time.sleep(pause)
    return nll(*args)
torch.manual_seed(0)
flow = realnvp(2, layers=2, hidden=(8,))
x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
fit(flow, x, epochs=8, batch_size=50, ema=.9, seed=2, loss=slow, checkpoint=path, resume=True)
save(flow, out)
'''


def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    def run(name, pause):
        return [
            sys.executable,
            '-c',
            VICTIM,
            tmp_path / f'{name}.checkpoint',
            tmp_path / f'{name}.flow',
            str(pause),
        ]

    victim, whole = (
        subprocess.Popen(run('killed', 0.05), cwd=ROOT),
        subprocess.Popen(run('whole', 0), cwd=ROOT),
    )
    end = time.monotonic() + 60
    while (
        time.monotonic() < end
    ):  # two epochs are stored: kill in the middle of the third
        try:
            done = len(
                read_tensors(tmp_path / 'killed.checkpoint')[1]['history']['train']
            )
        except FileNotFoundError:
            done = 0
        if done >= 2:
            break
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, (
        'the run was over before it could be killed'
    )
    assert not (tmp_path / 'killed.flow').exists() and 2 <= done < 8
    again = subprocess.Popen(run('killed', 0), cwd=ROOT)
    assert [p.wait(timeout=60) for p in (whole, again)] == [0, 0]
    assert same(load(tmp_path / 'killed.flow'), load(tmp_path / 'whole.flow'))


@pytest.mark.parametrize('fails', ['fsync', 'replace'])
def test_a_failing_write_leaves_the_old_file_whole(tmp_path, monkeypatch, fails):
    path = tmp_path / 'c.safetensors'
    write_bytes(path, b'old')

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match='No space'):
        write_bytes(path, b'new' * 1000)
    assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == [
        'c.safetensors'
    ]


def test_a_checkpoint_that_cannot_be_written_keeps_the_last_one(tmp_path, monkeypatch):
    path, flow, run = tmp_path / 'c.safetensors', small(), dict(epochs=3, seed=1)
    replace, calls = os.replace, []

    def third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, 'No space left on device')
        replace(*args)

    monkeypatch.setattr(os, 'replace', third)
    with pytest.raises(OSError):
        fit(flow, DATA, checkpoint=path, **run)
    assert [p.name for p in tmp_path.iterdir()] == ['c.safetensors']
    assert len(read_tensors(path)[1]['history']['train']) == 2


@pytest.mark.parametrize('change', [dict(lr=2e-3), dict(seed=9), dict(ema=0.5)])
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change):
    run = dict(epochs=2, checkpoint=tmp_path / 'c.safetensors')
    fit(small(), DATA, **run)
    with pytest.raises(ValueError, match=f"another run.*{next(iter(change))}"):
        fit(small(), DATA, resume=True, **run | change)


def test_a_checkpoint_of_another_flow_is_refused(tmp_path):
    run = dict(epochs=2, checkpoint=tmp_path / 'c.safetensors')
    fit(small(), DATA, **run)
    with pytest.raises(ValueError, match='c.safetensors'):
        fit(small(hidden=(9,)), DATA, resume=True, **run)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / 'c.safetensors'
    fit(small(), DATA, epochs=2, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match='c.safetensors'):
        fit(small(), DATA, epochs=2, checkpoint=path, resume=True)


# When it goes wrong.
class Root(Bijection):
    "x = z²: not a number as soon as something is negative."

    def forward(self, z, context=None):
        return z.square(), (2 * z).abs().log().sum(-1)

    def inverse(self, x, context=None):
        return x.sqrt(), -(2 * x.sqrt()).log().sum(-1)


def test_divergence_names_the_layer_and_keeps_finite_weights():
    flow = Flow(
        StandardNormal(2),
        Compose(DiagScale(2), Root(), nice(2, standardize=False).bijection),
    )
    x = DATA.abs() + 0.1
    with pytest.raises(Diverged, match=r'layer 1, Root\(\)'):
        fit(flow, x, epochs=200, lr=0.3)
    assert all(torch.isfinite(t).all() for t in flow.state_dict().values())
    assert torch.isfinite(evaluate(flow, x)).all()


def test_divergence_at_the_first_step_keeps_the_weights_it_had():
    flow = small()
    weights = {k: v.clone() for k, v in flow.named_parameters()}
    with pytest.raises(Diverged, match='step 0'):
        fit(flow, DATA, loss=lambda f, x, c: nll(f, x, c) * math.nan)
    assert all(torch.equal(weights[k], v) for k, v in flow.named_parameters())


@pytest.mark.parametrize('error', [KeyboardInterrupt, Cut])
def test_an_interrupted_run_leaves_the_best_weights_so_far(error):
    flow, calls = small(), []

    def loss(f, x, c=None):
        calls.append(1)
        if len(calls) == 12:
            raise error
        return nll(f, x, c)

    with pytest.raises(error):
        fit(flow, DATA, loss=loss, epochs=50, lr=0.1, batch_size=90)
    assert all(torch.isfinite(t).all() for t in flow.state_dict().values())
    assert evaluate(flow, DATA).mean() < evaluate(small(), DATA).mean()


def test_early_stopping_waits_for_patience_epochs_and_says_so():
    history = fit(
        small(),
        DATA[40:60],
        valid=DATA[:40],
        epochs=500,
        lr=3e-2,
        batch_size=20,
        patience=5,
    )
    assert history.stopped == 'no progress' and len(history.train) < 500
    best = -1 if history.best_epoch is None else history.best_epoch  # -1: the start
    assert len(history.valid) - 1 - best == 5


def test_early_stopping_counts_a_tie_as_no_progress():
    history = fit(
        small(),
        DATA,
        epochs=20,
        loss=lambda f, x, c: 0 * nll(f, x, c),
        patience=3,
    )
    assert history.stopped == 'no progress' and len(history.train) == 3


# What may be passed in.
def test_a_double_precision_flow_stays_double():
    flow = small().double()
    history = fit(flow, DATA, epochs=2)
    assert {p.dtype for p in flow.parameters()} == {torch.float64} and math.isfinite(
        history.best
    )
    assert evaluate(flow, DATA).dtype == torch.float64


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_numpy_data_train_like_tensors(kind):
    flows = [small(), small()]
    for flow, x in zip(flows, [DATA, DATA.numpy().astype(kind)]):
        fit(flow, x, epochs=2)
    assert same(*flows)


def test_numpy_context_and_held_out_data_are_taken():
    flow, c = small(context_dim=1), DATA[:, :1].numpy()
    history = fit(
        flow, DATA.numpy(), c, valid=DATA[:20].numpy(), valid_context=c[:20], epochs=2
    )
    assert len(history.valid) == 2


def test_a_batch_larger_than_the_data_and_a_last_batch_of_one_are_fine():
    assert fit(small(), DATA[:5], valid=0, epochs=2, batch_size=100).steps == 2
    assert fit(small(), DATA[:5], valid=0, epochs=2, batch_size=4).steps == 4


@pytest.mark.parametrize('value', [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_column_stays_finite(value):
    x = DATA.clone()
    x[:, 1] = value
    flow = small()
    with pytest.raises(ValueError, match='column 1 never varies'):
        fit(flow, x, epochs=3)
    history = fit(flow, x, epochs=3, allow_ties=True)
    assert all(map(math.isfinite, history.train + history.valid))
    torch.testing.assert_close(
        flow.sample((100,))[:, 1].mean().item(), value, rtol=1e-3, atol=0.5
    )


def test_data_far_from_the_origin_are_standardised():
    flow = small()
    history = fit(flow, 1e-3 * DATA + 1e3, epochs=3)
    assert history.train[0] < 0, 'the first epoch already knows the unit of the data'


def test_prepare_sees_raw_batches_and_draws_anew_every_epoch():
    images, seen = (
        torch.randint(
            0,
            256,
            (60, 1, 2, 2),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(0),
        ),
        [],
    )

    def prepare(b):
        assert b.dtype == torch.uint8
        y = dequantize(b)
        if len(b) == 54:
            seen.append(y.sum((1, 2, 3)).sort().values)
        return y

    flow = on_pixels(realnvp(4, layers=2, hidden=(8,)), (1, 2, 2))
    fit(flow, images, prepare=prepare, epochs=2, batch_size=54)
    assert not torch.equal(*seen[-2:]), 'the same noise in both epochs'


def test_fresh_data_are_drawn_every_epoch():
    drawn = []

    def draw(n):
        drawn.append(torch.randn(n, 2))
        return drawn[-1]

    fit(small(), draw, epochs=3, epoch_size=100, valid=0)
    assert [len(x) for x in drawn[-3:]] == [100] * 3 and not torch.equal(
        drawn[-1], drawn[-2]
    )


def test_frozen_parameters_stay():
    flow = small()
    first = flow.bijection.layers[0].requires_grad_(False)
    want = [p.clone() for p in first.parameters()]
    fit(flow, DATA, epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(want, first.parameters()))


NAN = DATA.clone()
NAN[7, 1] = math.nan


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(data=NAN), 'data: row 7'),
        (dict(data=DATA / 0), 'data: row 0'),
        (dict(data=torch.zeros(0, 2)), 'data'),
        (dict(data=torch.tensor(1.0)), 'data'),
        (dict(data=torch.zeros(10, 3)), r'data: expected shape \(n, 2\)'),
        (dict(data=torch.zeros(10)), 'data'),
        (dict(data=torch.zeros(10, 2, dtype=torch.long)), 'have no density'),
        (dict(data=DATA[:1]), 'valid=0'),
        (dict(data=lambda n: torch.zeros(n, 3)), 'data'),
        (dict(valid=1.0), 'valid'),
        (dict(valid=-0.1), 'valid'),
        (dict(valid=torch.zeros(5, 3)), 'expected shape'),
        (dict(valid=NAN), 'row 7'),
        (dict(context=torch.zeros(200, 1)), 'context'),
        (dict(schedule='linear'), 'schedule'),
        (dict(schedule='linear', warmup=5), 'schedule'),
        (dict(batch_size=0), 'batch_size'),
        (dict(epochs=-1), 'epochs'),
        (dict(lr=-1.0), '(?i)l(ea)?r'),
        (dict(device='abacus'), 'device'),
    ],
)
def test_a_mistake_is_refused_by_name_before_training(kwargs, message):
    flow = small()
    with pytest.raises(ValueError, match=message):
        fit(flow, **{'data': DATA, 'epochs': 1} | kwargs)
    assert same(small(), flow), 'the flow was changed'


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(context=torch.zeros(150, 1)),
        dict(context=torch.zeros(300, 1)),
        dict(context=torch.zeros(200, 2)),
        dict(context=None),
        dict(context=torch.full((200, 1), math.nan)),
        dict(context=torch.zeros(200, 1), valid=DATA[:20]),
        dict(data=lambda n: torch.randn(n, 2), context=torch.zeros(200, 1)),
    ],
)
def test_a_context_that_does_not_fit_the_data_is_refused_by_name(kwargs):
    with pytest.raises(ValueError, match='context'):
        fit(small(context_dim=1), **{'data': DATA, 'epochs': 1} | kwargs)


@pytest.mark.parametrize(
    'kwargs', [dict(epoch=3), dict(learning_rate=0.1), dict(batchsize=2)]
)
def test_a_misspelt_keyword_is_refused(kwargs):
    with pytest.raises(TypeError, match=next(iter(kwargs))):
        fit(small(), DATA, **kwargs)


def test_a_flow_without_parameters_is_refused():
    with pytest.raises(ValueError, match='no parameters'):
        fit(Flow(StandardNormal(2), Standardize(2)), DATA)


def test_training_is_silent_under_in_test_and_shows_a_bar_when_asked(capfd):
    fit(small(), DATA, epochs=1)
    assert capfd.readouterr() == ('', '')
    fit(small(), DATA, epochs=1, progress=True)
    assert 'step' in capfd.readouterr().err


def test_the_loss_curve_can_be_drawn_without_a_window():
    from matplotlib.figure import Figure

    ax = fit(small(), DATA, epochs=3).plot(Figure().subplots(), floor=1.0)
    assert (
        ax.get_ylabel() == 'negative log-likelihood (nats)'
        and len(ax.lines) == 3
        and len(ax.lines[0].get_xdata()) == 3
    )


class Tug(Model):
    "Two numbers: `a` is pulled to the data's mean, `b` to `a`; a third player has nothing to gain."

    event_shape = (1,)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]

    def players(self):
        return [
            (
                'first',
                [self.a],
                lambda m, x, context: ((x - m.a) ** 2 + m.c**2).sum(-1),
            ),
            (
                'second',
                [self.b],
                lambda m, x, context: ((m.a - m.b) ** 2).sum(-1).expand(len(x)),
            ),
        ]

    def sample(self, shape=(), context=None, temperature=1.0, generator=None):
        return self.b.expand(*shape, 1)


def test_players_take_turns_and_move_only_what_is_theirs():
    game = Tug()
    history = fit(game, DATA[:, :1], epochs=100, lr=0.2)
    mean = DATA[:, 0].mean()
    assert abs(game.a - mean) < 0.1 and abs(game.b - mean) < 0.1, (
        'the second follows the first, which does not notice'
    )
    assert game.c == 0 and history.valid == [] and history.steps == 100 * 2
    assert (
        len(history.train) == len(history.others['second']) == 100
        and history.others['second'][-1] < 0.01
    )
    with pytest.raises(ValueError, match='valid: a game'):
        fit(Tug(), DATA[:, :1], valid=0.1)


def test_a_game_resumes_bit_for_bit(tmp_path):
    whole, pieces, path = Tug(), Tug(), tmp_path / 'game.checkpoint'
    fit(whole, DATA[:, :1], epochs=4, ema=0.9)

    def cut(n):
        def draw(m, x, context):
            cut.left -= 1
            if cut.left < 0:
                raise KeyboardInterrupt
            return Tug.players(m)[0][2](m, x, context)

        cut.left = n
        return lambda: [('first', [pieces.a], draw), Tug.players(pieces)[1]]

    pieces.players = cut(5)
    with pytest.raises(KeyboardInterrupt):
        fit(pieces, DATA[:, :1], epochs=4, ema=0.9, checkpoint=path)
    del pieces.players
    assert fit(
        pieces, DATA[:, :1], epochs=4, ema=0.9, checkpoint=path, resume=True
    ).others['second']
    assert same(whole, pieces)


def test_a_model_that_is_no_flow_is_saved_and_loaded(tmp_path):
    game = Tug()
    fit(game, DATA[:, :1], epochs=2)
    save(game, tmp_path / 'game.safetensors')
    assert same(load(tmp_path / 'game.safetensors'), game)
    with pytest.raises(NotImplementedError, match='Tug has no loss of its own'):
        evaluate(game, DATA[:, :1])
