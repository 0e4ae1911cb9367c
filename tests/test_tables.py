"Tables: what is read, what is asked, and that the proposed answers are enough."

import bz2
import gzip
import io
import lzma
import shlex
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flowbook.cli import main
from flowbook.data import read_table as former
from flowbook.records import read_record
from flowbook.tables import TableProblems, open_like, open_table, read_table

X = np.random.default_rng(0).normal(size=(120, 3)) * [1, 50, 1e4] + [0, 1000, 0]
NAMES = ['a', 'b', 'c']


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv(form='%.8g', between=',', head=True, end='\n', decimal='.', quote=''):
    "The numbers `X` as a text."
    rows = [[quote + (form % v).replace('.', decimal) + quote for v in r] for r in X]
    return end.join([between.join(NAMES)] * head + list(map(between.join, rows))) + end


def zipped(text, *names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name in names:
            archive.writestr(name, text)
    return out.getvalue()


def settled(path, **options):
    "The table that the proposed answers lead to, and the questions."
    try:
        return open_table(path, density=True, **options), None
    except TableProblems as e:
        return open_table(path, density=True, **e.options), e


READ = {
    'plain.csv': csv(),
    'crlf.csv': csv(end='\r\n'),
    'cr.csv': csv(end='\r'),
    'tabs.tsv': csv(between='\t'),
    'semicolons.csv': csv(between=';'),
    'pipes.txt': csv(between='|'),
    'blanks.txt': csv('%14.8g', between=' '),
    'many-blanks.dat': csv('%24.8e', between='   '),
    'comma-blank.csv': csv(between=', '),
    'german.csv': csv(between=';', decimal=','),
    'german-tabs.txt': csv(between='\t', decimal=','),
    'german-quoted.csv': csv(quote='"', decimal=','),
    'quoted.csv': csv(quote='"'),
    'three-decimals.csv': csv('%.3f'),
    'savetxt.csv': '# ' + csv('%.18e'),
    'comments.csv': '# made by hand\n# twice\n' + csv().replace('\n', '\n# no\n', 3),
    'bom.csv': b'\xef\xbb\xbf' + csv().encode(),
    'utf16.csv': csv().encode('utf-16'),
    'empty-lines.csv': csv().replace('\n', '\n\n'),
    'trailing.csv': csv().replace('\n', ',\n'),
    'packed.csv.gz': gzip.compress(csv().encode()),
    'packed.csv.bz2': bz2.compress(csv().encode()),
    'packed.csv.xz': lzma.compress(csv().encode()),
    'packed.csv.zip': zipped(csv(), 'inside.csv'),
    'misnamed.csv': gzip.compress(csv().encode()),
}


@pytest.mark.parametrize('name', READ)
def test_dialects_are_read_without_a_question(tmp_path, name):
    table = open_table(write(tmp_path, name, READ[name]), density=True)
    close = dict(rtol=1e-7) if 'three' not in name else dict(atol=6e-4)
    np.testing.assert_allclose(table.values, X, **close)
    assert table.names == NAMES and table.named and table.values.dtype == np.float64


def test_without_names_columns_are_numbered(tmp_path):
    table = open_table(write(tmp_path, 'a.csv', csv(head=False)), density=True)
    assert table.names == ['x1', 'x2', 'x3'] and not table.named and len(table) == 120


def test_thousands_are_read_where_the_file_proves_them(tmp_path):
    for text, want in {
        'a;b\n1.234,5;1\n850,25;2\n': [1234.5, 850.25],
        'a;b\n1,234.5;1\n850.25;2\n': [1234.5, 850.25],
        'a,b\n"1,234,567",1.5\n850,2\n': [1234567, 850],
        'a;b\n1.234.567;1\n850;2\n': [1234567, 850],
    }.items():
        assert open_table(write(tmp_path, 'a.csv', text)).values[:, 0].tolist() == want


ASKED = {  # content: an option of the proposal, and shape and first number after it
    'decimal comma': ('0,664\n1,032\n0,117\n' * 20, 'decimal', (60, 1), 0.664),
    'pairs': ('949,708\n12,5\n3,77\n' * 9, 'delimiter', (27, 2), 949),
    'thousands': ('n;m\n' + '9.188;3\n850;4\n1.204;7\n' * 9, 'thousands', (27, 2), 9188),
    'thousand commas': ('n\tm\n9,188\t3\n850\t4\n' * 1, 'decimal', (2, 2), 9.188),
    'years': ('2019,2020\n1.5,2.5\n3.5,4.5\n', 'header', (2, 2), 1.5),
    'positions': ('0,1,2\n1.5,2.5,4\n3.5,4.5,4.25\n', 'header', (2, 3), 1.5),
    'mixed names': ('id,2019,2020\n7,1.5,2.5\n9,3.5,4.5\n', 'header', (2, 3), 7),
    'index': (pd.DataFrame(X).to_csv(), 'index', (120, 3), X[0, 0]),
    'shuffled index': (
        pd.DataFrame(X, columns=NAMES).sample(frac=1, random_state=0).to_csv(),
        'index', (120, 3), None,
    ),
    'named index': (
        pd.DataFrame(X, columns=NAMES).assign(id=range(1, 121)).to_csv(index=False),
        'index', (120, 3), X[0, 0],
    ),
    'R': ('"a" "b"\n"1" 1.5 2.5\n"2" 3.5 4.5\n', 'index', (2, 2), 1.5),
    'counts': ('6,2,yes,no\n' + '1.5,2.5\n3.5,4.5\n' * 3, 'skip', (6, 2), 1.5),
    'even counts': ('6,3,no\n' + '1.5,2.5,1\n3.5,4.5,0\n' * 3, 'skip', (6, 3), 1.5),
    'latin': (csv().replace('b', 'Größe').encode('latin-1'), 'encoding', (120, 3), None),
    'swiss': ("a;b\n1'234.5;1.5\n850.0;2.5\n", 'thousands', (2, 2), 1234.5),
    'swiss comma': ("a;b\n1'234,5;1,5\n850,0;2,5\n", 'thousands', (2, 2), 1234.5),
    'ragged': (csv() + '1,2\n1,2,3,4\n', 'ragged', (120, 3), None),
    'twice': (csv().replace('c\n', 'a\n', 1), 'names', (120, 3), None),
    'words': ('a,w\n1.5,u v\n2.5,x\n', 'drop', (2, 1), 1.5),
    'gaps': ('a,b\n1.5,2\n,3\nNA,4\n2.5,7\n1.25,8\n', 'missing', (3, 2), 1.5),
    'unknown gaps': ('a,b\n1.5,2\n--,3\n2.5,7\n', 'na', (2, 2), 1.5),
    'infinite': ('a,b\n1.5,2\ninf,3\n2.5,7\n', 'missing', (2, 2), 1.5),
}  # fmt: skip


@pytest.mark.parametrize('name', ASKED)
def test_what_is_ambiguous_is_asked_and_the_proposal_settles_it(tmp_path, name):
    content, option, shape, first = ASKED[name]
    path = write(tmp_path, 'a.csv', content)
    with pytest.raises(TableProblems) as e:
        open_table(path)
    assert option in e.value.options and f'{option}=' in str(e.value)
    table = open_table(path, **e.value.options)
    assert table.values.shape == shape
    assert first is None or table.values[0, 0] == pytest.approx(first, rel=1e-6)
    with pytest.raises(TableProblems):
        read_table(path)


@pytest.mark.parametrize(
    'option, shape',
    [
        (dict(index='none'), (40, 3)),
        (dict(columns='a,b'), (40, 2)),
        (dict(drop='1'), (40, 2)),
    ],
)
def test_the_other_answer_is_taken_too(tmp_path, option, shape):
    text = ',a,b\n' + '\n'.join(f'{i},{i % 7},{i % 3}' for i in range(40))
    assert open_table(write(tmp_path, 'a.csv', text), **option).values.shape == shape


def test_columns_without_a_density_are_named_all_at_once():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X, columns=NAMES)
    frame['k'] = 7.0
    frame['s'] = 2 * frame['a'] - frame['b'] + 3
    frame['n'] = rng.integers(5, size=120)
    frame['grey'] = rng.integers(17, size=120) / 16
    frame['zero'] = np.maximum(0, rng.normal(size=120))
    table, e = settled(frame)
    assert e.options == dict(drop='k,s,zero', dequantize='n,grey', **{}) or (
        set(e.options['drop'].split(',')) == {'k', 's', 'zero'}
    )
    assert table.names == [*NAMES, 'n', 'grey']
    assert table.lattice == dict(n=[0.0, 1.0], grey=[0.0, 0.0625])
    assert (np.floor(table.values[:, 3]) == frame['n']).all()
    assert len(open_table(frame, allow_ties=True, density=True).names) == 8


