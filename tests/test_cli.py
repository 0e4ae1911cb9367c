"The command line: what it leaves behind, and one line on stderr and status 2 for every mistake."

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from flowbook import __version__, fitting, jobs, parts, records, runs, scores
from flowbook.files import load
from flowbook.realnvp import realnvp
from flowbook.settings import SETTINGS
from flowbook.train import fit
from support import ROOT, normal
from support import run_shell as run

SMALL = '--layers 2 --hidden 8 --epochs 2 --threads 1'.split()


def table(path, x, header=''):
    path.write_text(
        header + ''.join(','.join(f'{v:.6g}' for v in row) + '\n' for row in x.tolist())
    )
    return path


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "A table, images, and a finished run on each, made once; tests only read them."
    folder = tmp_path_factory.mktemp('files')
    table(folder / 'points.csv', normal(100, 3), header='a,b,c\n')
    np.save(
        folder / 'images.npy',
        torch.randint(0, 256, (60, 4, 4), generator=torch.Generator().manual_seed(0))
        .numpy()
        .astype('uint8'),
    )
    assert (
        run('fit', 'realnvp', folder / 'points.csv', '--out', folder / 'points', *SMALL)
        == 0
    )
    assert (
        run('fit', 'nice', folder / 'images.npy', '--out', folder / 'images', *SMALL)
        == 0
    )
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty current folder."
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder):
    return {
        p.relative_to(folder): p.read_bytes() if p.is_file() else None
        for p in folder.rglob('*')
    }


# What it leaves behind.
@pytest.mark.parametrize(
    'name, model, unit, splits',
    [
        ('points', 'realnvp', 'nats', {'test'}),
        ('images', 'nice', 'bits/dim', {'valid', 'test'}),
    ],
)
def test_fit_leaves_weights_record_and_pictures(files, name, model, unit, splits):
    assert {p.name for p in (files / name).iterdir()} == {
        'run.json',
        'weights.safetensors',
        'checkpoint.safetensors',
        'samples.png',
        'loss.png',
    }
    record = json.loads((files / name / 'run.json').read_text())
    assert (
        record['model'] == model
        and record['data'] == {'points': 'points.csv', 'images': 'images.npy'}[name]
    )
    assert {m['split'] for m in record['metrics']} == splits
    for m in record['metrics']:
        assert (
            m['unit'] == unit
            and m['n'] == record['sizes'][m['split']]
            and math.isfinite(m['value'])
            and m['error'] > 0
            and m['name']
        )
    assert record['parameters'] == sum(
        p.numel() for p in load(files / name / 'weights.safetensors').parameters()
    )
    assert (
        len(record['history']['train']) == len(record['history']['valid']) == 2
        and record['seconds'] >= 0
        and record['finished']
    )
    assert None not in [
        record['hardware'][k]
        for k in ('cpu', 'cores', 'threads', 'python', 'torch', 'flowbook')
    ]
    assert (
        record['job']['layers'] == 2
        and record['job']['seed'] == 0
        and record['job']['lr'] > 0
        and record['job']['batch_size'] > 0
    )
    assert str(files) not in json.dumps(record), 'a machine path in the record'
    for png in ('samples.png', 'loss.png'):
        assert (files / name / png).read_bytes()[:4] == b'\x89PNG' and (
            files / name / png
        ).stat().st_size > 2000


def test_sizes_are_those_of_an_8_1_1_split(files):
    assert json.loads((files / 'points' / 'run.json').read_text())['sizes'] == dict(
        train=80, valid=10, test=10
    )


def test_fit_on_a_set_of_the_book_reports_the_distance_to_the_truth(here, capsys):
    assert (
        run(
            'fit',
            'realnvp',
            'banana',
            '--epochs',
            1,
            '--threads',
            1,
            '--layers',
            2,
            '--hidden',
            8,
            '--batch-size',
            2048,
        )
        == 0
    )
    out = capsys.readouterr().out
    assert 'KL to the truth' in out and 'samples.png' in out
    record = json.loads(Path('runs/realnvp-banana/run.json').read_text())
    assert [m['unit'] for m in record['metrics']] == ['nats', 'nats'] and record[
        'sizes'
    ]['train'] == 'fresh'


def test_the_same_command_gives_the_same_weights(files, tmp_path):
    assert (
        run('fit', 'realnvp', files / 'points.csv', '--out', tmp_path / 'again', *SMALL)
        == 0
    )
    assert (tmp_path / 'again' / 'weights.safetensors').read_bytes() == (
        files / 'points' / 'weights.safetensors'
    ).read_bytes()
    assert (
        run(
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'other',
            '--seed',
            1,
            *SMALL,
        )
        == 0
    )
    assert (tmp_path / 'other' / 'weights.safetensors').read_bytes() != (
        files / 'points' / 'weights.safetensors'
    ).read_bytes()


def test_half_precision_weights_are_what_is_measured(files, tmp_path, capsys):
    assert (
        run(
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'half',
            '--half',
            *SMALL,
        )
        == 0
    )
    assert (tmp_path / 'half' / 'weights.safetensors').stat().st_size < (
        files / 'points' / 'weights.safetensors'
    ).stat().st_size
    assert json.loads((tmp_path / 'half' / 'run.json').read_text())['half'] is True


def test_rounded_weights_are_what_is_measured(files, tmp_path):
    assert (
        run(
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'rounded',
            '--half',
            '--bits',
            3,
            *SMALL,
        )
        == 0
    )
    record, flow = (
        json.loads((tmp_path / 'rounded' / 'run.json').read_text()),
        load(tmp_path / 'rounded' / 'weights.safetensors'),
    )
    assert (
        record['bits'] == 3 and record['metrics'] != record['metrics in full precision']
    )
    matrices = [p.detach() for p in flow.parameters() if p.dim() > 1 and p.std() > 0]
    assert matrices
    for p in matrices:  # to multiples of about an eighth of the spread
        steps = p / 2.0 ** (p.std().log2().round() - 4)
        assert torch.equal(steps, steps.round())
    assert (
        run(
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'none',
            '--bits',
            0,
            *SMALL,
        )
        == 2
    )


@pytest.mark.parametrize('model', ['maf', 'iaf'])
@pytest.mark.parametrize('data', ['points.csv', 'images.npy'])
def test_autoregressive_models_go_from_fit_to_sample_and_score(
    files, tmp_path, model, data, capsys
):
    assert (
        run('fit', model, files / data, '--out', tmp_path / 'run', '--half', *SMALL)
        == 0
    )
    assert run(
        'fit',
        model,
        files / data,
        '--out',
        tmp_path / 'rows',
        '--order',
        'rows',
        *SMALL,
    ) == (0 if data == 'images.npy' else 2)
    assert run('sample', tmp_path / 'run', '--n', 9, '--out', tmp_path / 'x.npy') == 0
    drawn = np.load(tmp_path / 'x.npy')
    assert (
        drawn.shape == (9, *load(tmp_path / 'run' / 'weights.safetensors').event_shape)
        and np.isfinite(drawn).all()
    )
    assert (
        run('score', tmp_path / 'run', files / data) == 0
        and ('nats' if data == 'points.csv' else 'bits/dim') in capsys.readouterr().out
    )


