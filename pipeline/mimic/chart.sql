-- icu/chartevents: rows of the needed itemids. `value` stays text as charted: 'None' is an ectopy type and a GCS score.
-- Where no variable reads the text it is left out: it repeats valuenum, and most of the rows are such. valuenum is in the
-- item's unit: `other` is what a row names instead, to be converted or left out.
with named as (
    select source.*, has_text, case when has_text or valuenum is null then trim(value) end as text,
        icustays.stay_id is null as astray, icustays.subject_id as patient,
        other_unit(valueuom, needed.unit) as other
    from source
    join needed using (itemid)
    left join icustays on icustays.stay_id = source.stay_id
)
select
    stay_id, charttime, named.itemid, case when has_text then nullif(text, '') end as value,
    case when other is null then valuenum else (valuenum - subtract) * multiply / divide end as valuenum,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when astray then 'stay not in icustays'
        when subject_id <> patient then 'stay of another subject'
        when valuenum is null and coalesce(text, '') = '' then 'no value'
        when other is not null and units.itemid is null then unit_of(other, named.itemid)
    end as dropped,
    case when converted then [unit_of(other, named.itemid) || ': converted'] end as noted
from named left join units on units.itemid = named.itemid and units.unit = other