@pytest.mark.parametrize('shift', [0, 1e6, 1e9])
def test_dependent_columns_are_found_in_any_units(shift):
    frame = pd.DataFrame(X, columns=NAMES)
    frame['d'] = 1e-3 * frame['a'] + shift if shift < 1e9 else frame['a'] * 5 + shift
    _, e = settled(frame * 1000 + shift)
    assert e.options['drop'] == 'd'
    assert settled(frame[NAMES] * 1000 + shift)[1] is None


def test_doubles_stay_doubles(tmp_path):
    x = 2_459_000 + X[:, :1] / 1e4
    np.savetxt(tmp_path / 'days.csv', np.c_[x, X], delimiter=',')
    read = read_table(tmp_path / 'days.csv')
    assert read.dtype == torch.float64 and (read[:, :1].numpy() == x).all()
    assert (read_table(x).numpy() == x).all() and former is read_table


BIG = pd.DataFrame(np.random.default_rng(1).normal(size=(400, 3)), columns=NAMES)
LARGE = {
    'plain': BIG.to_csv(index=False),
    'no names': BIG.to_csv(index=False, header=False),
    'comment': '# made\n\n' + BIG.to_csv(index=False),
    'gaps': BIG.mask(BIG > 1.5).to_csv(index=False),
    'words': BIG.assign(w='N a').to_csv(index=False),
    'index': BIG.to_csv(),
    'late word': BIG.to_csv(index=False) + '1,oops,2\n',
    'late comment': BIG.to_csv(index=False) + '# end\n1,2,3\n',
    'late quote': BIG.to_csv(index=False) + '1,"2",3\n',
    'late ragged': BIG.to_csv(index=False) + '1,2\n1,2,3,4\n',
    'late empty': BIG.to_csv(index=False) + '\n\n1,2,3\n',
    'late thousands': (BIG * 1e6).astype(int).to_csv(index=False) + '9.188,850,1\n',
    'late whole': (BIG.abs() + 1).to_csv(index=False, float_format='%.3f')
    + '850,1,2\n',
    'late comma': BIG.to_csv(index=False, sep=';') + '1,5;2;3\n',
    'tabs': BIG.to_csv(index=False, sep='\t', lineterminator='\r\n'),
    'German': BIG.to_csv(index=False, sep=';', decimal=','),
}


