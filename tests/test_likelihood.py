"""The judge of samples and the scores of images that are no digits.

The records that ship agree with themselves and with the weights."""

import json

import pytest
import torch

import flowbook.experiments.likelihood as page
from flowbook.data import mnist10k
from flowbook.experiments.likelihood import (
    CONFIDENT,
    FLOWS,
    HALF,
    SCORED,
    Judge,
    bits_under,
    class_probabilities,
    draw,
    give_verdict,
    judge_samples,
    main,
    official_test,
    read_judge,
    score_strangers,
    strangers,
    train_judge,
)
from flowbook.files import load, read_tensors, save
from flowbook.pixels import image_bits
from flowbook.records import read_record, read_run, shipped
from flowbook.train import fit

DIGITS, CLASSES = mnist10k('test')


class Fixed(Judge):
    "A judge whose opinion is a table: the first pixel of an image is its row."

    table = torch.tensor([[0.95, 0.05, 0.0], [0.3, 0.7, 0.0], [0.0, 0.1, 0.9001]])

    def forward(self, x):
        return self.table.to(self.like)[x[:, 0, 0, 0].long()].log()


def fixed(rows):
    "A fixed judge of three classes, and one image for each row."
    images = torch.zeros(len(rows), 1, 4, 4)
    images[:, 0, 0, 0] = torch.tensor(rows)
    return Fixed((1, 4, 4), 3), images


def test_a_verdict_counts_the_sure_ones():
    judge, images = fixed([0.0, 0.9, 1.0, 2.0])
    told = give_verdict(judge, images, torch.tensor([0, 1, 1, 1]))
    assert (told.n, told.recognised, told.as_ordered) == (4, 0.75, 0.5)
    assert told.histogram == [2, 0, 1] and told.covered == 2
    assert told.error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert give_verdict(judge, images).as_ordered is None


def test_a_class_is_covered_by_one_image_in_a_hundred():
    judge, images = fixed([0.0] * 199 + [2.0])
    assert give_verdict(judge, images).covered == 1
    assert give_verdict(judge, images[1:].repeat(2, 1, 1, 1)[:150]).covered == 1
    judge, images = fixed([0.0] * 99 + [2.0])
    assert give_verdict(judge, images).covered == 2


def test_samples_are_rounded_down_to_grey_levels():
    judge = read_judge()
    x = DIGITS[:50]
    exact = class_probabilities(judge, x)
    noisy = x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 0.99
    beyond = torch.where(x == 0, -3.0, torch.where(x == 255, 300.0, noisy))
    assert torch.equal(class_probabilities(judge, noisy), exact)
    assert torch.equal(class_probabilities(judge, beyond), exact)
    assert torch.allclose(exact.sum(1), torch.ones(50))


@pytest.mark.parametrize('size', [1, 7, 1000])
def test_the_size_of_pieces_changes_nothing(size):
    judge = read_judge()
    whole = class_probabilities(judge, DIGITS[:20])
    pieces = class_probabilities(judge, DIGITS[:20], batch_size=size)
    assert torch.allclose(whole, pieces, atol=1e-5)


def test_a_judge_keeps_its_mode_and_leaves_gradients_alone():
    judge = read_judge().train()
    one = class_probabilities(judge, DIGITS[:10])
    assert judge.training and not one.requires_grad
    assert torch.equal(one, class_probabilities(judge, DIGITS[:10]))


def test_what_is_wrong_is_said():
    judge = read_judge()
    with pytest.raises(ValueError, match='images: expected at least one'):
        give_verdict(judge, DIGITS[:0])
    with pytest.raises(ValueError, match='shape: expected multiples of 4'):
        Judge((1, 28, 30))
    with pytest.raises(ValueError, match='context: expected the classes'):
        judge.loss(DIGITS[:2])
    with pytest.raises(ValueError, match='data: expected'):
        train_judge(data='mnits')


def test_a_run_without_a_judge_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_judge('mnist-glow')
    flow = load(shipped() / 'mnist-realnvp-images' / 'weights.safetensors')
    save(flow, tmp_path / 'judge.safetensors')
    with pytest.raises(ValueError, match='run: expected a judge'):
        read_judge(tmp_path)


