"""Leaks by images: of another time, person or stay, or in two parts."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import numpy as np
import polars as pl

from tests.support.planted.changes import where


def retaken(a, row, hours):
    """All files agree that the image of this row of the index was taken `hours` after intime."""
    dicom, stay = a.images["dicom_id"][row], a.images["stay_id"][row]
    time = a.stays.filter(stay_id=stay)["intime"][0] + timedelta(hours=hours)
    it = pl.col("dicom_id") == dicom
    return {
        "metadata": a.metadata.with_columns(study_time=pl.when(it).then(time).otherwise("study_time")),
        "cxr": a.cxr.with_columns(
            cxr_time=pl.when(it).then(time).otherwise("cxr_time"),
            hours_from_intime=pl.when(it).then(hours).otherwise("hours_from_intime"),
        ),
        "images": a.images.with_columns(hours_from_intime=pl.when(it).then(hours).otherwise("hours_from_intime")),
    }


def image_a_second_after_the_window(a):
    return retaken(a, 2, 48 + 1 / 3600)


def image_before_intime(a):
    return retaken(a, 2, -1 / 3600)


def image_whose_link_hides_its_time(a):
    """cxr.parquet and the index say hour 40; the metadata know better."""
    true = retaken(a, 2, 60.0)
    return {**retaken(a, 2, 40.0), "metadata": true["metadata"]}


def hour_of_image_that_models_see(a):
    return {"images": where(a.images, "hours_from_intime", 2, 47.5)}


def with_image(a, row, dicom):
    """Row `row` of the index, and its link, name another image of the archive."""
    stay = a.images["stay_id"][row]
    link = (pl.col("stay_id") == stay) & (pl.col("rank") == 1)
    return {
        "images": where(a.images, "dicom_id", row, dicom),
        "cxr": a.cxr.with_columns(dicom_id=pl.when(link).then(pl.lit(dicom)).otherwise("dicom_id")),
    }


def image_of_another_subject(a):
    return with_image(a, 2, a.images["dicom_id"][3])


def image_of_another_stay_of_the_subject(a):
    """Packed from another admission of the same patient: not linked to this stay."""
    person = a.icustays.filter(stay_id=a.images["stay_id"][2])["subject_id"][0]
    other = where(a.metadata, "subject_id", a.metadata["dicom_id"].index_of(a.images["dicom_id"][3]), person)
    return {"metadata": other, "images": where(a.images, "dicom_id", 2, a.images["dicom_id"][3])}


def packed_image_of_a_lower_rank(a):
    """The link's ranks were exchanged after packing."""
    return {"cxr": a.cxr.with_columns(pl.col("rank") + 1)}


def has_cxr_without_a_link(a):
    row = a.stays["has_cxr"].index_of(False)
    return {"stays": where(a.stays, "has_cxr", row, pl.lit(True))}


def two_images_of_a_stay(a):
    images = pl.concat([a.images, a.images[:1].with_columns(row=pl.lit(a.images.height, pl.Int32))])
    return {"images": images, "pixels": np.concatenate([a.pixels, a.pixels[:1]])}


def pixels_in_another_order(a):
    pixels = np.array(a.pixels)
    pixels[[1, 2]] = pixels[[2, 1]]
    return {"pixels": pixels}


def pixel_row_too_few(a):
    return {"pixels": a.pixels[:-1]}


def copied(a, change):
    """The picture of a test stay, changed, under a training stay's dicom_id, with the digest that fits."""
    part = a.images.join(a.splits.filter(pl.col("fold") == 0), on="stay_id", how="left", maintain_order="left")["part"]
    train, test = part.index_of("train"), part.index_of("test")
    pixels = np.array(a.pixels)
    pixels[train] = change(pixels[test])
    digest = hashlib.sha256(pixels[train].tobytes()).hexdigest()
    return {"pixels": pixels, "images": where(a.images, "sha256", train, pl.lit(digest))}


def same_pixels_in_train_and_test(a):
    return copied(a, lambda picture: picture)


def same_image_in_train_and_test(a):
    """By its dicom_id, under other pixels."""
    part = a.images.join(a.splits.filter(pl.col("fold") == 0), on="stay_id", how="left", maintain_order="left")["part"]
    return {"images": where(a.images, "dicom_id", part.index_of("train"), a.images["dicom_id"][part.index_of("test")])}


def image_saved_anew_in_train_and_test(a):
    """Under another dicom_id, with noise of a grey level: no digest is the same."""
    noise = np.random.default_rng(0).integers(-1, 2, a.pixels.shape[1:])
    return copied(a, lambda picture: np.clip(picture + noise, 0, 255).astype(np.uint8))