FOUND = {  # rows, the line of the last one, and what is proposed
    'gaps': (331, 401, dict(missing='drop-rows')),
    'words': (400, 401, dict(drop='w')),
    'index': (400, 401, dict(index='unnamed')),
    'no names': (400, 400, None),
    'comment': (400, 403, None),
    'late word': (400, 401, dict(missing='drop-rows', na='oops')),
    'late comment': (401, 403, None),
    'late quote': (401, 402, None),
    'late ragged': (400, 401, dict(ragged='drop')),
    'late empty': (401, 404, None),
    'late thousands': (401, 402, dict(thousands='.')),
    'late whole': (401, 402, dict(thousands='.')),
    'late comma': (400, 401, dict(missing='drop-rows', na='"1,5"')),
}


@pytest.mark.parametrize('name', LARGE)
def test_what_comes_late_in_a_file_is_seen_and_numbers_are_exact(tmp_path, name):
    table, e = settled(write(tmp_path, 'a.csv', LARGE[name]))
    rows, last, cure = FOUND.get(name, (400, 401, None))
    assert (len(table), table.rows[-1], e and e.options) == (rows, last, cure)
    assert table.names == (['x1', 'x2', 'x3'] if name == 'no names' else NAMES)
    if 'late' not in name and name != 'gaps':
        assert (table.values == BIG.to_numpy()).all()