def test_an_image_model_with_classes_and_learned_noise_goes_from_fit_to_sample(
    tmp_path, capsys
):
    small = ['--layers', 1, '--hidden', 4, '--epochs', 1, '--batch-size', 500]
    assert (
        run('fit', 'glow', 'mnist10k', '--labels', '--out', tmp_path / 'a', *small) == 0
    )
    assert (
        run(
            'fit',
            'glow',
            'mnist10k',
            '--labels',
            '--noise',
            'learned',
            '--bfloat16',
            '--start',
            tmp_path / 'a',
            '--out',
            tmp_path / 'b',
            *small,
        )
        == 0
    )
    assert run('sample', tmp_path / 'b', '--n', 20, '--out', tmp_path / 'x.npy') == 0
    assert np.load(tmp_path / 'x.npy').shape == (20, 1, 28, 28)
    assert (
        run('score', tmp_path / 'b', 'mnist10k') == 0
        and 'bits/dim' in capsys.readouterr().out
    )
    np.save(tmp_path / 'i.npy', np.zeros((3, 28, 28), dtype=np.uint8))
    assert (
        run('score', tmp_path / 'b', tmp_path / 'i.npy') == 2
        and 'needs the class of each image' in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    'argv, message',
    [
        (['fit', 'maf', 'banana', '--order', 'rows'], 'for maf, iaf and nsf on images'),
        (
            ['fit', 'realnvp', 'mnist10k', '--order', 'rows'],
            'for maf, iaf and nsf on images',
        ),
        (['fit', 'glow', 'banana'], 'glow is for images'),
        (['fit', 'realnvp', 'mnist10k', '--labels'], 'noise, labels and start are for'),
        (
            ['fit', 'glow', 'mnist10k', '--start', 'mnist-realnvp'],
            'holds another architecture',
        ),
        (['fit', 'glow', 'mnist10k', '--start', 'gone'], 'expected a folder'),
        (
            ['fit', 'glow', 'mnist10k', '--noise', 'none'],
            "noise: expected one of 'uniform', 'learned', got 'none'",
        ),
        (['fit', 'glow', 'mnist10k', '--scales', 3], 'even sides'),
        (['fit', 'glow', 'mnist10k', '--hidden', 8, 8], 'hidden: expected one width'),
        (['fit', 'maf', 'mnist10k', '--scales', 2], 'are for realnvp-images, glow'),
        (['fit', 'maf', 'banana', '--bound', 2], 'are for realnvp-images, glow'),
        (['fit', 'maf', 'mnist10k', '--start', 'moons'], 'start are for'),
    ],
)
def test_a_mistake_with_image_models_is_one_line(argv, message, tmp_path, capsys):
    assert run(*argv, '--out', tmp_path / 'r') == 2 and not (tmp_path / 'r').exists()
    err = capsys.readouterr().err
    assert message in err and err.count('\n') == 1


def test_an_interrupted_fit_resumes_to_the_same_weights(
    files, tmp_path, capsys, monkeypatch
):
    argv = ['fit', 'realnvp', files / 'points.csv', '--out', tmp_path / 'r', *SMALL]
    run_epoch = fitting.run_epoch

    def cut_off(*args):
        if (tmp_path / 'r' / 'checkpoint.safetensors').exists():
            raise KeyboardInterrupt
        return run_epoch(*args)

    monkeypatch.setattr(fitting, 'run_epoch', cut_off)
    assert run(*argv) == 130 and '--resume' in capsys.readouterr().err
    assert (tmp_path / 'r' / 'checkpoint.safetensors').exists() and not (
        tmp_path / 'r' / 'run.json'
    ).exists()
    monkeypatch.undo()
    assert run(*argv, '--resume') == 0
    assert (tmp_path / 'r' / 'weights.safetensors').read_bytes() == (
        files / 'points' / 'weights.safetensors'
    ).read_bytes()


def test_score_prints_a_mean_with_its_error_and_writes_one_line_per_row(
    files, here, capsys
):
    assert (
        run('score', files / 'points', files / 'points.csv', '--out', 'scores.csv') == 0
    )
    out = capsys.readouterr().out
    head, *lines = Path('scores.csv').read_text().splitlines()
    assert 'nats' in out and '±' in out and 'n = 100' in out and 'median' in out
    assert head == 'row,log_prob_nats,rank' and len(lines) == 100
    row, log_p, rank = np.array([line.split(',') for line in lines], float).T
    assert float(out.split()[0]) == pytest.approx(-log_p.mean(), abs=1e-3)
    assert (row == np.arange(2, 102)).all(), 'lines of the file, whose first are names'
    assert (np.argsort(log_p, kind='stable') == np.argsort(rank)).all()


@pytest.mark.parametrize('rows', [1, 5])
def test_score_takes_images_and_repeats_itself(files, here, capsys, rows):
    np.save('new.npy', np.load(files / 'images.npy')[:rows])
    for _ in range(2):
        assert run('score', files / 'images', 'new.npy') == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and 'bits/dim' in first and f'n = {rows}' in first


@pytest.mark.parametrize('name, shape', [('points', (7, 3)), ('images', (7, 1, 4, 4))])
def test_samples_are_written_in_three_formats_and_repeat_with_the_seed(
    files, here, capsys, name, shape
):
    for out in ('a.npy', 'b.npy', 'a.csv', 'a.png'):
        assert run('sample', files / name, '--n', 7, '--out', out, '--seed', 3) == 0
    a = np.load('a.npy')
    assert a.shape == shape and np.isfinite(a).all() and (a == np.load('b.npy')).all()
    skip = int(name == 'points')  # names
    assert Path('a.csv').read_text().startswith('a,b,c\n' * skip)
    read = np.loadtxt('a.csv', delimiter=',', skiprows=skip)
    np.testing.assert_allclose(read, a.reshape(7, -1), rtol=1e-6)
    assert Path('a.png').read_bytes()[:4] == b'\x89PNG'
    assert (
        run(
            'sample',
            files / name,
            '--n',
            7,
            '--out',
            'b.npy',
            '--temperature',
            0.5,
            '--seed',
            3,
        )
        == 0
    )
    assert (a != np.load('b.npy')).any()