def small_fit(seed):
    "A small judge, trained for a moment."
    torch.manual_seed(seed)
    judge = Judge(width=8, hidden=32)
    x, y = mnist10k('train')
    one_hot = torch.nn.functional.one_hot(y[:2000], 10).float()
    fit(judge, x[:2000], one_hot, epochs=8, batch_size=25, lr=5e-3, device='cpu')
    return judge


def test_fit_trains_a_judge_and_repeats_itself(tmp_path):
    judge = small_fit(0)
    assert give_verdict(judge, DIGITS, CLASSES).as_ordered > 0.85
    again = small_fit(0).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in judge.state_dict().items())
    save(judge, tmp_path / 'judge.safetensors', torch.float16)
    back = read_judge(tmp_path)
    told = [class_probabilities(j, DIGITS[:100]) for j in (judge, back)]
    assert (told[0] - told[1]).abs().max() < 0.02 and not back.training
    double = class_probabilities(judge.double(), DIGITS[:100])
    assert double.dtype == torch.float64 and torch.allclose(double.float(), told[0])


def test_the_judge_of_the_package_is_the_one_on_record():
    record = read_record('mnist-judge')
    stored = next(m for m in record['metrics'] if m['split'] == 'test')
    live = give_verdict(read_judge(), *official_test())
    assert live.n == stored['n'] == 10_000
    assert abs(live.as_ordered - stored['value']) < 3e-4 and live.as_ordered > 0.99
    file = shipped() / 'mnist-judge' / 'judge.safetensors'
    assert file.stat().st_size < 2**20
    assert record['parameters'] == sum(p.numel() for p in read_judge().parameters())


def test_official_images_are_in_the_order_of_the_file():
    images, classes = official_test()
    assert images.shape == (10_000, 1, 28, 28) and len(classes) == 10_000
    for k, part in [(3, 'train'), (8, 'valid'), (9, 'test')]:
        x, y = mnist10k(part)
        at = torch.arange(10_000) % 10
        row = int((at[:k] < 8).sum()) if part == 'train' else 0
        assert torch.equal(images[k], x[row]) and classes[k] == y[row]


def test_strangers_are_made_from_digits_and_repeat_themselves():
    before = torch.get_rng_state()
    kinds = strangers(DIGITS[:100])
    assert torch.equal(torch.get_rng_state(), before)
    again = strangers(DIGITS[:100])
    other = strangers(DIGITS[:100], seed=1)
    for name, x in kinds.items():
        assert x.shape == DIGITS[:100].shape and x.dtype == torch.uint8
        assert torch.equal(x, again[name])
    assert not torch.equal(kinds['uniform noise'], other['uniform noise'])
    assert torch.equal(255 - kinds['inverted digits'], DIGITS[:100])
    changed = kinds['digits with salt'] != DIGITS[:100]
    assert (kinds['digits with salt'][changed] == 255).all()
    assert 0.01 < changed.double().mean() < 0.025
    shuffled = kinds['pixels shuffled'].flatten(1)
    assert torch.equal(shuffled.sort(1).values, DIGITS[:100].flatten(1).sort(1).values)
    mixed = kinds['pixels of other digits'].flatten(1)
    at_pixel = [set(column) for column in DIGITS[:100].flatten(1).T.tolist()]
    assert all(set(c) <= s for c, s in zip(mixed.T.tolist(), at_pixel))


# The records.
@pytest.mark.parametrize('name', ['mnist-samples', 'mnist-samples-other'])
def test_verdicts_on_record_are_whole(name):
    record = read_record(name)
    rows = {r['name']: r for r in record['rows']}
    assert len(rows) == len(record['rows']) and record['confident'] == CONFIDENT
    assert set(FLOWS) <= set(rows) and {'test digits', 'clothes'} <= set(rows)
    for r in record['rows']:
        assert sum(r['histogram']) == round(r['recognised'] * r['n'])
        share = r['recognised']
        assert r['error'] == pytest.approx((share * (1 - share) / r['n']) ** 0.5)
        assert r['covered'] == sum(count >= r['n'] / 100 for count in r['histogram'])
        assert r['kind'] in ('data', 'samples', 'control')


