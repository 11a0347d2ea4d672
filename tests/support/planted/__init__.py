"""Leaks to plant into clean artefacts: functions from Artefacts to the fields that change, by the check meant for them.

Each is as well hidden as its author could: what goes with the change is changed alike, so that the other checks that
look at the same file find nothing of their own.
"""

from tests.support.planted import images, labels, masks, people, series

PLANTED = {
    "stays_contradict_records": (
        people.intime_six_hours_later,
        people.stay_of_another_subject,
        people.stay_of_another_admission,
        people.length_of_stay_of_another,
        people.stay_twice,
        people.stay_of_no_admission,
    ),
    "dead_at_prediction_time": (
        people.dead_at_hour_45_though_the_bed_was_left_later,
        people.dead_at_hour_40_without_deathtime,
        people.dead_in_an_admission_before,
        people.discharged_at_hour_47,
    ),
    "subjects_cross_parts": (
        people.readmission_in_another_part,
        people.test_subject_in_training_of_the_same_fold,
        people.splits_by_stay_under_a_false_subject,
        people.dev_subject_in_training,
    ),
    "subjects_not_tested_once": (people.subject_tested_twice, people.subject_never_tested),
    "later_era_in_training": (people.training_stay_of_a_tested_era, people.training_stay_without_era),
    "splits_incomplete": (people.stay_without_part, people.stay_in_a_fold_twice, people.part_of_no_name),
    "events_outside_window": (
        series.event_at_hour_48,
        series.series_of_the_hour_after,
        series.series_of_another_time_zone,
        series.series_from_before_intime,
        series.series_of_another_stay,
        series.value_of_hour_48_in_hour_47,
        series.future_carried_backwards_in_both_files,
        series.values_left_out_where_the_label_is_true,
        series.urine_that_looks_ahead,
    ),
    "packed_values_differ": (
        series.packed_value_that_was_never_charted,
        series.packed_rows_permuted,
        series.packed_columns_swapped,
        series.packed_future_carried_backwards,
        series.packed_category_of_another_entry,
        series.packed_stay_too_many,
        series.hour_twice,
    ),
    "stays_without_series": (series.stay_without_series, series.stay_without_labels, series.stay_with_two_labels),
    "statistics_beyond_training": (
        series.statistics_of_everybody,
        series.statistics_of_training_and_validation,
        series.statistics_of_another_fold,
        series.statistics_of_test_rows_in_equal_number,
        series.spread_of_everybody,
    ),
    "images_outside_window": (
        images.image_a_second_after_the_window,
        images.image_before_intime,
        images.image_whose_link_hides_its_time,
        images.hour_of_image_that_models_see,
    ),
    "images_of_others": (
        images.image_of_another_subject,
        images.image_of_another_stay_of_the_subject,
        images.packed_image_of_a_lower_rank,
        images.has_cxr_without_a_link,
        images.two_images_of_a_stay,
    ),
    "packed_images_differ": (images.pixels_in_another_order, images.pixel_row_too_few),
    "images_cross_parts": (images.same_pixels_in_train_and_test, images.same_image_in_train_and_test),
    "images_nearly_alike": (images.image_saved_anew_in_train_and_test,),
    "mortality_contradicts_admissions": (
        labels.survivor_labelled_dead,
        labels.death_in_hospital_hidden,
        labels.labels_permuted,
    ),
    "los_contradicts_times": (labels.los_class_one_too_high,),
    "phenotypes_contradict_diagnoses": (labels.phenotype_of_another_admission, labels.phenotype_lost),
    "labels_among_inputs": (
        labels.label_by_name,
        labels.outcome_in_the_hourly_table,
        labels.label_by_value,
        labels.label_by_value_in_one_hour,
        labels.label_with_noise,
        labels.label_by_presence,
        labels.label_by_presence_in_the_last_hour,
        labels.label_as_a_category,
        labels.length_of_stay_among_the_inputs,
        labels.label_by_presence_of_the_image,
    ),
    "masks_not_nested_or_shared": (
        masks.masks_by_strategy,
        masks.masks_that_are_not_nested,
        masks.stay_that_is_never_removed,
        masks.mask_of_an_image_that_is_not_there,
        masks.part_of_which_little_is_removed,
    ),
    "masks_follow_labels": (masks.records_removed_by_label, masks.images_removed_by_label_under_mar),
}
