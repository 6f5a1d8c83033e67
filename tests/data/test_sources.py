"""Loading images from digits, folders, Parquet, WebDataset shards and saved data sets; wrong input in one line."""

import itertools
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from helpers.stream_data import NumberViews, encoded, numbered, write_parquet, write_tar
from ladder_training.data.columns import find_image_column, find_label_column
from ladder_training.data.held_out import split_monitoring
from ladder_training.data.iterable import as_stream
from ladder_training.data.mixing import MapMixture, mix_streams
from ladder_training.data.sources import load_image_stream, split_names
from ladder_training.errors import UserError
from ladder_training.loading.loader import ViewLoader

pytestmark = pytest.mark.usefixtures("own_cache")


def fill(folder, count, start=0, kind="JPEG"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number}.{'jpg' if kind == 'JPEG' else 'png'}").write_bytes(encoded(seed=number, kind=kind))


def contents(dataset, column="image"):
    undecoded = dataset.cast_column(column, datasets.Image(decode=False))
    images = [row[column] for row in undecoded]
    return sorted(i["bytes"] if i["bytes"] is not None else Path(i["path"]).read_bytes() for i in images)


def test_digits_are_the_1797_of_scikit_learn_split_by_content():
    from sklearn.datasets import load_digits

    train, test = load_image_stream("digits"), load_image_stream("digits", "test")
    assert split_names("digits") == ["train", "test"]
    assert len(train) + len(test) == 1797
    assert 0.18 < len(test) / 1797 < 0.22
    assert not set(contents(train)) & set(contents(test))
    labels = np.bincount([*train["label"], *test["label"]])
    assert (labels == np.bincount(load_digits().target)).all()
    image = train[0]["image"]
    assert image.size == (32, 32)
    assert image.mode == "RGB"
    assert train.features["label"].names == list("0123456789")
    # A digit shrunk again is the digit of scikit-learn (bicubic enlarging overshoots by a little).
    digit = load_digits().images[0] if not _is_test(load_digits().images[0]) else load_digits().images[1]
    back = np.asarray(image.convert("L").resize((8, 8), 4), dtype=float) / 255 * 16
    assert np.abs(back - digit).mean() < 1


def _is_test(pixels):
    from ladder_training.data.order import stable_hash

    return stable_hash("digits", pixels.astype(np.uint8).tobytes().hex()) % 100 < 20