def test_info_says_what_a_run_was(files, capsys):
    assert run('info', files / 'points') == 0
    out = capsys.readouterr().out
    for word in (
        'realnvp on points.csv',
        'parameters',
        'layers=2',
        'torch',
        'nats',
        'n = 10',
        'Coupling',
    ):
        assert word in out


def test_shipped_runs_are_known_by_name(capsys):
    names = records.shipped_flows()
    assert len(names) >= 10 and (records.shipped() / names[0] / 'run.json').is_file()
    for name in names:
        assert run('info', name) == 0
    assert run('info', 'no such run') == 2
    err = capsys.readouterr().err
    assert all(name in err for name in names)


# Tables.
def written(path, **columns):
    "A table with three columns of numbers, and more."
    x = normal(60, 3)
    frame = pd.DataFrame(dict(a=x[:, 0], b=x[:, 1] + x[:, 0], c=x[:, 2].exp()))
    frame = frame.assign(**columns)
    frame.to_csv(path, index=False)
    return frame


def score(capsys, *argv):
    "The JSON document of `score`."
    capsys.readouterr()
    assert run('score', *argv, '--json') == 0
    return json.loads(capsys.readouterr().out)


def test_columns_are_found_by_name_when_scoring(files, here, capsys):
    frame = pd.read_csv(files / 'points.csv')
    frame[['c', 'a', 'b']].to_csv('turned.csv', index=False)
    frame.assign(d=1.5).to_csv('more.csv', index=False)
    frame.drop(columns='b').to_csv('less.csv', index=False)
    want = score(capsys, files / 'points', files / 'points.csv')['mean']
    assert score(capsys, files / 'points', 'turned.csv')['mean'] == want
    names = ['--columns', 'a,b,c']
    assert score(capsys, files / 'points', 'more.csv', *names)['mean'] == want
    for name, word in (
        ('more.csv', "unknown column 'd'"),
        ('less.csv', "no column 'b'"),
    ):
        assert run('score', files / 'points', name) == 2
        assert word in capsys.readouterr().err


def test_the_record_remembers_how_the_table_was_read(here, capsys):
    frame = written('t.csv', w='word', n=np.arange(60) % 6)
    frame.loc[3, 'a'] = np.nan
    frame.to_csv('t.csv', sep=';', decimal=',', index=False)
    options = ['--drop', 'w', '--missing', 'median', '--dequantize', 'n']
    assert run('fit', 'realnvp', 't.csv', *options, '--out', 'r', *SMALL) == 0
    recipe = json.loads(Path('r/run.json').read_text())['table']
    assert recipe['names'] == ['a', 'b', 'c', 'n'] and recipe['ignored'] == ['w']
    assert recipe['options'] == dict(drop='w', missing='median', dequantize='n')
    first = score(capsys, 'r', 't.csv')
    assert first['n'] == 60 and score(capsys, 'r', 't.csv') == first
    assert run('info', 'r') == 0
    assert 'read with: --drop w --missing median' in capsys.readouterr().out
    assert run('sample', 'r', '--n', 50, '--out', 's.csv') == 0
    drawn = pd.read_csv('s.csv')
    assert list(drawn) == recipe['names'] and (drawn['n'] % 1 == 0).all()
    assert run('sample', 'r', '--n', 50, '--out', 's.parquet') == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet('s.parquet').astype(float), drawn.astype(float), rtol=1e-6
    )
    assert score(capsys, 'r', 's.parquet')['n'] == 50


def test_a_condition_is_needed_by_score_and_told_to_sample(here, capsys):
    frame = written('t.csv', k=np.arange(60) % 2)
    argv = ['fit', 'realnvp', 't.csv', '--condition', 'b,k', '--out', 'r', *SMALL]
    assert run(*argv) == 0
    assert load('r/weights.safetensors').event_shape == (2,)
    assert score(capsys, 'r', 't.csv')['n'] == 60
    frame[['a', 'c']].to_csv('less.csv', index=False)
    assert run('score', 'r', 'less.csv') == 2
    assert "no column 'b', 'k'" in capsys.readouterr().err
    given = ['--given', 'k=1', 'b=2.5']
    assert run('sample', 'r', *given, '--n', 5, '--out', 's.csv') == 0
    drawn = pd.read_csv('s.csv')
    assert list(drawn) == ['a', 'b', 'c', 'k'] and len(drawn) == 5
    assert (drawn['b'] == 2.5).all() and (drawn['k'] == 1).all()
    assert run('sample', 'r', '--given-file', 't.csv', '--n', 2, '--out', 's.csv') == 0
    assert pd.read_csv('s.csv')['b'].tolist() == frame['b'].repeat(2).tolist()
    for wrong in ([], ['--given', 'b=1'], ['--given', 'b=1', 'k=x'], [*given, 'z=1']):
        assert run('sample', 'r', *wrong, '--out', 's.csv') == 2
        assert 'given: expected b=… k=…' in capsys.readouterr().err


