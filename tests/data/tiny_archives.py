"""Archives in the official formats, with a few pictures each."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def pictures(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def cifar_rows(images, *labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).astype(np.uint8).tobytes()


CIFAR10 = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def cifar10(folder, *, last_label=1, names=CIFAR10):
    """Five batches of 4 training pictures, and 6 test pictures."""
    train, test = pictures(20, (32, 32, 3), 1), pictures(6, (32, 32, 3), 2)
    members = {"batches.meta.txt": "\n".join(names).encode() + b"\n\n"}
    labels = np.arange(20) % 10
    for batch in range(5):
        rows = slice(4 * batch, 4 * batch + 4)
        members[f"data_batch_{batch + 1}.bin"] = cifar_rows(train[rows], labels[rows])
    test_labels = np.array([5, 4, 3, 2, 1, last_label])
    members["test_batch.bin"] = cifar_rows(test, test_labels)
    members = {f"cifar-10-batches-bin/{name}": c for name, c in members.items()}
    write_tar(folder / "cifar-10-binary.tar.gz", members)
    return {"train": (train, labels), "test": (test, test_labels)}


def cifar100(folder):
    train, test = pictures(12, (32, 32, 3), 3), pictures(5, (32, 32, 3), 4)
    fine, fine_test = np.arange(12) * 8, np.arange(5) * 20
    fine_names = "\n".join(f"fine_{i}" for i in range(100))
    coarse_names = "\n".join(f"coarse_{i}" for i in range(20))
    members = {
        "train.bin": cifar_rows(train, fine % 20, fine),
        "test.bin": cifar_rows(test, fine_test % 20, fine_test),
        "fine_label_names.txt": fine_names.encode(),
        "coarse_label_names.txt": coarse_names.encode(),
    }
    members = {f"cifar-100-binary/{name}": c for name, c in members.items()}
    write_tar(folder / "cifar-100-binary.tar.gz", members)
    return {"train": (train, fine), "test": (test, fine_test)}


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def mnist(folder):
    made = {}
    for split, stem, count in (("train", "train", 15), ("test", "t10k", 4)):
        images, labels = pictures(count, (28, 28), count), np.arange(count) % 10
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
        made[split] = images[..., None], labels
    return made


fashion_mnist = mnist


def svhn_cropped(folder):
    import scipy.io

    made = {}
    for split, count in (("train", 11), ("test", 5)):
        images, labels = pictures(count, (32, 32, 3), count), np.arange(count) % 10 + 1
        content = {"X": np.moveaxis(images, 0, -1), "y": labels[:, None]}
        scipy.io.savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
        made[split] = images, labels % 10
    return made


def ppm(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PPM")
    return file.getvalue()


def gtsrb(folder, *, bad_box=None, bad_class=None, cut=False):
    """Classes 0 and 14, two tracks of 3 pictures each, and 4 test pictures.

    All pictures are of 32x32 pixels, which stay as they are, or of 64x48.
    """
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"
    members, images, labels, boxes, groups = {}, [], [], [], []
    for label in (0, 14):
        table, place = head, f"GTSRB/Final_Training/Images/{label:05d}"
        for number in range(6):
            track, frame = divmod(number, 3)
            width, height = (64, 48) if frame == 2 else (32, 32)
            pixels = pictures(1, (height, width, 3), 100 * label + number)[0]
            name = f"{track:05d}_{frame:05d}.ppm"
            box = [2, 3, width - 4, height - 5]
            table += f"{name};{width};{height};{';'.join(map(str, box))};{label}\r\n"
            members[f"{place}/{name}"] = ppm(pixels)
            scale = np.array([width, height] * 2) / 32
            images.append(pixels if frame < 2 else None)
            labels.append(label)
            boxes.append(box / scale)
            groups.append(1000 * label + track)
        members[f"{place}/GT-{label:05d}.csv"] = table.encode()
    write_zip(folder / "GTSRB_Final_Training_Images.zip", members)
    members, table = {}, head
    for number in range(4):
        box, label = [1, 2, 30, 31], 14 * (number % 2)
        if number == 3:
            box, label = bad_box or box, label if bad_class is None else bad_class
        table += f"{number:05d}.ppm;32;32;{';'.join(map(str, box))};{label}\r\n"
        content = ppm(pictures(1, (32, 32, 3), 50 + number)[0])
        short = content[:500] if cut and number == 3 else content
        members[f"GTSRB/Final_Test/Images/{number:05d}.ppm"] = short
    write_zip(folder / "GTSRB_Final_Test_Images.zip", members)
    write_zip(folder / "GTSRB_Final_Test_GT.zip", {"GT-final_test.csv": table.encode()})
    return images, np.array(labels), np.array(boxes), np.array(groups)
