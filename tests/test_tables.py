"Tables: what is read, what is asked, and that the proposed answers are enough."

import bz2
import gzip
import io
import json
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
from flowbook.questions import TableProblems
from flowbook.records import read_record
from flowbook.tables import open_like, open_table, read_table

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


# Numbers that came out wrong without a word.
def many(form, n=40):
    "Lines of a file, from two random numbers each."
    rng = np.random.default_rng(5)
    return ''.join(form.format(*rng.normal(size=2)) + '\n' for _ in range(n))


def test_cells_and_names_that_begin_with_a_hash_are_no_comments(tmp_path):
    text = 'a,b\n' + many('{:.5f},{:.5f}') + '#N/A,1.5\n#DIV/0!,2.5\n# by hand\n'
    table, e = settled(write(tmp_path, 'a.csv', text), missing='drop-rows')
    assert e.options['na'] == '#DIV/0!' and len(table) == 40
    assert '1 line taken as comments' in table.notes
    text = 'id,a\n' + ''.join(f'#{i},{v:.5f}\n' for i, v in enumerate(X[:, 0]))
    table = open_table(write(tmp_path, 'a.csv', text), index='id')
    assert len(table) == 120 and table.labels[:2] == ['#0', '#1']
    text = 'a,b,w\n' + many('{:.5f},{:.5f},"x\n# y"')
    assert len(open_table(write(tmp_path, 'a.csv', text), drop='w')) == 40


def test_a_dot_beside_decimal_commas_is_no_number(tmp_path):
    text = 'a;b\n' + '6,096;3,158\n1,234;2,345\n' * 10 + '.;1,5\n'
    table, e = settled(write(tmp_path, 'a.csv', text), allow_ties=True)
    assert e.options['na'] == '.' and table.values[0].tolist() == [6.096, 3.158]
    text = 'a;b\n' + '6,096;3,158\n1,234;2,345\n' * 10 + '.;1,512\n'
    table, e = settled(write(tmp_path, 'a.csv', text), allow_ties=True)
    assert e.options['decimal'] == ',' and table.values[0].tolist() == [6.096, 3.158]


def test_decimal_commas_with_an_exponent_are_one_column(tmp_path):
    x = X[:, 1]
    text = ''.join(f'{v:.4e}'.replace('.', ',') + '\n' for v in x)
    table, e = settled(write(tmp_path, 'a.csv', text))
    assert e.options == dict(decimal=',') and np.allclose(table.values[:, 0], x, 1e-4)


def test_a_short_first_line_is_not_always_written_by_r(tmp_path):
    rows = many('{:.5f},{:.5f},')
    table = open_table(write(tmp_path, 'a.csv', 'a,b\n' + rows), density=True)
    assert table.names == ['a', 'b'] and len(table) == 40
    plain = open_table(write(tmp_path, 'a.csv', 'a,b,\n' + rows))
    assert (table.values == plain.values).all()
    title = 'My report\n\na,b\n' + many('{:.5f},{:.5f}')
    table, e = settled(write(tmp_path, 'a.csv', title))
    assert e.options == dict(skip=1) and table.names == ['a', 'b']
    assert (table.values == plain.values).all()


def twins(tmp_path, text, **options):
    "A file, and the recipe of its table."
    path = write(tmp_path, 'first.csv', text)
    return path, json.loads(json.dumps(open_table(path, **options).recipe))


def test_names_that_were_given_do_not_rename_another_files_columns(tmp_path):
    path, recipe = twins(tmp_path, many('{:.5f},{:.5f}'), names='a,b')
    x = read_table(path).numpy()
    assert (open_like(path, recipe).values == x).all()
    text = 'b,a\n' + ''.join(f'{b!r},{a!r}\n' for a, b in x.tolist())
    other = write(tmp_path, 'ba.csv', text)
    for thing in (other, pd.DataFrame(x[:, ::-1], columns=['b', 'a']), x):
        assert (open_like(thing, recipe).values == x).all()
    assert (open_like(other, recipe, names='a,b').values == x[:, ::-1]).all()
    with pytest.raises(ValueError, match="no column 'a', 'b'"):
        open_like(write(tmp_path, 'c.csv', text.replace('b,a', 'u,v')), recipe)
    twice = 'a,a\n' + many('{:.5f},{:.5f}')
    path, recipe = twins(tmp_path, twice, names='a,a.2')
    assert open_like(path, recipe).names == ['a', 'a.2']