def test_the_column_that_names_the_rows_keeps_its_texts(tmp_path):
    path = write(tmp_path, 'a.csv', 'id,a\n007,1.5\n1.50,2.5\nTRUE,\nNA,3.5\n')
    table = open_table(path, index='id', missing='median')
    assert table.labels == ['007', '1.50', 'TRUE', 'NA'] and table.ignored == []
    asked = open_table(path, index='none', drop='id', missing='drop-rows')
    assert asked.rows.tolist() == [2, 3, 5] and asked.ignored == ['id']


def test_names_that_occur_twice_before_an_empty_last_column(tmp_path):
    path = write(tmp_path, 'a.csv', 'a,a,a.2,\n1.5,2,3,\n2.5,3,5,\n')
    table, e = settled(path, index='none')
    assert e.options['names'] == 'a,a.2,a.2.2' and table.names == ['a', 'a.2', 'a.2.2']
    with pytest.raises(ValueError, match='expected 3 names, .* got 2'):
        open_table(path, names='a,b')


def test_an_open_quote_is_named(tmp_path):
    with pytest.raises(ValueError, match='a.csv: .*is a quote open'):
        open_table(write(tmp_path, 'a.csv', 'a\n1.5\n"2.5\n3.5\n'))


def test_other_formats(tmp_path):
    import scipy.io

    frame = pd.DataFrame(X, columns=NAMES)
    frame.to_parquet(tmp_path / 'a.parquet')
    np.save(tmp_path / 'a.npy', X)
    np.savez(tmp_path / 'a.npz', x=X)
    np.savez(tmp_path / 'two.npz', x=X, y=X)
    scipy.io.savemat(tmp_path / 'a.mat', dict(x=X))
    for name in ('a.parquet', 'a.npy', 'a.npz', 'a.mat'):
        assert (open_table(tmp_path / name, density=True).values == X).all(), name
    assert open_table(tmp_path / 'a.parquet').names == NAMES
    with pytest.raises(TableProblems, match='expected one of the arrays x, y') as e:
        open_table(tmp_path / 'two.npz')
    assert (open_table(tmp_path / 'two.npz', **e.value.options).values == X).all()
    with pytest.raises(ValueError, match="one of the arrays x, y, got 'z'"):
        open_table(tmp_path / 'two.npz', key='z')
    assert (open_table(tmp_path / 'two.npz', key='y').values == X).all()
    table = open_table(frame.assign(ok=True, n=pd.array([1, None] * 60, dtype='Int64')),
                       columns='a,n', missing='drop-rows')  # fmt: skip
    assert table.values.shape == (60, 2) and table.rows[1] == 2