def test_the_model_may_be_left_out(here, capsys):
    written('my.data.csv')
    assert run('fit', 'my.data.csv', *SMALL) == 0
    assert Path(f'runs/{jobs.DEFAULT_TABLE_MODEL}-my/run.json').is_file()
    assert run('fit', '--columns', 'a', *SMALL, 'my.data.csv', '--out', 'one') == 0
    assert run('fit', *SMALL[:2], 'nice', *SMALL[2:], 'my.data.csv', '--out', 'n') == 0
    assert json.loads(Path('n/run.json').read_text())['model'] == 'nice'
    for wrong in (['nice'], ['nice', 'my.data.csv', 'more'], ['my.data.csv', '--fast']):
        capsys.readouterr()
        assert run('fit', *wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_is_one_document_and_nothing_else(here, capsys):
    written('t.csv')
    capsys.readouterr()
    verbs = {
        'fit': ['realnvp', 't.csv', '--out', 'r', *SMALL],
        'score': ['r', 't.csv', '--top', 2, '--out', 'scores.csv'],
        'sample': ['r', '--out', 's.csv', '--device', 'cpu'],
        'info': ['r'],
    }
    found = {}
    for verb, argv in verbs.items():
        assert run(verb, *argv, '--json') == 0
        found[verb] = json.loads(capsys.readouterr().out)
    assert found['fit']['folder'] == 'r' and found['fit']['metrics'][0]['median']
    least = found['score']['least_likely']
    assert [r['rank'] for r in least] == [1, 2] and set(least[0]['values']) == {*'abc'}
    scores = pd.read_csv('scores.csv').sort_values('rank')
    assert scores['row'].tolist()[:2] == [r['row'] for r in least]
    assert found['sample']['n'] == 64 and found['info']['model'] == 'realnvp'


def test_scores_carry_the_index_and_skip_incomplete_rows(here, capsys):
    frame = written('t.csv').assign(id=[f'r{i}' for i in range(60)])
    frame.loc[4, 'a'] = np.inf
    frame.to_csv('t.csv', index=False)
    argv = ['--index', 'id', '--missing', 'drop-rows', '--out', 'r']
    assert run('fit', 'realnvp', 't.csv', *argv, *SMALL) == 0
    assert run('score', 'r', 't.csv', '--out', 's.csv') == 0
    assert '1 row with empty cells left out' in capsys.readouterr().out
    scores = pd.read_csv('s.csv')
    assert list(scores) == ['row', 'log_prob_nats', 'rank', 'id'] and len(scores) == 59
    assert scores['row'].tolist()[3:5] == [5, 7] and scores['id'][4] == 'r5'


@pytest.mark.parametrize(
    'option, word',
    [
        (['--support', 'a=0:'], 'support: a has'),
        (['--support', 'z=0:'], "support: no column 'z'"),
        (['--support', 'c=1:0'], 'low before high'),
        (['--support', 'c'], 'support: expected'),
        (['--condition', 'a,b,c'], 'some columns to be left'),
        (['--condition', 'z'], "condition: no column 'z'"),
        (['--columns', 'a,z'], "columns: no column 'z'"),
        (['--base', 'cauchy'], 'base: expected one of'),
        (['--thousands', ',', '--skip', '-1'], 'skip: expected a whole number'),
    ],
)
def test_a_mistake_about_a_table_is_one_line(here, capsys, option, word):
    written('t.csv')
    assert run('fit', 'realnvp', 't.csv', *option, '--out', 'r') == 2
    err = capsys.readouterr().err
    assert word in err and len(err.splitlines()) == 1 and not Path('r').exists()


def test_an_option_that_a_model_lacks_is_refused_by_name(here, capsys, monkeypatch):
    def plain(dim, *, layers, hidden, activation):
        return realnvp(dim, layers=layers, hidden=hidden, activation=activation)

    monkeypatch.setitem(jobs.MODELS, 'maf', jobs.Entry(plain))
    written('t.csv')
    asked = dict(
        support=['c=0:'], base=['student'], reach=[4], robust=[], condition='a'
    )
    for name, value in asked.items():
        assert run('fit', 'maf', 't.csv', f'--{name}', *value, '--out', 'r') == 2
        assert f'{name}: maf has no such option' in capsys.readouterr().err


def test_options_reach_a_model_that_has_them(here, monkeypatch):
    seen = {}

    def rich(dim, *, layers, hidden, activation, support=None, robust=False, base=None):
        seen.update(support=support, robust=robust, base=base)
        return realnvp(dim, layers=layers, hidden=hidden, activation=activation)

    monkeypatch.setitem(jobs.MODELS, 'maf', jobs.Entry(rich))
    written('t.csv')
    argv = ['--support', 'infer', 'a=-9:9', '--robust', '--base', 'student']
    assert run('fit', 'maf', 't.csv', *argv, '--out', 'r', *SMALL) == 0
    want = dict(support=[(-9, 9), None, (0, None)], robust=True, base='student')
    assert seen == want


def test_a_finished_run_goes_on_to_more_epochs(here, capsys):
    written('t.csv')
    argv = ['fit', 'realnvp', 't.csv', '--out', 'r', *SMALL]
    assert run(*argv) == 0 and run(*argv) == 2
    assert 'finished' in capsys.readouterr().err
    assert run(*argv, '--epochs', 5, '--resume') == 0
    record = json.loads(Path('r/run.json').read_text())
    assert len(record['history']['valid']) == 5 and record['job']['epochs'] == 5
    before = Path('r/run.json').read_bytes()
    written('t.csv', d=np.random.default_rng(0).normal(size=60))
    assert run(*argv, '--epochs', 9, '--resume') == 2
    assert Path('r/run.json').read_bytes() == before


@pytest.mark.parametrize(
    'option, told',
    [
        (
            ['--support', 'a=-99:'],
            'support: None then, [[-99.0, None], None, None] now',
        ),
        (['--activation', 'relu'], "activation: 'tanh' then, 'relu' now"),
        (['--base', 'logistic'], "base: None then, 'logistic' now"),
        (['--robust'], 'robust: False then, True now'),
        (['--reach', 9], 'reach: None then, 9.0 now'),
        (
            ['--skip', 1, '--names', 'a,b,d'],
            "names: ['a', 'b', 'c'] then, ['a', 'b', 'd']",
        ),
        (
            ['--drop', 'c', '--hidden', 9],
            "hidden: [8] then, [9] now; drop: None then, 'c'",
        ),
    ],
)
@pytest.mark.parametrize('finished', [True, False])
def test_a_run_is_resumed_with_its_own_settings_alone(
    here, capsys, monkeypatch, option, told, finished
):
    written('t.csv')
    argv = ['fit', 'realnvp', 't.csv', '--out', 'r', *SMALL]
    if not finished:  # cut off after its last epoch
        monkeypatch.setattr(runs, 'store', interrupted)
    assert run(*argv) == (0 if finished else 130)
    monkeypatch.undo()
    os.chdir(here)
    before = tree(here)
    assert run(*argv, '--epochs', 9, *option, '--resume') == 2
    err = capsys.readouterr().err
    assert told in err and tree(here) == before
    more = ['--epochs', 3, '--patience', 7, '--resume', '--device', 'cpu']
    assert run(*argv, *more) == 0
    assert {*map(str, Path('r').iterdir())} == {
        f'r/{name}'
        for name in (
            'run.json',
            'weights.safetensors',
            'checkpoint.safetensors',
            'samples.png',
            'loss.png',
        )
    }


def interrupted(*args):
    raise KeyboardInterrupt


def test_an_unfinished_run_is_not_started_again_over_its_checkpoint(
    here, capsys, monkeypatch
):
    written('t.csv')
    argv = ['fit', 'realnvp', 't.csv', '--out', 'r', *SMALL]
    monkeypatch.setattr(runs, 'store', interrupted)
    assert run(*argv) == 130
    before = tree(here)
    assert run(*argv) == 2 and 'unfinished run' in capsys.readouterr().err
    assert tree(here) == before
    Path('r/checkpoint.safetensors').rename('r/gone')
    assert run(*argv, '--resume') == 130, (
        'without a checkpoint there is nothing to lose'
    )


def test_a_finished_run_without_its_checkpoint_is_not_done_again(here, capsys):
    written('t.csv')
    argv = ['fit', 'realnvp', 't.csv', '--out', 'r', *SMALL]
    assert run(*argv) == 0
    Path('r/checkpoint.safetensors').unlink()
    assert run(*argv, '--resume') == 2 and 'finished run' in capsys.readouterr().err


# Columns by number, names with commas and quotes.
def test_a_number_counts_the_columns_of_the_file(here, capsys):
    written('t.csv', bit=np.arange(60) % 2)
    argv = ['fit', 'realnvp', 't.csv', '--drop', 1, *SMALL]
    assert run(*argv, '--condition', 4, '--support', '3=0:', '--out', 'r') == 0
    recipe = json.loads(Path('r/run.json').read_text())['table']
    assert recipe['condition'] == ['bit'] and recipe['support'] == [None, [0.0, None]]
    assert run(*argv, '--dequantize', 4, '--condition', 2, '--out', 'd') == 0
    recipe = json.loads(Path('d/run.json').read_text())['table']
    assert recipe['condition'] == ['b'] and list(recipe['lattice']) == ['bit']


def test_names_with_commas_and_quotes_are_names(here, capsys):
    x = normal(60, 3).exp().numpy()
    frame = pd.DataFrame(x, columns=['a, x', 'b "q"', 'c'])
    frame.insert(0, 'id, no', [f'r{i}' for i in range(60)])
    frame.to_csv('t.csv', index=False)
    argv = ['--index', 1, '--condition', '"a, x"', '--support', 'b "q"=0:', '"c"=0:']
    assert run('fit', 'realnvp', 't.csv', *argv, '--out', 'r', *SMALL) == 0
    recipe = json.loads(Path('r/run.json').read_text())['table']
    assert recipe['condition'] == ['a, x'] and recipe['support'] == [[0.0, None]] * 2
    for name, read in [('s.csv', pd.read_csv), ('s.parquet', pd.read_parquet)]:
        assert run('score', 'r', 't.csv', '--out', name) == 0
        scores = read(name)
        assert list(scores) == ['row', 'log_prob_nats', 'rank', 'id, no']
        assert scores['id, no'].tolist() == frame['id, no'].tolist()
    for word in ('a, x=1', '"a, x"=1'):
        assert run('sample', 'r', '--given', word, '--n', 2, '--out', 's.csv') == 0
        assert list(pd.read_csv('s.csv')) == ['a, x', 'b "q"', 'c']


# Samples are like the data.
def test_samples_of_columns_with_steps_lie_on_them_however_small(here, capsys):
    written('t.csv', k=np.arange(60) % 5 * 1e-12)
    argv = ['fit', 'realnvp', 't.csv', '--dequantize', 'k', '--out', 'r', *SMALL]
    assert run(*argv) == 0
    capsys.readouterr()
    assert run('sample', 'r', '--n', 400, '--out', 's.csv') == 0
    k = pd.read_csv('s.csv')['k'].to_numpy() * 1e12
    assert len(np.unique(k)) > 4 and np.allclose(k, k.round(), rtol=0, atol=1e-6)
    out = int(((k < -0.5) | (k > 4.5)).sum())
    told = f'k: {out} of 400 samples lie outside 0 … 4e-12'
    assert out and told in capsys.readouterr().out
    assert run(*argv, '--out', 'inside', '--support', 'k=0:5e-12') == 0
    capsys.readouterr()
    assert run('sample', 'inside', '--n', 400, '--out', 's.csv') == 0
    assert 'outside' not in capsys.readouterr().out


def test_what_samples_are_given_is_told_once_and_without_gaps(here, capsys):
    frame = written('t.csv')
    argv = ['--condition', 'a', '--missing', 'drop-rows', '--out', 'r', *SMALL]
    assert run('fit', 'realnvp', 't.csv', *argv) == 0
    frame.loc[1, 'a'] = np.nan
    frame[:3].to_csv('three.csv', index=False)
    capsys.readouterr()
    assert run('sample', 'r', '--given-file', 'three.csv', '--out', 's.csv') == 0
    assert capsys.readouterr().out.splitlines() == [
        '2 samples: s.csv',
        'three.csv: 1 row with empty cells left out',
    ]
    argv = ['--given-file', 'three.csv', '--out', 's.csv', '--json']
    assert run('sample', 'r', *argv) == 0
    assert len(json.loads(capsys.readouterr().out)['notes']) == 1
    assert run('sample', 'r', '--given', 'a=1', 'a=2', '--out', 's.csv') == 2
    assert 'given: a is given twice' in capsys.readouterr().err


def test_sampled_images_are_whole_levels_that_the_run_scores(files, here, capsys):
    assert run('sample', files / 'images', '--n', 9, '--out', 'new.npy') == 0
    assert np.load('new.npy').dtype == np.uint8
    assert score(capsys, files / 'images', 'new.npy')['n'] == 9


def test_images_of_two_channels_leave_a_whole_run(here):
    x = torch.randint(0, 256, (30, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    np.save('two.npy', x.numpy().astype('uint8'))
    small = ['--layers', 1, '--hidden', 4, '--epochs', 1]
    assert run('fit', 'glow', 'two.npy', '--out', 'r', *small) == 0
    assert len([*Path('r').iterdir()]) == 5
    assert run('sample', 'r', '--out', 's.png') == 0


def test_the_record_is_there_even_if_a_picture_fails(here, monkeypatch):
    written('t.csv')
    monkeypatch.setattr(runs, 'save_figure', interrupted)
    assert run('fit', 'realnvp', 't.csv', '--out', 'r', *SMALL) == 130
    assert Path('r/run.json').exists() and not Path('r/job.json').exists()


def test_a_score_outside_the_support_names_file_column_and_row(here, capsys):
    frame = written('t.csv')
    argv = ['--support', 'c=0:', '--condition', 'a', '--out', 'r', *SMALL]
    assert run('fit', 'realnvp', 't.csv', *argv) == 0
    frame.loc[3, 'c'] = -4
    frame.to_csv('low.csv', index=False)
    assert run('score', 'r', 'low.csv') == 2
    want = (
        'low.csv: c has 1 of 60 values outside 0: or at its ends, such as -4 in row 5'
    )
    assert want in capsys.readouterr().err


def test_parquet_without_pyarrow_is_refused_by_name(files, here, capsys, monkeypatch):
    monkeypatch.setattr(scores, 'find_spec', lambda name: None)
    for verb in (
        ['score', files / 'points', files / 'points.csv'],
        ['sample', 'moons'],
    ):
        assert run(*verb, '--out', 's.parquet') == 2
        assert 'a Parquet file needs pyarrow' in capsys.readouterr().err
    assert not tree(here)


def test_samples_keep_the_digits_of_large_numbers(here):
    frame = written('t.csv')
    frame['a'] += 2_459_000
    frame.to_csv('t.csv', index=False)
    assert run('fit', 'realnvp', 't.csv', '--out', 'r', *SMALL) == 0
    assert run('sample', 'r', '--out', 's.csv') == 0
    assert pd.read_csv('s.csv')['a'].nunique() == 64


def test_leftovers_of_a_killed_run_are_removed(here):
    written('t.csv')
    Path('r').mkdir()
    done = subprocess.Popen([sys.executable, '-c', ''])
    done.wait()
    gone = Path(f'r/.weights.safetensors.{done.pid}.part')
    mine = Path(f'r/.run.json.{os.getpid()}.part')
    for part in (gone, mine):
        part.touch()
    assert run('fit', 'realnvp', 't.csv', '--out', 'r', *SMALL) == 0
    assert not gone.exists()


def test_images_with_few_levels_say_how_many(here, capsys):
    grey = torch.randint(0, 17, (60, 4, 4), generator=torch.Generator().manual_seed(0))
    np.save('grey.npy', grey.numpy().astype('uint8'))
    assert run('fit', 'nice', 'grey.npy', '--out', 'r', *SMALL) == 2
    said = capsys.readouterr().err
    assert 'end at 16' in said and '--levels 17 or --levels 256' in said
    assert run('fit', 'nice', 'grey.npy', '--out', 'r', '--levels', 17, *SMALL) == 0
    assert score(capsys, 'r', 'grey.npy')['mean'] < 6


# One declaration of each setting.
WRONG = dict(
    epochs='2.5 0 many',
    batch_size='1.5',
    epoch_size='0',
    lr='a 0 inf',
    betas='1.0',
    weight_decay='-1 nan',
    clip='-1 0',
    schedule='step',
    warmup='-5 1.5',
    patience='0',
    ema='1',
    seed=f'1.5 {2**40}',
    layers='x',
    hidden='2.5',
    activation='sine',
    scales='0',
    blocks='-1',
    bound='0',
    noise='loud',
    order='columns',
)


@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_setting_gives_the_same_message_from_python_and_from_the_shell(
    name, capsys
):
    option = '--' + name.replace('_', '-')
    kind = next(f for f in fields(jobs.Job) if f.name == name).metadata['kind']
    for word in WRONG[name].split():
        value = kind.parse(word)
        if name in ('betas', 'hidden'):
            value = [value]
        with pytest.raises(ValueError, match=f'^{name}: expected ') as e:
            jobs.Job('realnvp', 'banana', **{name: value})
        assert run('fit', 'realnvp', 'banana', option, word) == 2
        assert capsys.readouterr().err == f'flowbook: {e.value}\n'
        if name in SETTINGS:
            with pytest.raises(ValueError, match='^' + re.escape(str(e.value)) + '$'):
                fit(realnvp(2, layers=1), normal(20, 2), **{name: value})


def test_every_setting_is_an_option_of_the_command_with_its_help(capsys):
    assert run('fit', '--help') == 0
    out = ' '.join(capsys.readouterr().out.split())
    for f in fields(jobs.Job):
        shown = f.name.upper() if f.default is MISSING else f'--{f.name}'
        assert shown.replace('_', '-') in out and f.metadata['help'] in out
    assert set(SETTINGS) <= {f.name for f in fields(jobs.Job)}


@pytest.mark.parametrize(
    'wrong',
    [dict(labels=1), dict(bfloat16='yes'), dict(seed=True), dict(bound=None)],
    ids=str,
)
def test_a_job_takes_settings_of_their_kind_alone(wrong):
    with pytest.raises(ValueError, match=f'^{next(iter(wrong))}: expected'):
        jobs.Job('nice', 'banana', **wrong)


def test_a_shipped_run_of_an_earlier_version_is_read_with_the_settings_of_its_time():
    _, record = records.read_run('mnist-glow')
    assert set(record['job']) - {f.name for f in fields(jobs.Job)} == {'levels'}


@pytest.mark.parametrize('model', jobs.MODELS)
@pytest.mark.parametrize('data', ['points.csv', 'images.npy', 'banana', 'mnist10k'])
def test_every_setting_of_a_settled_job_has_a_value(files, model, data):
    pixels = data in ('images.npy', 'mnist10k')
    if jobs.MODELS[model].kind == 'images' and not pixels:
        return
    path = files / data if '.' in data else data
    job = jobs.Job(model, path)
    settled = job.settle(parts.read_parts(job.data))
    entry = jobs.MODELS[model]
    images = entry.kind == 'images' and entry.takes is None
    rest = {'start', 'device', 'patience', 'condition', 'support', 'base', 'reach'} | (
        set() if images else {'scales', 'blocks'}
    )
    assert {k for k, v in asdict(settled).items() if v is None} <= rest
    assert settled.settle(parts.read_parts(job.data)) == settled


def test_a_setting_that_is_given_is_kept():
    job = jobs.Job('nice', 'banana', layers=3, clip=None, lr=1)
    settled = job.settle(parts.read_parts('banana'))
    assert (settled.layers, settled.clip, settled.lr) == (3, None, 1.0)


# Help teaches.
def test_the_version_is_printed(capsys):
    assert run('--version') == 0
    assert capsys.readouterr().out == f'flowbook {__version__}\n'


def test_help_names_every_verb_and_how_to_start(capsys):
    assert run('--help') == 0
    out = capsys.readouterr().out
    for word in ('fit', 'sample', 'score', 'info', 'flowbook fit realnvp mnist10k'):
        assert word in out


def test_help_of_fit_names_the_models_the_data_sets_and_the_formats(capsys):
    assert run('fit', '--help') == 0
    out = capsys.readouterr().out
    for word in (
        'MODEL',
        'DATA',
        *jobs.MODELS,
        *parts.SETS,
        '.csv',
        '.npy',
        'FLOWBOOK_DATA',
        '--resume',
        '--epochs',
    ):
        assert word in out


@pytest.mark.parametrize(
    'verb, words',
    [
        ('sample', ['--temperature', '.png']),
        ('score', ['FILE', '.csv']),
        ('info', ['RUN']),
    ],
)
def test_help_of_the_other_verbs(capsys, verb, words):
    assert run(verb, '--help') == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out


# Mistakes. {files} is the folder of the fixture; the current folder holds what `spoil` writes.
def spoil(here, files):
    x = normal(40, 3)
    for name, text in {
        'ragged.csv': '1.5,2\n3\n1,2.5\n' * 20,
        'text.csv': 'a,b\n1,2\n1,x\n' * 20,
        'empty.csv': '',
        'header.csv': 'a,b\n',
        'binary.csv': '\x00\x01' * 30,
        'nan.csv': '1,2\nnan,3\n' * 20,
        'inf.csv': '1,2\n3,inf\n' * 20,
        'gap.csv': '1,2\n,3\n' * 20,
        'few.csv': '1.5,2\n3,4.5\n',
        'one.csv': '1\n2\n' * 20,
        'notarray.npy': 'no',
        'data.xlsx': 'PK',
        'file': '',
    }.items():
        (here / name).write_text(text)
    table(here / 'two.csv', x[:, :2])
    np.save(here / 'floats.npy', np.zeros((40, 4, 4), 'float32'))
    np.save(here / 'grey.npy', np.arange(640, dtype='uint8').reshape(40, 4, 4))
    np.save(here / 'white.npy', np.full((40, 4, 4), 255, dtype='uint8'))
    np.save(here / 'flat.npy', np.zeros((40, 16), 'float32'))
    np.save(here / 'wide.npy', np.zeros((40, 5, 5), 'uint8'))
    np.save(here / 'nan.npy', np.full((40, 3), np.nan))
    np.save(here / 'objects.npy', np.array([{}], dtype=object))
    shutil.copytree(files / 'points', here / 'broken')
    (here / 'broken' / 'run.json').write_text('{')
    shutil.copytree(files / 'points', here / 'cut')
    (here / 'cut' / 'weights.safetensors').write_bytes(
        (files / 'points' / 'weights.safetensors').read_bytes()[:-9]
    )
    shutil.copytree(files / 'points', here / 'lost')
    (here / 'lost' / 'weights.safetensors').unlink()
    (here / 'nothing').mkdir()


MISTAKES = {  # command: a word that the message must hold
    '': 'help',
    'fly': 'fly',
    'fit': 'MODEL',
    'fit realnvp': 'DATA',
    'fit glowworm banana': "model: expected one of 'nice', 'realnvp'",
    'fit realnvp bananas': 'data: expected one of mnist10k',
    'fit realnvp absent.csv': 'absent.csv',
    'fit realnvp ragged.csv': '--ragged drop',
    'fit realnvp text.csv': "'x'",
    'fit realnvp empty.csv': 'empty.csv',
    'fit realnvp header.csv': 'header.csv',
    'fit realnvp binary.csv': 'binary.csv',
    'fit realnvp nan.csv': 'x1 (20); the first in row 2 of x1',
    'fit realnvp inf.csv': 'of them infinite 20',
    'fit realnvp gap.csv': '--missing drop-rows',
    'fit realnvp few.csv': '20 is the least',
    'fit realnvp one.csv --dequantize 1': 'at least 2',
    'fit realnvp one.csv': '--dequantize x1',
    'fit realnvp notarray.npy': 'notarray.npy',
    'fit realnvp objects.npy': 'objects.npy',
    'fit realnvp nan.npy': 'empty in 40 of 40 rows',
    'fit realnvp data.xlsx': 'read_excel',
    'fit realnvp nothing': 'a folder without images',
    'fit realnvp floats.npy': 'uint8',
    'fit realnvp two.csv --epochs 0': 'epochs: expected a whole number from 1 up, got 0',
    'fit realnvp two.csv --epochs -1': 'epochs: expected a whole number from 1 up, got -1',
    'fit realnvp two.csv --epochs many': "epochs: expected a whole number from 1 up, got 'many'",
    'fit realnvp two.csv --layers 0': 'layers: expected a whole number from 1 up, got 0',
    'fit realnvp two.csv --batch-size 0': 'batch_size: expected a whole number from 1 up, got 0',
    'fit realnvp two.csv --hidden 0': 'hidden: expected a whole number from 1 up, got 0',
    'fit realnvp two.csv --hidden -3': 'hidden: expected a whole number from 1 up, got -3',
    'fit realnvp two.csv --threads 0': 'threads: expected a whole number from 1 up, got 0',
    'fit realnvp two.csv --lr -1': 'lr: expected a number above 0, got -1',
    'fit realnvp two.csv --lr 0': 'lr: expected a number above 0, got 0',
    'fit realnvp two.csv --lr nan': 'lr: expected a number above 0, got nan',
    'fit realnvp two.csv --weight-decay -1': 'weight_decay: expected a number from 0 up, got -1',
    'fit realnvp two.csv --ema 2': 'ema: expected a number from 0 up and below 1, or None, got 2',
    'fit realnvp two.csv --ema -1': 'ema: expected a number from 0 up and below 1, or None, got -1',
    'fit realnvp two.csv --patience 0': 'patience: expected a whole number from 1 up, or None',
    'fit realnvp two.csv --activation sine': "activation: expected one of 'relu', 'tanh', 'silu'",
    'fit realnvp two.csv --device abacus': 'device: expected a device of this machine',
    'fit realnvp two.csv --epoch-s 3': '--epoch-s',
    'fit realnvp two.csv --out file/below': 'file/below',
    'fit realnvp two.csv --out file': 'file',
    'fit realnvp two.csv --out {files}/points': 'finished',
    'fit realnvp two.csv --seed x': 'seed: expected a whole number',
    f'fit realnvp two.csv --seed {2**70}': 'seed: expected a whole number',
    'score {files}/points': 'FILE',
    'score absent two.csv': 'run: expected a folder that',
    'score nothing two.csv': 'run: expected a folder that',
    'score {files}/points two.csv': '(3,)',
    'score {files}/points absent.csv': 'absent.csv',
    'score {files}/points nan.npy': '0 of 40 rows are complete',
    'score {files}/points banana': '(3,)',
    'score {files}/images floats.npy': 'uint8',
    'score {files}/images flat.npy': '(1, 4, 4)',
    'score {files}/images wide.npy': '(1, 4, 4)',
    'score {files}/points {files}/points.csv --out file/below.csv': 'file/below.csv',
    'score {files}/points {files}/points.csv --out no/x.csv': 'no/x.csv: the folder no',
    'score {files}/points {files}/points.csv --out nothing': 'ends in .csv or .parquet',
    'score {files}/points {files}/points.csv --device meta': "such as cpu, got 'meta'",
    'score {files}/points {files}/points.csv --levels 9': 'levels: was settled',
    'score {files}/points {files}/points.csv --dequantize a': 'dequantize: was settled',
    'score {files}/images grey.npy --drop 1': 'drop: is for tables, but grey.npy',
    'sample {files}/points --device meta': "such as cpu, got 'meta'",
    'fit realnvp two.csv --device meta': "such as cpu, got 'meta'",
    'fit realnvp two.csv --levels 9': 'levels: is for images, but two.csv',
    'fit realnvp two.csv --key a': 'key: is for .npz, .mat and .zip, got two.csv',
    'fit nice white.npy': 'all pixels of all images have the value 255',
    'fit nice grey.npy --columns 1': 'columns: is for tables, but grey.npy',
    'fit nice grey.npy --drop a': 'drop: is for tables, but grey.npy',
    'fit nice grey.npy --missing mean': 'missing: is for tables, but grey.npy',
    'fit nice grey.npy --index 1': 'index: is for tables, but grey.npy',
    'fit nice grey.npy --support infer': 'support, robust: are for tables, got grey.npy',
    'fit nice grey.npy --robust': 'support, robust: are for tables, got grey.npy',
    'score broken two.csv': 'broken',
    'score cut {files}/points.csv': 'weights',
    'score lost {files}/points.csv': 'weights',
    'sample {files}/points --n 0': 'n: expected a whole number from 1 up, got 0',
    'sample {files}/points --n -1': 'n: expected a whole number from 1 up, got -1',
    'sample {files}/points --temperature -1': 'temperature: expected a number above 0, got -1',
    'sample {files}/points --temperature 0': 'temperature: expected a number above 0, got 0',
    'sample {files}/points --temperature nan': 'temperature: expected a number above 0, got nan',
    'sample {files}/points --out x.gif': 'x.gif',
    'sample {files}/points --out no/folder/x.png': 'no/folder',
    'sample absent': 'run: expected a folder that',
    'sample cut': 'weights',
    f'sample {{files}}/points --seed {2**70}': 'seed: expected a whole number',
    'sample {files}/points --out file/x.png': 'file',
    'info': 'RUN',
    'info nothing': 'run: expected a folder that',
    'info broken': 'broken',
    'info cut': 'weights',
    'info file': 'run: expected a folder that',
}


@pytest.mark.parametrize('command', MISTAKES)
def test_a_mistake_gives_one_line_status_2_and_leaves_nothing(
    files, here, capsys, command
):
    spoil(here, files)
    before, kept = tree(here), tree(files)
    status = run(*command.format(files=files).split())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert status == 2 and not out, err or out
    assert len(lines) == 1 or ' to settle before ' in lines[0], err
    assert (
        err.startswith('flowbook: ')
        and 'Traceback' not in err
        and MISTAKES[command] in err
        and len(err) < 700
    )
    assert tree(here) == before, (
        f'left behind: {[str(p) for p in tree(here) if p not in before]}'
    )
    assert tree(files) == kept


@pytest.mark.skipif(
    torch.cuda.is_available(),
    reason='CUDA is available here, so asking for it is no mistake',
)
def test_asking_for_cuda_without_cuda_is_a_mistake(files, here, capsys):
    assert run('fit', 'realnvp', files / 'points.csv', '--device', 'cuda') == 2
    err = capsys.readouterr().err
    assert err == (
        "flowbook: device: expected a device of this machine such as cpu, got 'cuda'\n"
    )
    assert not tree(here)


def test_a_checkpoint_of_other_settings_is_not_overwritten_by_resume(
    files, tmp_path, capsys
):
    shutil.copytree(files / 'points', tmp_path / 'r')
    (tmp_path / 'r' / 'run.json').unlink()
    (tmp_path / 'r' / 'checkpoint.safetensors').write_bytes(b'something else')
    assert (
        run(
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'r',
            '--resume',
            *SMALL,
        )
        == 2
    )
    assert (
        'checkpoint.safetensors' in capsys.readouterr().err
        and (tmp_path / 'r' / 'checkpoint.safetensors').read_bytes()
        == b'something else'
    )


def test_a_full_set_that_is_absent_and_cannot_be_downloaded_is_one_line(
    here, capsys, monkeypatch
):
    monkeypatch.setenv('FLOWBOOK_DATA', str(here / 'data'))
    import torchvision.datasets

    def offline(self):
        raise RuntimeError('offline')

    monkeypatch.setattr(torchvision.datasets.MNIST, 'download', offline)
    assert run('fit', 'realnvp', 'mnist') == 2
    err = capsys.readouterr().err
    assert (
        len(err.splitlines()) == 1
        and 'FLOWBOOK_DATA' in err
        and 'mnist10k' in err
        and not (here / 'runs').exists()
    )


def test_a_damaged_full_set_is_one_line(here, capsys, monkeypatch):
    raw = here / 'data' / 'MNIST' / 'raw'
    raw.mkdir(parents=True)
    for part, n in (
        ('train', 5),
        ('t10k', 5),
    ):  # whole idx files, but of five images each
        (raw / f'{part}-images-idx3-ubyte').write_bytes(
            bytes([0, 0, 8, 3])
            + b''.join(k.to_bytes(4, 'big') for k in (n, 28, 28))
            + bytes(n * 784)
        )
        (raw / f'{part}-labels-idx1-ubyte').write_bytes(
            bytes([0, 0, 8, 1]) + n.to_bytes(4, 'big') + bytes(n)
        )
    monkeypatch.setenv('FLOWBOOK_DATA', str(here / 'data'))
    assert run('fit', 'realnvp', 'mnist', '--epochs', 1) == 2
    err = capsys.readouterr().err
    assert (
        len(err.splitlines()) == 1 and 'damaged' in err and not (here / 'runs').exists()
    )


def test_divergence_is_one_line_and_status_1(files, here, capsys):
    assert (
        run(
            'fit',
            'nice',
            files / 'points.csv',
            '--lr',
            1e30,
            '--epochs',
            30,
            '--out',
            'r',
        )
        == 1
    )
    err = capsys.readouterr().err
    assert (
        len(err.splitlines()) == 1
        and 'lower lr' in err
        and not (here / 'r' / 'run.json').exists()
    )


# The installed command, in processes of their own, side by side.
COMMAND = Path(sys.executable).with_name('flowbook')


@pytest.mark.skipif(
    not COMMAND.exists(), reason=f'{COMMAND} is not installed; pip install -e .'
)
def test_the_installed_command_works_and_fails_in_one_line(files, tmp_path):
    jobs = {
        'info': ['info', files / 'points'],
        'wrong': ['fit', 'realnvp', 'absent.csv'],
        'fit': [
            'fit',
            'realnvp',
            files / 'points.csv',
            '--out',
            tmp_path / 'r',
            *SMALL,
        ],
    }
    started = {
        k: subprocess.Popen(
            [COMMAND, *map(str, a)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for k, a in jobs.items()
    }
    done = {k: (*p.communicate(timeout=120), p.returncode) for k, p in started.items()}
    assert [done[k][2] for k in ('info', 'fit')] == [0, 0], done
    assert (
        done['wrong'][2] == 2
        and len(done['wrong'][1].splitlines()) == 1
        and 'absent.csv' in done['wrong'][1]
    )
    assert (tmp_path / 'r' / 'run.json').exists() and {
        p.name for p in tmp_path.iterdir()
    } == {'r'}


def test_the_module_runs_as_a_script(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'flowbook.cli', '--help'],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and 'flowbook fit' in done.stdout, (
        '`python -m flowbook.cli` prints nothing'
    )


def test_output_cut_off_by_a_closed_pipe_is_no_traceback(files):
    p = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import sys; from flowbook.cli import main; sys.exit(main(sys.argv[1:]))',
            'info',
            str(files / 'points'),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    p.stdout.close()
    assert 'Traceback' not in p.stderr.read()
    p.stderr.close()
    p.wait(timeout=60)