def test_lines_are_left_out_again_only_above_the_same_names(tmp_path):
    body = 'a,b\n' + many('{:.5f},{:.5f}')
    path, recipe = twins(tmp_path, 'x\ny, z\n' + body, skip=2)
    assert len(open_like(path, recipe)) == 40
    bare = open_like(write(tmp_path, 'bare.csv', body), recipe)
    assert len(bare) == 40 and 'no line is left out' in bare.notes[0]
    swapped = body.replace('a,b', 'b,a')
    table = open_like(write(tmp_path, 'b.csv', '1\n2\n' + swapped), recipe)
    assert table.rows[0] == 4 and table.values[0, 0] == bare.values[0, 1]
    with pytest.raises(TableProblems, match='line 1 .has 1.'):
        open_like(write(tmp_path, 'c.csv', 'x\n' + body), recipe)


def test_a_nameless_run_leaves_out_no_row(tmp_path):
    rows = '1.5,2.5\n3.5,4.5\n6.5,7.25\n' * 3
    for title in ('x\n', '9,2\n'):
        path, recipe = twins(tmp_path, title + rows, skip=1)
        assert len(open_like(path, recipe)) == 9
        assert len(open_like(write(tmp_path, 'b.csv', rows), recipe)) == 9


def test_a_first_line_that_was_names_is_data_in_another_file(tmp_path):
    rows = '1.5,2.5\n3.5,4.5\n6.5,7.25\n'
    path, recipe = twins(tmp_path, '2019,2020\n' + rows, header=True)
    assert open_like(path, recipe).names == ['2019', '2020']
    assert len(open_like(path, recipe)) == 3
    assert len(open_like(write(tmp_path, 'b.csv', rows), recipe)) == 3
    path, recipe = twins(tmp_path, '2019,2020\n' + rows, no_header=True)
    assert len(open_like(path, recipe)) == 4


def test_a_nameless_run_finds_its_columns_again(tmp_path):
    text = many('{:.5f},{:.5f},').replace(',\n', ',7\n')
    for options, j in [(dict(drop='x3'), [0, 1]), (dict(columns='x3,x2'), [2, 1])]:
        path, recipe = twins(tmp_path, text, **options)
        want = open_table(path).values[:, j]
        assert (open_like(path, recipe).values == want).all()
        assert (open_like(open_table(path).values, recipe).values == want).all()
        assert (open_like(want, recipe).values == want).all()
    path, recipe = twins(tmp_path, text, index='x3')
    assert open_like(open_table(path).values[:, :2], recipe).names == ['x1', 'x2']


def test_a_named_table_against_a_nameless_run(tmp_path):
    recipe = open_table(X).recipe
    mixed = pd.DataFrame(X, columns=['x1', 'x2', 'x3'])[['x3', 'x1', 'x2']]
    assert (open_like(mixed, recipe).values == X).all()
    noted = open_like(pd.DataFrame(X, columns=NAMES), recipe)
    assert noted.notes == ['the run has no names: columns taken as they stand: a, b, c']


def test_a_row_has_one_score_wherever_it_stands():
    frame = pd.DataFrame(X, columns=NAMES).assign(n=np.arange(120) % 4)
    table = open_table(frame, dequantize='n')
    back = open_like(frame[::-1], table.recipe)
    assert (back.values[::-1] == table.values).all()
    one = open_like(frame[7:8], table.recipe)
    assert (one.values == table.values[7:8]).all()
    counts = pd.DataFrame(dict(n=np.arange(120) % 4, m=np.arange(120) % 3))
    noisy = open_table(counts, dequantize='n,m').values
    assert len(np.unique(noisy[:, 0])) == len(np.unique(noisy[:, 1])) == 120
    assert abs(np.corrcoef((noisy % 1).T)[0, 1]) < 0.3


def test_gaps_that_are_filled_are_counted_and_make_no_atom():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), columns=NAMES)
    frame.loc[:196, 'b'] = np.nan
    with pytest.raises(TableProblems, match='once gaps are filled: b .* in 198 of 400'):
        open_table(frame, missing='median', density=True)
    table = open_table(frame, missing='median')
    assert table.notes == ['cells filled with the median: b (197)']
    again = open_like(frame[190:], table.recipe)
    assert again.notes == ['cells filled with the median: b (7)']
    for missing in (None, 'mean'):
        table, e = settled(frame, **dict(missing=missing) if missing else {})
        assert len(table) == 203 and e.options['missing'] == 'drop-rows'