@pytest.mark.parametrize(
    'package, name', [('pyarrow', 'a.parquet'), ('scipy', 'a.mat')]
)
def test_an_absent_package_is_named_with_the_extra(
    tmp_path, monkeypatch, package, name
):
    pd.DataFrame(X).rename(columns=str).to_parquet(tmp_path / 'a.parquet')
    write(tmp_path, 'a.mat', 'x')
    for module in [m for m in sys.modules if m.split('.')[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, 'scipy.io', None)
    with pytest.raises(ValueError, match=rf'needs {package}.*\[tables\]'):
        open_table(tmp_path / name)


def pictures(folder, *shapes, top=256):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, shape in enumerate(shapes):
        Image.fromarray(rng.integers(top, size=shape, dtype=np.uint8)).save(
            folder / f'{i}.png'
        )
    return folder


def test_a_folder_of_images_in_the_order_of_their_numbers(tmp_path):
    grey = open_table(pictures(tmp_path / 'grey', *[(4, 6)] * 12), density=True)
    assert grey.values.shape == (12, 1, 4, 6) and grey.values.dtype == np.uint8
    assert list(grey.rows[[2, 11]]) == ['2.png', '11.png'] and grey.levels == 256
    color = open_table(pictures(tmp_path / 'color', *[(4, 6, 3)] * 3))
    assert color.values.shape == (3, 3, 4, 6)
    with pytest.raises(ValueError, match='2 of .1, 4, 6., 1 of .1, 5, 6.'):
        open_table(pictures(tmp_path / 'mixed', (4, 6), (4, 6), (5, 6)))


def test_levels_of_grey_are_asked_about(tmp_path):
    folder = pictures(tmp_path / 'dark', *[(4, 4)] * 30, top=17)
    table, e = settled(folder)
    assert e.options == dict(levels=17) and table.levels == 17
    assert open_table(folder, levels=256, density=True).levels == 256
    with pytest.raises(ValueError, match='levels: expected more than 16'):
        open_table(folder, levels=8, density=True)


def test_what_is_filled_in_has_the_steps_of_its_column():
    frame = pd.DataFrame(X, columns=NAMES).assign(n=[1.0, 2.0, 3.0, 4.0, np.nan] * 24)
    table, e = settled(frame, missing='median')
    assert e.options['dequantize'] == 'n'
    assert set(np.floor(table.values[:, 3])) == {1, 2, 3, 4}


def test_a_second_table_is_read_like_the_first():
    frame = pd.DataFrame(X, columns=NAMES).assign(n=np.arange(120) % 4, w='x')
    frame.loc[3, 'b'] = np.nan
    table, _ = settled(frame, missing='median')
    again = open_like(frame[['w', 'n', 'c', 'b', 'a']], table.recipe)
    assert (again.values == table.values).all()
    assert (open_like(frame[NAMES + ['n']], table.recipe).values == table.values).all()
    with pytest.raises(ValueError, match="no column 'b'"):
        open_like(frame.drop(columns='b'), table.recipe)
    with pytest.raises(ValueError, match="an unknown column 'z'.*--drop"):
        open_like(frame.assign(z=1.5), table.recipe)
    assert open_like(frame.assign(z=1.5), table.recipe, drop='z').names == table.names
    noted = open_like(np.nan_to_num(frame[NAMES + ['n']].to_numpy()), table.recipe)
    assert 'order' in noted.notes[0]


# From the shell.
def run(*argv):
    return main([str(a) for a in argv])


def proposed(capsys):
    "The words of the command that was proposed."
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith('try: flowbook '), said
    return shlex.split(said[-1].removeprefix('try: flowbook '))


def test_a_strangers_table_takes_two_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20_000, 11)), columns=[*'abcdefghijk'])
    frame['b'] = np.exp(frame['b'] + frame['a'])
    frame['d'] = rng.integers(80, size=20_000)
    frame.insert(3, 'the city', rng.choice(['Lyon', 'Nice, FR'], 20_000))
    frame.mask(rng.random(frame.shape) < 0.03).to_csv('survey.csv')
    assert run('fit', 'survey.csv', '--epochs', 1, '--batch-size', 4000) == 2
    second = proposed(capsys)
    assert run(*second, '--threads', 1) == 0
    record = read_record('runs/nsf-survey')
    assert record['table']['names'] == [*'abcdefghijk']
    assert run('score', 'runs/nsf-survey', 'survey.csv', '--top', 2) == 0
    assert 'median' in capsys.readouterr().out
