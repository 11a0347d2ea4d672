-- All events of the subjects of $split, each at the time from which it could be known.
--   people (subject_id, split)          items (source, itemid, unit)
--   patients, admissions, icustays, diagnoses, chart, output, lab, cxr: data/interim and data/cohort/cxr.parquet
with asked as (
    select subject_id from people where split = $split
),
stays as (
    select icustays.* from icustays join asked using (subject_id)
),
measured as (
    select stay_id, charttime as time, 'chartevents' as source, itemid, valuenum as number, value as text from chart
    union all
    select stay_id, charttime, 'outputevents', itemid, value, null from output
    union all
    -- a result that two ICU stays could see stands there for each of them
    select min(stay_id), {lab_time}, 'labevents', itemid, valuenum, null
    from (select lab.*, stays.subject_id from lab join stays using (stay_id))
    group by subject_id, charttime, available, itemid, valuenum
),
events as (
    select subject_id, null::timestamp as time, 'GENDER//' || gender as code,
        null::double as number, null::varchar as text, null::int as hadm_id, null::int as stay_id, null::varchar as cxr
    from patients where gender is not null
    union all
    -- of age only the year is known; above 89 not even that
    select subject_id, make_timestamp(anchor_year - anchor_age, 1, 1, 0, 0, 0), 'MEDS_BIRTH',
        null, null, null, null, null
    from patients
    union all
    -- dod is a date: until it has passed nobody can know
    select patients.subject_id, coalesce(died.at, dod + interval 1 day - interval 1 second), 'MEDS_DEATH',
        null, null, null, null, null
    from patients
    left join (select subject_id, min(deathtime) as at from admissions group by subject_id) as died using (subject_id)
    where coalesce(died.at, dod) is not null
    union all
    select subject_id, admittime,
        'HOSPITAL_ADMISSION//' || coalesce(admission_type, 'UNK') || '//' || coalesce(admission_location, 'UNK'),
        null, null, hadm_id, null, null
    from admissions
    union all
    select subject_id, admittime, upper(name) || '//' || said, null, null, hadm_id, null, null
    from (unpivot (select subject_id, hadm_id, admittime, race, insurance, language from admissions)
          on race, insurance, language into name name value said)
    union all
    select subject_id, dischtime, 'HOSPITAL_DISCHARGE', null, null, hadm_id, null, null
    from admissions where dischtime is not null
    union all
    -- coded for the bill, after the stay
    select diagnoses.subject_id, dischtime, 'DIAGNOSIS//ICD//' || icd_version || '//' || icd_code,
        null, null, diagnoses.hadm_id, null, null
    from diagnoses join admissions using (hadm_id) where dischtime is not null
    union all
    select subject_id, intime, 'ICU_ADMISSION//' || coalesce(first_careunit, 'UNK'),
        null, null, hadm_id, stay_id, null
    from stays
    union all
    select subject_id, outtime, 'ICU_DISCHARGE//' || coalesce(last_careunit, 'UNK'),
        null, null, hadm_id, stay_id, null
    from stays where outtime is not null
    union all
    select stays.subject_id, time,
        case source when 'chartevents' then 'CHART//' when 'outputevents' then 'OUTPUT//' else 'LAB//' end
            || itemid || coalesce('//' || unit, ''),
        number, text, hadm_id, stay_id, null
    from measured join stays using (stay_id) left join items using (source, itemid)
    union all
    select subject_id, cxr_time, 'CXR//' || view, null, null, null, min(stay_id),
        'files/p' || left(subject_id::varchar, 2) || '/p' || subject_id || '/s' || study_id || '/' || dicom_id || '.jpg'
    from cxr group by subject_id, cxr_time, view, study_id, dicom_id
)
select
    subject_id::bigint as subject_id, time, code, number::float as numeric_value, text as text_value,
    hadm_id::bigint as hadm_id, stay_id::bigint as stay_id, cxr as cxr_path
from events
where subject_id in (from asked)
order by subject_id, time nulls first, code, number nulls first, text nulls first, hadm_id nulls first,
    stay_id nulls first, cxr nulls first