def test_options_hold_for_frames_arrays_and_parquet_or_are_refused(tmp_path):
    frame = pd.DataFrame(X, columns=NAMES)
    frame.loc[:4, 'a'] = -999
    frame.to_parquet(tmp_path / 'a.parquet')
    np.save(tmp_path / 'a.npy', frame.to_numpy())
    frame.to_csv(tmp_path / 'a.csv', index=False)
    frame.to_csv(tmp_path / 'b.csv', index=False, sep=';', decimal=',')
    files = [tmp_path / f for f in ('a.parquet', 'a.npy', 'a.csv', 'b.csv')]
    for thing in (frame, frame.to_numpy(), torch.tensor(frame.to_numpy()), *files):
        for na in ('-999', '-999.0'):
            assert len(open_table(thing, na=na, missing='drop-rows')) == 115
    swiss = pd.DataFrame(dict(a=["1'257.30", '12'], b=['1', '2.5']))
    assert settled(swiss)[0].values[:, 0].tolist() == [1257.3, 12]
    german = pd.DataFrame(dict(a=['1.257,30', '12,5']))
    assert read_table(german, thousands='.')[:, 0].tolist() == [1257.3, 12.5]
    assert read_table(german[1:], decimal=',')[0, 0] == 12.5
    for thing in (frame, frame.to_numpy(), *files[:2]):
        with pytest.raises(ValueError, match='^skip: only for files of text'):
            open_table(thing, skip=3)
    recipe = open_table(files[3], delimiter=';').recipe
    assert open_like(frame, recipe).names == NAMES


def test_what_is_masked_is_empty():
    masked = np.ma.masked_array(X, X > 1e4)
    left = open_table(masked, missing='drop-rows')
    assert (left.values == X[(X <= 1e4).all(1)]).all() and len(left) < 120
    assert (open_table(np.ma.masked_array(X)).values == X).all()
    fields = np.zeros(120, dtype=[('a', float), ('b', float)])
    fields['a'], fields['b'] = X[:, 0], X[:, 1]
    part = np.ma.array(fields)
    part['a'][3] = np.ma.masked
    assert open_table(part, missing='drop-rows').rows.tolist() == [
        *range(3),
        *range(4, 120),
    ]


def test_frames_of_others_keep_their_names(tmp_path):
    pa = pytest.importorskip('pyarrow')
    frame = pd.DataFrame(X, columns=NAMES)
    recipe = open_table(frame).recipe
    mixed = frame[['c', 'a', 'b']]
    assert (open_like(pa.Table.from_pandas(mixed), recipe).values == X).all()
    mixed.set_index('a').to_parquet(tmp_path / 'a.parquet')
    assert (open_like(tmp_path / 'a.parquet', recipe).values == X).all()
    assert open_table(frame['b']).names == ['b']
    twice = frame.set_index(frame['a'])
    assert settled(twice, drop='c')[1].options['names'] == 'a,a.2,b,c'


def test_whole_numbers_that_number_the_rows_are_asked_about():
    frame = pd.DataFrame(X, columns=NAMES)
    order = np.random.default_rng(0).permutation(120)
    for number in (np.arange(120) + 1000, order, -order):
        table, e = settled(frame.assign(id=number))
        assert e.options == dict(index='id') and table.names == NAMES
    for number in (order * 2, np.where(order == 5, 500, order), order + 0.5):
        assert settled(frame.assign(id=number))[1] is None
    with pytest.raises(ValueError, match="^index: expected one column .* got 'a,b'"):
        open_table(frame, index='a,b')


def test_thousands_in_the_first_line_of_a_file_without_names(tmp_path):
    text = ''.join(
        f"r{i};{i * 7 % 13}'{i * 37 % 900 + 100}.{i % 89:02}\n" for i in range(60)
    )
    table, e = settled(write(tmp_path, 'a.csv', text))
    assert e.options == dict(drop='x1', thousands="'")
    assert len(table) == 60 and table.values[1, 0] == 7137.01


@pytest.mark.parametrize('thing', [
    pd.DataFrame(X)[[]],
    [[1.0, 2.0], [3.0]],
    np.zeros(3, dtype=[('a', [('b', float)])]),
    np.zeros(3, dtype=[('a', float, 2)]),
    torch.zeros(2, 2, device='meta'),
    np.ma.masked_array(np.zeros((2, 3, 3), np.uint8), True),
], ids=repr)  # fmt: skip
def test_objects_that_are_no_tables_are_refused(thing):
    with pytest.raises(ValueError, match='^data: expected'):
        open_table(thing)


