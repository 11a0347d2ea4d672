-- icu/outputevents: rows of the needed itemids; value in mL.
select
    stay_id, charttime, itemid, value,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when stay_id not in (select stay_id from icustays) then 'stay not in icustays'
        when value is null then 'no value'
    end as dropped
from source
where itemid in (select itemid from needed)
