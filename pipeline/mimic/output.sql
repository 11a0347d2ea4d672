-- icu/outputevents: rows of the needed itemids; value in mL, whatever unit a row names (`other`). Volumes are summed: two
-- of one size at one time are two bags where anything else tells them apart, when they were stored (`apart`), too.
with named as (
    select source.*, icustays.stay_id is null as astray, icustays.subject_id as patient,
        other_unit(valueuom, needed.unit) as other
    from source
    join needed using (itemid)
    left join icustays on icustays.stay_id = source.stay_id
)
select
    stay_id, charttime, named.itemid,
    case when other is null then value else (value - subtract) * multiply / divide end as value,
    trimmed(storetime) as apart,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when astray then 'stay not in icustays'
        when subject_id <> patient then 'stay of another subject'
        when value is null then 'no value'
        when other is not null and units.itemid is null then unit_of(other, named.itemid)
    end as dropped,
    case when converted then [unit_of(other, named.itemid) || ': converted'] end as noted
from named left join units on units.itemid = named.itemid and units.unit = other