def test_bits_on_record_are_those_of_the_images():
    record = read_record('mnist-others')
    kept, _ = read_tensors(shipped() / 'mnist-others' / 'bits.safetensors')
    assert {f"{r['run']}/{r['set']}" for r in record['rows']} == set(kept)
    assert {r['run'] for r in record['rows']} == {*SCORED, 'zlib'}
    for r in record['rows']:
        bits = kept[f"{r['run']}/{r['set']}"].float()
        assert len(bits) == 1000 and bits.isfinite().all()
        if r['n'] == len(bits):
            for found, value in [(bits.median(), 'median'), (bits.max(), 'largest')]:
                assert found.item() == pytest.approx(min(r[value], HALF), rel=1e-3)
    file = shipped() / 'mnist-others' / 'bits.safetensors'
    assert file.stat().st_size < 250_000


# The commands, on few images.
@pytest.fixture
def few(monkeypatch):
    "Few images, and no data that does not ship with the package."
    monkeypatch.setattr(page, 'official_test', lambda: (DIGITS[:60], CLASSES[:60]))
    monkeypatch.setattr(page, 'fashion_mnist', lambda part: (DIGITS[60:120], None))


def test_any_run_can_be_judged_by_name_or_folder(few, capsys):
    folder = shipped() / 'mnist-realnvp-images'
    record = judge_samples([folder, 'mnist-glow-labels'], n=20)
    names = [r['name'] for r in record['rows']]
    assert names[:3] == ['test digits', folder.name, 'mnist-glow-labels']
    by_name = dict(zip(names, record['rows']))
    assert by_name['mnist-glow-labels']['as_ordered'] > 0.3
    assert by_name[folder.name]['as_ordered'] is None
    assert all(r['n'] in (20, 60) for r in record['rows'])


def test_any_run_can_score(few, capsys):
    record, kept = score_strangers(['mnist-realnvp-images'], n=10)
    sets = {r['set'] for r in record['rows']}
    assert len(record['rows']) == 2 * len(sets) == 2 * 8
    assert all(len(bits) == 10 for bits in kept.values())
    medians = {(r['run'], r['set']): r['median'] for r in record['rows']}
    assert medians['mnist-realnvp-images', 'black'] < 1
    assert medians['zlib', 'uniform noise'] > 8


def test_a_flow_that_wants_a_class_is_averaged_over_classes():
    flow, _ = read_run('mnist-glow-labels')
    x = DIGITS[:4]
    mean = bits_under('mnist-glow-labels', x, seed=0)
    each = [image_bits(flow, x, c.expand(4, 10)) for c in torch.eye(10)]
    p = torch.stack([2 ** (-784 * (bits - each[0])) for bits in each]).mean(0)
    assert torch.allclose(mean, each[0] - p.log2() / 784)


def test_the_commands_write_records(few, capsys, tmp_path):
    main(f'samples --out {tmp_path}/s --runs mnist-realnvp-images --n 5'.split())
    main(f'others --out {tmp_path}/o --runs mnist-realnvp-images --n 5'.split())
    main(f'judge --out {tmp_path}/j --data mnist10k --epochs 1 --seed 3'.split())
    for what in 'soj':
        record = json.loads((tmp_path / what / 'run.json').read_text())
        assert record['hardware']['threads'] == 1 and record['finished']
    assert (tmp_path / 'o' / 'bits.safetensors').is_file()
    assert record['job']['seed'] == 3 and record['sizes']['train'] == 8000
    assert give_verdict(read_judge(tmp_path / 'j'), DIGITS, CLASSES).as_ordered > 0.9


def test_a_flow_that_takes_orders_is_asked_for_each_class_in_turn():
    x, classes = draw('mnist-glow-labels', 30)
    assert classes.tolist() == [*range(10)] * 3 and x.shape == (30, 1, 28, 28)
    assert torch.equal(x, draw('mnist-glow-labels', 30)[0])
    x, classes = draw('mnist-realnvp-images', 3, seed=1)
    assert classes is None and not torch.equal(x, draw('mnist-realnvp-images', 3)[0])


def test_an_unknown_run_is_refused_by_name(few):
    with pytest.raises(ValueError, match='run: expected a folder'):
        judge_samples(['mnist-glwo'], n=5)