def test_tensors_of_other_kinds():
    x = torch.eye(3)
    for thing in (
        x.to_sparse(),
        x.to(torch.float8_e4m3fn),
        x.half(),
    ):
        assert (open_table(thing).values == np.eye(3)).all()
    assert (open_table(torch.tensor(X)).values == X).all()


def test_codes_of_empty_cells_are_asked_about_and_heavy_tails_are_not():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=NAMES)
    for n in (5, 20):
        coded = frame.copy()
        coded.loc[: n - 1, 'b'] = -999
        table, e = settled(coded)
        assert e.options == dict(na='-999', missing='drop-rows')
        assert len(table) == 200 - n and len(e.problems) == 2
        assert len(open_table(coded, allow_ties=True, density=True)) == 200
    tails = frame.assign(b=rng.standard_cauchy(200) ** 3, c=np.exp(5 * frame['c']))
    assert settled(tails)[1] is None


def test_functions_of_another_column_are_asked_about():
    frame = pd.DataFrame(X, columns=NAMES).assign(e=np.exp(X[:, 0]))
    table, e = settled(frame)
    assert e.options == dict(drop='e') and 'a function of another column' in str(e)


def test_integers_that_double_precision_merges_are_asked_about(tmp_path):
    ids = 1234567890123456000 + np.random.default_rng(0).permutation(1000)[:120]
    frame = pd.DataFrame(X, columns=NAMES).assign(id=ids)
    frame.to_csv(tmp_path / 'a.csv', index=False)
    for thing in (frame, tmp_path / 'a.csv'):
        table, e = settled(thing)
        assert e.options == dict(drop='id') and 'double precision' in str(e)
    assert settled(frame.assign(id=ids % 1000))[1] is None


def test_wide_text_without_a_mark_is_asked_about(tmp_path):
    for encoding in ('utf-16-le', 'utf-16-be', 'utf-32-le'):
        path = write(tmp_path, 'a.csv', csv().replace('b', 'é').encode(encoding))
        table, e = settled(path)
        assert e.options == dict(encoding=encoding) and table.names == ['a', 'é', 'c']
    assert settled(write(tmp_path, 'a.csv', csv().encode('utf-32')))[1] is None


def test_a_file_of_names_alone_has_no_rows(tmp_path):
    for text in ('a,b\n', '# by hand\na;b\n'):
        path = write(tmp_path, 'b.csv', text)
        with pytest.raises(ValueError, match='b.csv: .* no row .* the names a, b'):
            open_table(path, density=True)
        with pytest.raises(ValueError, match='b.csv: .* no row .* the names a, b'):
            open_like(path, open_table(X[:, :2], names='a,b').recipe)


def test_archives_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    packed = bytearray(gzip.compress(csv().encode()))
    packed[40:60] = bytes(20)
    whole = zipped(csv() * 20, 'a.csv')
    locked = bytearray(whole)
    for head in (6, whole.index(b'PK\x01\x02') + 8):
        locked[head] |= 1  # a password
    other = bytearray(whole)
    for head in (8, whole.index(b'PK\x01\x02') + 10):
        other[head] = 9  # deflate64
    for name, raw, words in [
        ('a.csv.gz', packed, 'damaged'),
        ('a.csv.zip', locked, 'cannot be unpacked here .*password'),
        ('a.csv.zip', other, 'cannot be unpacked here'),
    ]:
        path = write(tmp_path, name, bytes(raw))
        with pytest.raises(ValueError, match=f'{name}: {words}'):
            open_table(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 4)
    with pytest.raises(ValueError, match='0.png: no image that can be read'):
        open_table(pictures(tmp_path / 'large', (4, 6)))


def test_texts_that_are_nearly_numbers_come_with_advice():
    frame = pd.DataFrame(X, columns=NAMES)
    frame['rate'] = [f'{v:.2f}%' for v in X[:, 0]]
    frame['ok'] = np.where(X[:, 0] > 0, 'True', 'False')
    with pytest.raises(TableProblems) as e:
        open_table(frame)
    assert "frame['rate'].str.strip(" in str(e.value)
    assert "frame['ok'].map({'False': 0, 'True': 1})" in str(e.value)


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
