-- icu/chartevents: rows of the needed itemids. `value` stays text as charted: 'None' is an ectopy type and a GCS score.
select
    stay_id, charttime, itemid, value, valuenum,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when stay_id not in (select stay_id from icustays) then 'stay not in icustays'
        when value is null and valuenum is null then 'no value'
    end as dropped
from source
where itemid in (select itemid from needed)
