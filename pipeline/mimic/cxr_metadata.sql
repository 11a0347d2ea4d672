-- MIMIC-CXR-JPG metadata: one row per image.
-- StudyDate is YYYYMMDD, StudyTime HHMMSS.fff written as a number: 5.25 is 00:00:05.25, 13349.531 is 01:33:49.531.
with parts as (
    select
        *,
        regexp_extract(StudyDate, '^\s*(\d{8})(\.0*)?\s*$', 1) as day,
        regexp_extract(StudyTime, '^\s*(\d{1,6})(\.\d*)?\s*$', 1) as clock,
        regexp_extract(StudyTime, '^\s*\d{1,6}\.(\d*)\s*$', 1) as fraction
    from source
)
select
    dicom_id, subject_id, study_id,
    PerformedProcedureStepDescription as procedure, ViewPosition as view_position,
    -- a size that cannot be is not known: it must not win the choice among the images of a study
    case when "Rows" > 0 then "Rows" end as rows, case when "Columns" > 0 then "Columns" end as columns,
    -- null where one of the two is empty or no date, no time of day
    case when day <> '' and clock <> '' then
        try_strptime(day || lpad(clock, 6, '0'), '%Y%m%d%H%M%S')
        + to_microseconds(rpad(left(fraction, 6), 6, '0')::bigint)
    end as study_time,
    null::varchar as dropped
from parts
