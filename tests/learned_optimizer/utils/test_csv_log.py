import math

import pytest

from learned_optimizer.utils.csv_log import CsvLog, compress, read_csv


def write(path, columns, last_step, *rows):
    log = CsvLog(path, columns, last_step)
    for row in rows:
        log.write(row)
    log.close()


@pytest.mark.parametrize("columns", [("step", "loss", "rate"), ("step",)])
def test_a_run_that_goes_on_drops_what_it_does_again(tmp_path, columns):
    path = tmp_path / "log.csv"
    write(path, columns, 0, *({"step": s, "loss": s / 3, "rate": s} for s in (1, 2, 3)))
    with open(path, "a", encoding="utf-8") as file:
        file.write("4,0.")
    write(path, columns, 2, {"step": 3, "loss": -1.0, "rate": 0.0})
    assert path.read_text(encoding="utf-8").splitlines() == [
        "step,loss,rate",
        "1,0.333333333,1",
        "2,0.666666667,2",
        "3,-1,0",
    ]
    assert read_csv(path)[-1] == {"step": 3.0, "loss": -1.0, "rate": 0.0}


def test_columns_are_those_of_the_first_row(tmp_path):
    path = tmp_path / "log.csv"
    write(path, ("step",), 0, {"step": 0, "loss": 1.0}, {"step": 1, "other": 2.0})
    first, second = read_csv(path)
    assert first == {"step": 0.0, "loss": 1.0}
    assert set(second) == {"step", "loss"} and math.isnan(second["loss"])


def test_named_columns_are_in_every_row(tmp_path):
    with pytest.raises(KeyError, match="loss"):
        write(tmp_path / "log.csv", ("step", "loss"), 0, {"step": 1})


@pytest.mark.parametrize("columns", [("step", "accuracy"), ("outer_step",)])
def test_a_file_with_other_columns_stays_as_it_is(tmp_path, columns):
    path = tmp_path / "log.csv"
    write(path, ("step", "loss"), 0, {"step": 1, "loss": 2.0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must have the columns .* Received: step,"):
        CsvLog(path, columns, 1)
    assert path.read_bytes() == before


def test_a_compressed_file_is_read_by_its_name(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n" + "".join(f"{i},{i / 8}\n" for i in range(1000)))
    rows, size = read_csv(path), path.stat().st_size
    assert compress(path) == tmp_path / "log.csv.xz"
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv.xz"]
    assert (tmp_path / "log.csv.xz").stat().st_size < size / 3
    assert read_csv(path) == read_csv(tmp_path / "log.csv.xz") == rows
    assert rows[-1] == {"step": 999.0, "loss": 124.875}
