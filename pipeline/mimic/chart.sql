-- icu/chartevents: rows of the needed itemids. `value` stays text as charted: 'None' is an ectopy type and a GCS score.
select
    stay_id, charttime, itemid, value,
    -- + 0.0: no negative zero, whose place in the order would be a matter of chance
    case when isfinite(valuenum) then valuenum + 0.0 end as valuenum,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when stay_id not in (select stay_id from icustays) then 'stay not in icustays'
        when value is null and not coalesce(isfinite(valuenum), false) then 'no value'
    end as dropped
from source
where itemid in (select itemid from needed)