def test_digits_stream_is_the_same_set_and_tells_its_length():
    stream = load_image_stream("digits", streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    assert contents(stream) == contents(load_image_stream("digits"))
    assert ViewLoader(stream, NumberViews(), batch_size=100).batches_per_pass == 14


@pytest.mark.parametrize("streaming", [False, True])
def test_folder_with_classes_and_splits(tmp_path, streaming):
    for split, start in (("train", 0), ("val", 100)):
        for index, name in enumerate(("cat", "dog")):
            fill(tmp_path / split / name, 5, start + index * 10)
    assert split_names(tmp_path) == ["train", "validation"]
    train = load_image_stream(tmp_path, streaming=streaming)
    assert train.features["label"].names == ["cat", "dog"]
    assert sorted(row["label"] for row in train) == [0] * 5 + [1] * 5
    expected = sorted(encoded(seed=n) for n in [*range(100, 105), *range(110, 115)])
    assert contents(load_image_stream(tmp_path, "validation", streaming)) == expected
    with pytest.raises(UserError, match=r"no split 'test'; its splits are: train, validation"):
        load_image_stream(tmp_path, "test")


def test_folder_without_classes_has_no_labels_and_streams_in_shards_that_mix(tmp_path):
    fill(tmp_path / "images", 30)
    assert load_image_stream(tmp_path).column_names == ["image"]
    fill(tmp_path / "more", 30, 30)
    stream = load_image_stream(tmp_path, streaming=True)
    assert stream.num_shards == 60
    fill(tmp_path, 1, 60)
    assert load_image_stream(tmp_path).column_names == ["image"]  # an image beside the folders: they are no classes
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(load_image_stream(tmp_path)) == 61


def test_broken_files_are_listed_without_being_opened(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.jpeg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    assert len(load_image_stream(tmp_path)) == 6


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_file_folder_and_glob(tmp_path, streaming):
    folder = write_parquet(tmp_path / "set", numbered(40), 4)
    for name in (folder, str(folder / "*.parquet")):
        assert contents(load_image_stream(name, streaming=streaming)) == contents(numbered(40))
    one = load_image_stream(folder / "part-000.parquet", streaming=streaming)
    assert 0 < len(contents(one)) < 40
    if streaming:
        groups = [pq.read_metadata(file).num_row_groups for file in folder.glob("*.parquet")]
        assert load_image_stream(folder, streaming=True).num_shards == sum(groups) > 4
        assert ViewLoader(load_image_stream(folder, streaming=True), NumberViews(), batch_size=4).batches_per_pass == 10


def test_parquet_splits_by_file_name_and_by_folder(tmp_path):
    for layout in ("train.parquet", "data/train-00000-of-00001.parquet", "default/train/0000.parquet"):
        folder = tmp_path / layout.replace("/", "-")
        for split, size in (("train", 12), ("test", 5), ("validation", 3)):
            file = folder / layout.replace("train", split)
            file.parent.mkdir(parents=True, exist_ok=True)
            numbered(size).to_parquet(file)
        assert split_names(folder) == ["train", "validation", "test"]
        assert [len(load_image_stream(folder, split)) for split in split_names(folder)] == [12, 3, 5]


def test_columns_of_bytes_and_of_paths_become_images(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    fill(tmp_path / "files", 2)
    pq.write_table(pa.table({"data": [encoded(seed=n) for n in range(3)]}), tmp_path / "bytes.parquet")
    paths = [str(tmp_path / "files" / f"{n}.jpg") for n in range(2)]
    pq.write_table(pa.table({"image": paths}), tmp_path / "paths.parquet")
    assert load_image_stream(tmp_path / "bytes.parquet")[0]["data"].size == (16, 12)
    assert load_image_stream(tmp_path / "paths.parquet")[0]["image"].size == (16, 12)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("labels", [None, "cls", "json"])
def test_webdataset_shards_and_their_labels(tmp_path, labels, streaming):
    for shard in range(2):
        images = [encoded(seed=shard * 6 + n) for n in range(6)]
        write_tar(tmp_path / "set" / f"a-{shard:03d}.tar", images, shard * 6, labels)
    dataset = load_image_stream(tmp_path / "set", streaming=streaming)
    assert find_image_column(dataset) == "jpg"
    assert find_label_column(dataset) == (None if labels is None else "label")
    assert contents(dataset, "jpg") == sorted(encoded(seed=n) for n in range(12))
    if labels:
        rows = list(dataset.cast_column("jpg", datasets.Image(decode=False)))
        assert {row["__key__"]: row["label"] for row in rows} == {f"{n:05d}": n % 3 for n in range(12)}


def test_shards_by_braces_as_webdataset_writes_them(tmp_path):
    for shard in range(8, 12):
        write_tar(tmp_path / f"a-{shard:03d}.tar", [encoded(seed=shard)], shard)
    name = str(tmp_path / "a-{008..011}.tar")
    assert contents(load_image_stream(name), "jpg") == sorted(encoded(seed=n) for n in range(8, 12))
    some = load_image_stream(str(tmp_path / "a-{008,01*}.tar"), streaming=True)
    assert contents(some, "jpg") == sorted(encoded(seed=n) for n in (8, 10, 11))
    assert split_names(name) == ["train"]
    with pytest.raises(UserError, match=r"there is no .*a-012\.tar"):
        load_image_stream(str(tmp_path / "a-{008..012}.tar"))
    (tmp_path / "b-1.txt").touch()
    with pytest.raises(UserError, match=r"b-1\.txt is not a \.parquet or \.tar file"):
        load_image_stream(str(tmp_path / "b-{1..1}.txt"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_data_set(tmp_path, streaming):
    datasets.DatasetDict(train=numbered(7), test=numbered(3)).save_to_disk(tmp_path / "saved")
    assert split_names(tmp_path / "saved") == ["train", "test"]
    assert contents(load_image_stream(tmp_path / "saved", "test", streaming)) == contents(numbered(3))


def test_wrong_names_are_one_line_with_near_names(tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "page.html").write_text("x")
    for name, message in (
        (tmp_path / "flower", r"no such data set; did you mean .*flowers"),
        (tmp_path / "flowers", r"no images, Parquet files or WebDataset shards"),
        (tmp_path / "page.html", r"not a \.html file"),
        (str(tmp_path / "*.tar"), r"no \.parquet or \.tar file matches"),
        ("digit", r"did you mean digits"),
        ("nobody/nothing", r"Hub"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_image_stream(name)
        assert "\n" not in str(caught.value)


def test_without_a_network_a_hub_name_fails_at_once_and_in_one_line(monkeypatch, caplog, capfd):
    def no_network(*args, **kwargs):
        raise OSError("Name or service not known")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits to ask again"))
    for ask in (load_image_stream, split_names):
        with pytest.raises(UserError, match=r"^nobody/nothing: .*the Hub") as caught:
            ask("nobody/nothing")
        assert "\n" not in str(caught.value)
    assert not constants.HF_HUB_OFFLINE
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_no_image_column_names_those_that_exist(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "size": [1]}).to_parquet(tmp_path / "words.parquet")
    with pytest.raises(UserError, match="its columns are: text, size"):
        load_image_stream(tmp_path / "words.parquet")
    with pytest.raises(UserError, match=r"no column 'photo'.*image"):
        load_image_stream("digits", image_column="photo")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_data_set_is_refused(tmp_path, streaming):
    # datasets 5.1 cannot write an empty set itself.
    pq.write_table(numbered(4).data.table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"empty"):
        load_image_stream(tmp_path / "empty.parquet", streaming=streaming)


def test_a_broken_parquet_file_is_named(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"broken\.parquet"):
        load_image_stream(tmp_path / "broken.parquet")


def test_which_column_holds_images_and_labels():
    image, text, integer = datasets.Image(), datasets.Value("string"), datasets.Value("int64")

    def columns(**features):
        return datasets.Dataset.from_dict({name: [] for name in features}, features=datasets.Features(features))

    assert find_image_column(columns(mask=image, image=image)) == "image"
    assert find_image_column(columns(mask=image, other=image)) == "mask"
    assert find_image_column(columns(image=text, scan=image)) == "scan"
    assert find_label_column(columns(image=image, size=integer)) is None
    assert find_label_column(columns(image=image, fine_label=integer)) == "fine_label"
    classes = datasets.ClassLabel(names=["a", "b"])
    assert find_label_column(columns(image=image, coarse=classes, label=classes)) == "label"
    boolean = datasets.Value("bool")
    for kind in (text, boolean, datasets.Value("large_string")):
        assert find_label_column(columns(image=image, caption=kind, label=kind)) == "label"
        assert find_label_column(columns(image=image, label=kind, category=integer)) == "category"
        assert find_label_column(columns(image=image, label=kind, breed=classes)) == "breed"
        assert find_label_column(columns(image=image, caption=kind)) is None
    assert find_label_column(columns(image=image, label=datasets.Value("float32"))) is None


@pytest.mark.parametrize("streaming", [False, True])
def test_monitoring_holds_out_a_fixed_part_that_training_never_sees(streaming):
    dataset = load_image_stream("digits", streaming=streaming)
    train, held_out = split_monitoring(dataset, fraction=0.05)
    _, again = split_monitoring(load_image_stream("digits", streaming=streaming), fraction=0.05)
    assert len(held_out) == 71
    assert contents(held_out) == contents(again)
    assert sorted(contents(train) + contents(held_out)) == contents(dataset)
    assert find_label_column(held_out) == "label"
    assert len(set(held_out["label"])) > 5
    assert len(split_monitoring(dataset, fraction=0.05, maximum=10)[1]) == 10
    assert split_monitoring(dataset, fraction=0.001)[1] is None


@pytest.mark.parametrize("streaming", [False, True])
def test_at_least_200_of_4000_images_or_more_are_held_out(streaming):
    digits = datasets.concatenate_datasets([load_image_stream("digits")] * 3)
    for count, held in ((3999, 40), (4000, 200)):
        part = digits.select(range(count))
        part = as_stream(part, 4) if streaming else part
        assert len(split_monitoring(part)[1]) == held


def test_monitoring_by_path_does_not_depend_on_the_order_of_the_rows():
    dataset = load_image_stream("digits")
    shuffled = dataset.shuffle(seed=3)
    assert contents(split_monitoring(dataset)[1]) == contents(split_monitoring(shuffled)[1])
    # rows without names are chosen by row, also after select and shuffle
    nameless = [{"bytes": b"ok%d" % n, "path": None} for n in range(400)]
    rows = datasets.Dataset.from_dict({"image": nameless}, features=datasets.Features({"image": datasets.Image()}))
    assert contents(split_monitoring(rows)[1]) == contents(split_monitoring(rows.shuffle(seed=1))[1])


def test_monitoring_of_a_mixture():
    first, second = load_image_stream("digits"), numbered(300)
    train, held_out = split_monitoring(mix_streams([first, second], [0.5, 0.5]))
    assert isinstance(train, MapMixture)
    assert len(train) + len(held_out) == 1428 + 300
    assert len(held_out) == 14 + 3
    both = split_monitoring(mix_streams([first, load_image_stream("digits", "test")]))[1]
    assert set(both.column_names) == {"image", "label"}


def test_training_stream_without_the_held_out_images_goes_through_the_loader():
    stream = numbered(300).to_iterable_dataset(num_shards=5)
    train, held_out = split_monitoring(stream, fraction=0.04)
    kept = {int(data[2:]) for data in contents(held_out)}
    loader = ViewLoader(train, NumberViews(), batch_size=9)
    seen = [int(n) for batch in itertools.islice(loader, 32) for n in batch["pixel_values"].flatten()]
    assert len(kept) == 12
    assert sorted(seen) == sorted(set(range(300)) - kept)
