-- MIMIC-CXR-JPG metadata: one row per image.
-- StudyDate is YYYYMMDD, StudyTime HHMMSS.fff written as a number: 5.25 is 00:00:05.25, 13349.531 is 01:33:49.531.
with parts as (
    select
        *,
        row_number() over () + 1 as line,
        regexp_extract(StudyDate, '^\s*(\d{8})(\.0*)?\s*$', 1) as day,
        regexp_extract(StudyTime, '^\s*(\d{1,6})(\.\d*)?\s*$', 1) as clock,
        regexp_extract(StudyTime, '^\s*\d{1,6}\.(\d*)\s*$', 1) as fraction
    from source
),
timed as materialized (
    select
        *,
        try_strptime(day, '%Y%m%d') as date,
        -- null where one of the two is empty or no date, no time of day
        case when day <> '' and clock <> '' then
            try_strptime(day || lpad(clock, 6, '0'), '%Y%m%d%H%M%S')
            + to_microseconds(rpad(left(fraction, 6), 6, '0')::bigint)
        end as study_time
    from parts
),
-- the first row of each kind that no image can be found by
odd as (
    select
        min({'line': line, 'name': 'dicom_id', 'text': dicom_id, 'rule': 'is no file name'})
            filter (where not regexp_full_match(coalesce(dicom_id, ''), '[0-9A-Za-z][0-9A-Za-z._-]{0,199}')) as id,
        min({'line': line, 'name': 'StudyDate', 'text': StudyDate, 'rule': 'is no date YYYYMMDD'})
            filter (where date is null) as day,
        min({'line': line, 'name': 'StudyTime', 'text': StudyTime, 'rule': 'is no time HHMMSS'})
            filter (where study_time is null and date is not null) as clock,
        count(*) as images, count(date) as dates, count(study_time) as times
    from timed
),
-- refused: any such id; dates and times where fewer than half can be read, for hardly a stay would find its images
fault as (
    select
        coalesce(id, case when 2 * dates < images then day when 2 * times < images then clock end) as first,
        case when id is null then '; ' || (images - times) || ' of ' || images || ' images have no usable time' end as share
    from odd
),
verdict as (
    select case when first is null then 'fine' else error(
        'line ' || first.line || ': column ' || first.name || ': '
        || replace(to_json(left(coalesce(first.text, ''), 80))::varchar, '"', '''') || ' ' || first.rule
        || coalesce(share, '')
    ) end as said
    from fault
)
select
    dicom_id, subject_id, study_id,
    PerformedProcedureStepDescription as procedure, ViewPosition as view_position,
    -- a size that cannot be is not known: it must not win the choice among the images of a study
    case when "Rows" > 0 then "Rows" end as rows, case when "Columns" > 0 then "Columns" end as columns,
    study_time,
    null::varchar as dropped
from timed, verdict
where said = 'fine'
