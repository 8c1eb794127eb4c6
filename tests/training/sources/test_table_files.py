"""List files: the right columns, and errors that name file, line and column."""

import pytest

from training.sources.table_files import read_header, read_table, resolve_inside


def write(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_columns_in_any_order_quotes_blank_lines_and_byte_order_mark(tmp_path):
    file = write(tmp_path, "a.csv", '\ufeffpath,extra, caption\nx/1.mp4,,"red, blue"\n\ny/2.mp4,z,two\r\n')
    table = read_table(file, ["caption", "path"])
    assert table.columns == {"caption": ["red, blue", "two"], "path": ["x/1.mp4", "y/2.mp4"]}
    assert [table.place(index) for index in range(len(table))] == [f"{file}, line 2", f"{file}, line 4"]
    assert read_header(file) == ["path", "extra", "caption"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "", r"a\.csv is empty"),
        ("a.csv", "Name\n", "has a header and no rows"),
        ("a.csv", "Title\nx\n", r"a\.csv, line 1: expected a column 'Name' between ',', found \['Title'\]"),
        ("a.csv", "Name\tother\nx\ty\n", r"the delimiter looks like '\\t'"),
        ("a.tsv", "Name,other\nx,y\n", "the delimiter looks like ','"),
        ("a.csv", "Name,Name\nx,y\n", "more than once"),
        ("a.csv", "Name,b\nx,1\ny\n", r"a\.csv, line 3: 1 fields instead of 2 \(Name, b\)"),
        ("a.csv", "Name,b\nx,1\n ,2\n", r"a\.csv, line 3: column 'Name' is empty"),
        ("a.csv", 'Name,b\nx,1\n"y,2\n', r"a\.csv, line 3: broken row"),
        ("a.csv", b"Name\nx\n\xff\xfe\n", "is not UTF-8"),
        ("a.xlsx", "Name\nx\n", r"ends in one of \.csv, \.tsv"),
        ("a.csv", "Name\n" + "x" * 200_000, "line 2: broken row"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, name, content), ["Name"])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no list file .*none\.csv"):
        read_table(tmp_path / "none.csv", ["Name"])


def test_paths_stay_inside(tmp_path):
    root = (tmp_path / "root").resolve()
    (root / "sub").mkdir(parents=True)
    (root / "inside").symlink_to(root / "sub")
    (root / "outside").symlink_to(tmp_path)
    assert resolve_inside(root, "sub/a.mp4", "x") == root / "sub" / "a.mp4"
    assert resolve_inside(root, "inside/a.mp4", "x") == root / "sub" / "a.mp4"
    for path in ("../a.mp4", "/etc/passwd", "sub/../../a", "a\\..\\b", "a\0b", ""):
        with pytest.raises(ValueError, match=r"list, line 3: .* is not a path inside"):
            resolve_inside(root, path, "list, line 3")
    with pytest.raises(ValueError, match="leads out of"):
        resolve_inside(root, "outside/a.mp4", "x")


def test_circles_of_links_are_refused(tmp_path):
    root = tmp_path.resolve()
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(ValueError, match=r"x: 'a/c\.mp4' cannot be followed"):
        resolve_inside(root, "a/c.mp4", "x")
